"""More than 500 hostile files, made from small clips, the same on every run. Needs PyAV and no service.

for case in corpus():
    case.name, case.data, case.expected, case.codes
"""

from __future__ import annotations

from functools import cache

from tests.hostile.bombs import bombs, clocks, references
from tests.hostile.case import Case
from tests.hostile.damage import flipped, truncated
from tests.hostile.odd import foreign, oddities, without_frames
from tests.hostile.texts import polyglots, texts

PARTS = (oddities, foreign, without_frames, texts, polyglots, truncated, flipped, bombs, clocks, references)


@cache
def corpus() -> tuple[Case, ...]:
    """Every case; names are unique."""
    return tuple(case for part in PARTS for case in part())
