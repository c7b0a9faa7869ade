"""Rules that pick an option without looking at the video, nor at the question.

Each rule scores the options of one question; the highest wins. Several that win share the point, so that a rule that
cannot decide has exactly the accuracy of chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from training.questions.records import Record
from training.questions.verbalise import place

_NUMBER = re.compile(r"\(\d+\)")

Rule = Callable[[Sequence[str]], Sequence[float]]


def statements(option: str) -> list[str]:
    """`(1) Front|Left. (2) Left.` -> `Front|Left`, `Left`. Text without numbers is one statement."""
    parts = (part.strip().removesuffix(".").strip() for part in _NUMBER.split(option))
    return [part for part in parts if part] or [option]


def roughness(option: str) -> float:
    """Mean length of the steps between neighbouring statements; 0 for a single one."""
    steps = [float(np.linalg.norm(place(b) - place(a))) for a, b in pairwise(statements(option))]
    return sum(steps) / len(steps) if steps else 0.0


def likeness(options: Sequence[str]) -> list[float]:
    """How much each option has in common with the others: shared parts over all parts, summed over the others."""
    parts = [_parts(option) for option in options]
    return [
        sum((one & other).total() / max((one | other).total(), 1) for j, other in enumerate(parts) if j != i)
        for i, one in enumerate(parts)
    ]


def _parts(option: str) -> Counter[str]:
    """Words at their place, words anywhere, and pairs of neighbouring statements."""
    said = statements(option)
    words = [(n, word) for n, statement in enumerate(said) for word in re.split(r"[| ]", statement)]
    parts = Counter(f"{n} {word}" for n, word in words) + Counter(word for _, word in words)
    return parts + Counter(f"{a} > {b}" for a, b in pairwise(said))


def _first_word(option: str) -> str:
    return re.split(r"[| ]", statements(option)[0])[0]


def _common_first_word(options: Sequence[str]) -> list[float]:
    firsts = [_first_word(option) for option in options]
    return [firsts.count(word) for word in firsts]


RULES: dict[str, Rule] = {
    "smoothest": lambda options: [-roughness(option) for option in options],
    "least smooth": lambda options: [roughness(option) for option in options],
    "shortest": lambda options: [-len(option) for option in options],
    "longest": lambda options: [len(option) for option in options],
    "most common first word": _common_first_word,
    "most similar to the others": likeness,
    "least similar to the others": lambda options: [-score for score in likeness(options)],
}


def points(rule: Rule, records: Iterable[Record]) -> list[float]:
    """What the rule earns on each question: 1, 0, or a share where it cannot decide."""
    return [_point(rule(record.options), record.right) for record in records]


def _point(scores: Sequence[float], right: int) -> float:
    # Sums in another order differ in their last digit.
    best = [place for place, score in enumerate(scores) if score >= max(scores) - 1e-9]
    return (right in best) / len(best)
