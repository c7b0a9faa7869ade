"""Questions that belong together, and sets that lose some of theirs.

The question engine makes questions four by four: they share their options, and each option is right once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from training.questions.records import Record


def unit(record: Record, place: int) -> str:
    """What goes or stays as one: the group of a record, or the record at its place in the set."""
    return f"group {record.extras.group}" if record.extras else f"record {place}"


def without(records: Sequence[Record], places: Collection[int], groups: bool = True) -> list[Record]:
    """The records without those at `places`, and with `groups` without what shares options with them.

    With one of four gone, the option that is never right among the rest would tell.
    """
    gone = {unit(records[place], place) for place in places} if groups else {f"record {place}" for place in places}
    named = ((unit(record, place) if groups else f"record {place}", record) for place, record in enumerate(records))
    return [record for name, record in named if name not in gone]
