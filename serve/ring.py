"""Where a clip's requests go: consistent hashing with bounded loads, on plain names. `serve.routing` hands it to Ray.

Every replica stands at many places of a circle, and a clip belongs to the first replica at or after its own place. When
a replica goes, its clips go to those that stand after it; when one comes, it takes its share from all; no other clip
moves. A replica that has too much to do is passed over, so that a clip which everybody asks about spreads along the
circle, always in the same order, over as many replicas as it takes.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b


class Ring:
    """`members` on a circle of 64-bit hashes, each at `virtual_nodes` places. Equal members give equal rings."""

    def __init__(self, members: Iterable[str], virtual_nodes: int) -> None:
        self.members = frozenset(members)
        places = sorted(
            (_place(f"{member}#{node}"), member) for member in self.members for node in range(virtual_nodes)
        )
        self._places = [place for place, _ in places]
        self._owners = [member for _, member in places]

    def walk(self, key: str) -> Iterator[str]:
        """Every member once, in the order in which they take the key: its owner first."""
        start = bisect.bisect_left(self._places, _place(key))
        met: set[str] = set()
        for step in range(len(self._owners)):
            member = self._owners[(start + step) % len(self._owners)]
            if member not in met:
                met.add(member)
                yield member
            if len(met) == len(self.members):
                return


@dataclass(frozen=True)
class Bound:
    """At most `factor` times the mean load and `slack` requests more. With both >= 1, one member always has room."""

    factor: float
    slack: int

    def limit(self, loads: Mapping[str, int]) -> float:
        """What each of `loads` may have when one more request has been placed."""
        return self.factor * (sum(loads.values()) + 1) / len(loads) + self.slack


def for_clip(walk: Iterable[str], loads: Mapping[str, int], bound: Bound) -> list[str]:
    """The members of `loads`, best first: those with room as `walk` has them, then the others by load."""
    limit = bound.limit(loads)
    room = [member for member in walk if member in loads and loads[member] + 1 <= limit]
    return room + sorted((member for member in loads if member not in room), key=loads.__getitem__)


def for_anyone(loads: Mapping[str, int], draw: random.Random) -> list[str]:
    """The members of `loads`, best first: of two drawn at random the one with less to do, then the others."""
    members = draw.sample(sorted(loads), len(loads))
    return sorted(members[:2], key=loads.__getitem__) + members[2:]


def _place(text: str) -> int:
    # Not `hash()`: every process must see the same circle.
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
