"""Questions that ask the same again: word for word, in other words, or a few pixels beside."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from training.questions.records import Record

PIXELS, SECONDS, WORDS = 3.0, 0.2, 0.8  # sides of boxes, times; share of words of questions without numbers
THE_SAME = "the same question of the same video"
TWO_ANSWERS = "the same question with another answer"
NEARLY = "nearly the same question with the same answer"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAME = re.compile(r"(\w+) \[")


def duplicates(records: Sequence[Record]) -> dict[int, str]:
    """By the place of a record that should go, why. Of equal ones the first stays; of contradictory ones, none does."""
    found: dict[int, str] = {}
    first: dict[tuple[str, str], int] = {}
    for place, record in enumerate(records):
        key = (record.videoID, " ".join(record.question.lower().split()))
        before = first.setdefault(key, place)
        if before == place:
            continue
        found[place] = THE_SAME if _said(record) == _said(records[before]) else TWO_ANSWERS
        if found[place] == TWO_ANSWERS:
            found[before] = TWO_ANSWERS
    return found | dict.fromkeys(_near(records, found), NEARLY)


def _near(records: Sequence[Record], gone: dict[int, str]) -> Iterator[int]:
    alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        if place not in gone:
            alike[record.videoID, record.type, _said(record)].append(place)
    for places in alike.values():
        kept: list[int] = []
        for place in places:
            if any(near(records[place].question, records[other].question) for other in kept):
                yield place
            else:
                kept.append(place)


def near(one: str, other: str) -> bool:
    """Whether two questions of one type ask of the same: the same names at nearly the same boxes and times, in any
    words; without numbers, nearly the same words.
    """
    numbers, others = _NUMBER.findall(one), _NUMBER.findall(other)
    if numbers or others:
        same = _NAME.findall(one.lower()) == _NAME.findall(other.lower()) and len(numbers) == len(others)
        return same and all(map(_close, numbers, others))
    words, more = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(words & more) >= WORDS * len(words | more)


def _close(one: str, other: str) -> bool:
    """Whole numbers are pixels, those with a point are seconds."""
    if ("." in one) != ("." in other):
        return False
    return abs(float(one) - float(other)) <= (SECONDS if "." in one else PIXELS) + 1e-9


def _said(record: Record) -> str:
    return record.options[record.right]
