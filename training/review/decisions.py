"""What was kept and what dropped: a JSON lines file to which every decision is added, and the set that is left.

{"id": "16 hexadecimal digits", "decision": "keep" | "drop" | "undecided", "note": "why", "at": "2026-01-31T12:00:00Z"}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.groups import without
from training.questions.records import Record
from training.review.items import id_of

FILE = "decisions.jsonl"  # beside the page
DECISIONS = ("keep", "drop", "undecided")
LONGEST_NOTE = 500  # characters


@dataclass(frozen=True)
class Decision:
    """ValueError when a field is none of what the module's docstring says."""

    id: str
    decision: str
    note: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"decision {str(self.decision)[:40]!r} is none of {', '.join(DECISIONS)}")
        if not all(isinstance(text, str) for text in (self.id, self.note, self.at)):
            raise ValueError("id, note and at must be text")
        if len(self.note) > LONGEST_NOTE:
            raise ValueError(f"note has {len(self.note)} characters, at most {LONGEST_NOTE}")

    @classmethod
    def of(cls, fields: Any) -> Decision:
        if not isinstance(fields, Mapping) or not {"id", "decision"} <= fields.keys():
            raise ValueError("a decision is an object with id and decision")
        return cls(fields["id"], fields["decision"], fields.get("note", ""), fields.get("at", ""))

    def line(self) -> str:
        return json.dumps(self.__dict__, ensure_ascii=False) + "\n"


def read(path: Path) -> dict[str, Decision]:
    """The last decision about each question; none when there is no file. A last line that was cut short is left out.

    Raises:
        ValueError: a line is no decision; its number is told.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found: dict[str, Decision] = {}
    for number, line in enumerate(lines, start=1):
        try:
            decision = Decision.of(json.loads(line))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path.name}, line {number}: {error}") from None
        found[decision.id] = decision
    return {id_: decision for id_, decision in found.items() if decision.decision != "undecided"}


@dataclass(frozen=True)
class Applied:
    """What is left of a set. `counts`: kept, dropped, undecided, and `with their group` for those that go with others.

    `unknown` decisions are about questions that the set does not have.
    """

    records: tuple[Record, ...]
    counts: Counter[str]
    unknown: int


def apply(
    records: Sequence[Record], decisions: Mapping[str, Decision], undecided: str = "keep", groups: bool = True
) -> Applied:
    """The set without what was dropped, and without what is undecided when that is to be dropped, too.

    With `groups` what shares options with a question that goes, goes as well: see `training.data.groups`.
    """
    ids = [id_of(record) for record in records]
    said = [decisions[id_].decision if id_ in decisions else "undecided" for id_ in ids]
    goes = {"drop"} | ({"undecided"} if undecided == "drop" else set())
    gone = [place for place, decision in enumerate(said) if decision in goes]
    left, counts = without(records, gone, groups), Counter(said)
    counts["with their group"] = len(records) - len(gone) - len(left)
    return Applied(tuple(left), counts, len(set(decisions) - set(ids)))
