"""Question records: the public fields, what we know besides, and reading and writing them as JSON.

A file is a JSON list of objects with `videoID`, `question`, `options`, `answer` and `type`, as the public question sets
have them. What we know besides stands beside these fields, where their readers do not look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LETTERS = "ABCDE"  # ours have four options; STI-Bench has five
PUBLIC = ("videoID", "question", "options", "answer", "type")


@dataclass(frozen=True)
class Extras:
    """What the public format does not have.

    `statements` of the truth; `interval`: the two times in seconds, as printed, and `frames`: their frames; `viewer`:
    its name; `visible_frames`: how many frames, from the first, may be shown to whoever answers. `group`: the four
    questions with these options share it. `sources`: for each option what makes it of the truth.
    """

    statements: tuple[str, ...]
    interval: tuple[float, float]
    frames: tuple[int, int]
    viewer: str
    visible_frames: int
    group: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """One question with its options. `answer` is the letter of the right one; `extras` are None for public sets."""

    videoID: str  # noqa: N815 - the public field's name
    question: str
    options: tuple[str, ...]
    answer: str
    type: str
    extras: Extras | None = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS):
            raise ValueError(f"{self.videoID}: {len(self.options)} options, expected 2 to {len(LETTERS)}")
        if len(self.answer) != 1 or self.answer not in LETTERS[: len(self.options)]:
            raise ValueError(f"{self.videoID}: answer {self.answer!r} is none of {LETTERS[: len(self.options)]}")

    @property
    def right(self) -> int:
        """The place of the right option."""
        return LETTERS.index(self.answer)


def as_json(record: Record, extras: bool = True) -> dict[str, Any]:
    """The fields of one record, the public ones first; without `extras` only these."""
    fields = {name: getattr(record, name) for name in PUBLIC}
    fields["options"] = list(record.options)
    return fields | (asdict(record.extras) if extras and record.extras else {})


def from_json(fields: Any) -> Record:
    """Raises ValueError naming a public field that is missing. Fields that nobody knows are ignored."""
    if not isinstance(fields, dict):
        raise ValueError(f"a record is a {type(fields).__name__}, expected an object")
    missing = [name for name in PUBLIC if name not in fields]
    if missing:
        raise ValueError(f"a record of {fields.get('videoID', 'an unknown video')} has no {', '.join(missing)}")
    public = {name: fields[name] for name in PUBLIC} | {"options": tuple(fields["options"])}
    names = Extras.__dataclass_fields__
    if not all(name in fields for name in names):
        return Record(**public)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v := fields[name], list) else v for name in names}
    return Record(**public, extras=Extras(**values))


def write(path: Path, records: Iterable[Record], extras: bool = True) -> None:
    lines = (json.dumps(as_json(record, extras), ensure_ascii=False) for record in records)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read(path: Path) -> list[Record]:
    """Raises ValueError when the file is no list of records."""
    items = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(items, list):
        raise ValueError(f"{path.name} holds a {type(items).__name__}, expected a list of records")
    return [from_json(item) for item in items]
