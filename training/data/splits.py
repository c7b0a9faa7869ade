"""Training and benchmark: no video in both; and sets in which no type and no letter is more frequent than another."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from training.data.groups import unit
from training.questions.records import LETTERS, Record
from training.questions.sharing import together


def split(records: Sequence[Record], share: float, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Training and benchmark, the latter with about `share` of the questions. The same names and seed, the same parts.

    Videos whose questions share options stay together, unless all of them do.

    Raises:
        ValueError: there are fewer than two videos.
    """
    count = Counter(record.videoID for record in records)
    if len(count) < 2:
        raise ValueError(f"{len(count)} videos cannot be split by video; at least 2")
    parts = list(together(records).values())
    if len(parts) < 2:
        parts = [[video] for video in count]
    parts = [sorted(part) for part in parts]
    sizes = {part[0]: sum(count[video] for video in part) for part in parts}
    wanted, chosen = share * len(records), set[str]()
    for part in sorted(parts, key=lambda names: _drawn(seed, names[0])):
        held = sum(count[video] for video in chosen)
        if held < wanted and held + sizes[part[0]] / 2 <= wanted:
            chosen.update(part)
    if not chosen:
        smallest = min(parts, key=lambda names: (sizes[names[0]], _drawn(seed, names[0])))
        chosen.update(smallest)
    train = [record for record in records if record.videoID not in chosen]
    return train, [record for record in records if record.videoID in chosen]


def shared_groups(one: Iterable[Record], other: Iterable[Record]) -> int:
    """Groups of options that are in both parts."""
    groups = [{record.extras.group for record in part if record.extras} for part in (one, other)]
    return len(groups[0] & groups[1])


def capped(records: Sequence[Record], most: int | None = None, seed: int = 0) -> list[Record]:
    """At most `most` questions of each type, about, in whole groups; None: the median of the types' numbers."""
    units: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, record in enumerate(records):
        units[record.type][unit(record, place)].append(place)
    if most is None:
        most = round(median(sum(map(len, own.values())) for own in units.values())) if units else 0
    kept: set[int] = set()
    for own in units.values():
        taken = 0
        for name in sorted(own, key=lambda name: _drawn(seed, name)):
            if taken + len(own[name]) <= most:
                kept.update(own[name])
                taken += len(own[name])
    return [record for place, record in enumerate(records) if place in kept]


def relettered(records: Sequence[Record]) -> tuple[list[Record], int]:
    """Every letter is right equally often within a type; and how many records had to change their options' order.

    A type whose letters are even already, to one question, is left as it is: so are the questions of our engine.
    """
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        places[record.type, len(record.options)].append(place)
    found, moved = list(records), 0
    for (_, count), own in places.items():
        letters = Counter(records[place].right for place in own)
        if max(letters[n] for n in range(count)) - min(letters[n] for n in range(count)) <= 1:
            continue
        for number, place in enumerate(sorted(own, key=lambda place: _drawn(0, records[place].question))):
            found[place] = _with_right_at(records[place], number % count)
            moved += found[place] != records[place]
    return found, moved


def _with_right_at(record: Record, place: int) -> Record:
    """The right option and the one at `place` change places."""
    order = list(range(len(record.options)))
    order[place], order[record.right] = order[record.right], order[place]
    extras = record.extras and replace(record.extras, sources=tuple(record.extras.sources[n] for n in order))
    options = tuple(record.options[n] for n in order)
    return replace(record, options=options, answer=LETTERS[place], extras=extras)


def _drawn(seed: int, name: str) -> str:
    """An order that depends on nothing but the name and the seed."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
