"""One file of the corpus, and what must become of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Expected = Literal["answered", "refused", "either"]

NO_VIDEO, BROKEN, BEYOND = "not_a_video", "undecodable_video", "out_of_limits"
CODES = frozenset({NO_VIDEO, BROKEN, BEYOND})


@dataclass(frozen=True)
class Case:
    """`expected`: "answered" for a legitimate oddity, "refused" with one of `codes` (of models.errors), or "either" for
    damage whose effect depends on where it falls. `name` is unique and tells how the file was made."""

    name: str
    data: bytes
    expected: Expected
    codes: frozenset[str] = CODES


def answered(name: str, data: bytes) -> Case:
    return Case(name, data, "answered", frozenset())


def refused(name: str, data: bytes, codes: Iterable[str] = CODES) -> Case:
    return Case(name, data, "refused", frozenset(codes))


def either(name: str, data: bytes) -> Case:
    return Case(name, data, "either")
