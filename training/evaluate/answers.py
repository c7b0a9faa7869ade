"""What comes back for a question, and what it is worth: by our strict rule, and by the rules that others publish."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from training.data.formats import Numeric
from training.questions.records import LETTERS, Record

# Taken away before the first letter is looked for: "Best answer:" has a B of its own.
PREAMBLE = re.compile(r"(?:the|best|correct) (?:best |correct )?(?:answer|option)(?: is)?:?", re.I)
TOLERANCES = 1 - np.linspace(0.5, 0.95, 10)  # relative errors of mean relative accuracy: 50 %, 45 %, … 5 %


@dataclass(frozen=True)
class Answered:
    """`probabilities` of the options; empty where `text` was asked for."""

    row: str
    id: str
    probabilities: tuple[float, ...] = ()
    text: str = ""

    @property
    def choice(self) -> int:
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Refused:
    """A question that is not answered, and why: its video, or its length, is beyond what the model takes."""

    row: str
    id: str
    why: str


def strict(record: Record, answer: Answered) -> float:
    """1 when the right option is the most probable; of a number, its mean relative accuracy."""
    if isinstance(record, Numeric):
        return mean_relative_accuracy(number(answer.text), record.number)
    return float(answer.choice == record.right)


def first_letter(record: Record, answer: Answered) -> float:
    """The public rule of Video-MME and DSR-Bench: the first capital that is a letter of an option counts.

    "The answer is B, not A." is B, and so is "BEFORE": generous to what is no answer. Text without any is wrong; the
    public rule compares it with the options first, by code of its own that we do not repeat.
    """
    found = re.search(f"[{LETTERS[: len(record.options)]}]", PREAMBLE.sub("", answer.text))
    return float(found is not None and found[0] == record.answer)


def only_letter(record: Record, answer: Answered) -> float:
    """The text is the right letter and nothing else."""
    return float(answer.text.strip() == record.answer)


def mean_relative_accuracy(said: float | None, true: float) -> float:
    """VSI-Bench (arXiv 2412.14171): the share of ten tolerances, 50 % to 5 %, within which the relative error lies.

    As in its evaluation code, in floating point, an error as large as the tolerance is within. None earns nothing.
    """
    if said is None:
        return 0.0
    if true == 0:
        return float(said == 0)
    return float((abs(said - true) / abs(true) <= TOLERANCES).mean())


def number(text: str) -> float | None:
    """VSI-Bench's rule: the first word, without a full stop after it, if it is a number."""
    try:
        return float(text.strip().split(" ")[0].rstrip("."))
    except ValueError:
        return None
