"""Files and rows of question sets as records: ours and the public format; `benchmarks` has other public formats."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.prompt import question_text
from training.questions.records import LETTERS, Record, from_json

_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*)", re.S)  # "A. Become larger."


@dataclass(frozen=True)
class Numeric(Record):
    """A question that is answered by a number, in `answer`, and has no options."""

    def __post_init__(self) -> None:
        if self.options or not isfinite(float(self.answer)):
            raise ValueError(f"{self.videoID}: answer {self.answer!r} of a question without options is no number")

    @property
    def number(self) -> float:
        return float(self.answer)


def rows_of(file: Path) -> Sequence[Any]:
    """What a `.json` list, a `.jsonl` or a `.parquet` table holds. ValueError when it is none of these."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if file.suffix == ".json":
        items = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(items, list):
            raise ValueError(f"{file.name} holds a {type(items).__name__}, expected a list of records")
        return items
    if file.suffix != ".parquet":
        raise ValueError(f"{file.name}: a question set is a .json, .jsonl or .parquet file")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(file).to_pylist()


def record_of(row: Any) -> Record:
    """ValueError when the row is no question with options that the prompt can hold."""
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__}, expected an object")
    if "options" in row and "answer" in row:
        options = options_of(row["options"])
        row = row | {"options": options, "answer": letter_of(str(row["answer"]), options)}
    return checked(from_json(row))


def checked(record: Record) -> Record:
    """The same. ValueError when the prompt cannot hold it."""
    if not all(isinstance(text, str) for text in (record.videoID, record.question, record.type)):
        raise ValueError(f"videoID, question and type must be text, got {record.videoID!r}")
    try:
        question_text(record.question, record.options)
    except InputError as error:
        raise ValueError(f"{record.videoID}: {error}") from None
    return record


def options_of(given: Any) -> list[str]:
    """A list, or the text of one as JSON or Python writes it; without letters of their own, which the prompt adds."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = _literal(given)
    if not isinstance(given, list | tuple):
        raise ValueError(f"options are a {type(given).__name__}, expected a list")
    options = [str(option) for option in given]
    own = [_LETTERED.fullmatch(option) for option in options]
    if all(match and match[1] == letter for match, letter in zip(own, LETTERS, strict=False)):
        return [match[2] for match in own if match]
    return options


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"options {text[:40]!r} are no list") from None


def letter_of(answer: str, options: list[str]) -> str:
    """`B` of `B`, `(B)`, `B.` or of the option itself; anything else as it is."""
    if answer in options and answer not in LETTERS:
        return LETTERS[options.index(answer)]
    return answer.strip().strip("().:")
