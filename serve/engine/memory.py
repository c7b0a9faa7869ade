"""The ledger of keys and values: what is held, by whom, and what may go when room is needed.

A prefix is idle when no request needs it any more or yet; idle ones are what the cache is made of. One whose keys and
values an admitted request reads is pinned. In between are those that requests without their geometry hope to find.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.decoder import Decoder
from models.rope import prompt_positions
from serve.cache import CacheStats
from serve.engine.requests import Film
from serve.engine.transformer import KeysValues, Segment
from serve.trace import Stopwatch

if TYPE_CHECKING:
    from serve.engine.jobs import Job

Key = tuple[str, tuple[int, ...]]
"""A clip's name and the ids before its video: all that a prefix depends on."""


@dataclass(eq=False)
class Prefix:
    """The part of a prompt that all requests about a clip share: asked for, then with a film, then filled, then ready.

    `done` of its `length` tokens have keys and values. `next_position` is that of the token after it.
    """

    key: Key
    jobs: dict[Job, None] = field(default_factory=dict)  # in the order of their arrival
    pins: int = 0
    fetch: asyncio.Task[None] | None = None
    film: Film | None = None
    about: object = None
    video_tokens: int = 0
    length: int = 0
    next_position: int = 0
    room: KeysValues | None = None
    done: int = 0
    watch: Stopwatch = field(default_factory=Stopwatch)
    _positions: Tensor = field(default_factory=lambda: torch.empty(3, 0, dtype=torch.long))

    @property
    def ready(self) -> bool:
        return self.room is not None and self.done == self.length

    def receive(self, film: Film, tokens_per_second: int) -> None:
        """From now on its size is known."""
        grid = film.grid
        self.film, self.about = film, film.about
        self._positions = prompt_positions([len(self.key[1]), grid], tokens_per_second)
        self.video_tokens = grid.size
        self.length = self._positions.shape[1]
        self.next_position = int(self._positions.max()) + 1

    def chunk(self, tokens: int) -> Chunk:
        """The next frame pairs, of at most `tokens` tokens but at least one pair; the text before goes with the first.

        Always cut at the same places, so that keys and values do not depend on what else was going on.
        """
        if self.film is None or self.room is None:
            raise RuntimeError(f"the prefix of {self.key[0]} has no film, or no room for it")
        grid, before = self.film.grid, self.key[1]
        pair = len(self.film.frames) // grid.times
        per_time = grid.rows * grid.columns
        start = max(0, self.done - len(before)) // per_time
        stop = min(grid.times, start + max(1, tokens // per_time))
        end = len(before) + stop * per_time
        frames = self.film.frames[pair * start : pair * stop]
        return Chunk(() if start else before, frames, self._positions[:, self.done : end], self.room, self.done)

    def advance(self, chunk: Chunk, watch: Stopwatch) -> None:
        """The chunk is computed. A prefix that is ready needs no frames any more."""
        self.done += chunk.positions.shape[1]
        self.watch.add(watch.seconds, watch.span)
        if self.ready:
            self.film, self._positions = None, self._positions[:, :0]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Text, then a few frames, of one prefix: `before` ids, uint8 `frames`, `positions` [3, n], from `start` on."""

    before: tuple[int, ...]
    frames: Tensor
    positions: Tensor
    room: KeysValues
    start: int

    def segment(self, decoder: Decoder) -> Segment:
        """Runs the vision tower."""
        parts = (self.before, decoder.see(self.frames))
        return Segment(parts, self.positions, self.room, self.start, wanted=False)


class Memory:
    """At most `max_bytes` of keys and values. Prefixes by key, the least recently used first."""

    def __init__(self, max_bytes: int, token_bytes: int, make: Callable[[int], KeysValues]) -> None:
        """`make(tokens)` gives room for that many tokens, of `token_bytes` each."""
        self.max_bytes = max_bytes
        self.token_bytes = token_bytes
        self.bytes = 0
        self.prefixes: OrderedDict[Key, Prefix] = OrderedDict()
        self._flushed: dict[Prefix, None] = {}  # no longer found, but some requests are not through with them
        self._make = make
        self._hits = self._misses = self._evictions = 0

    def find(self, key: Key) -> tuple[Prefix, bool]:
        """The prefix of `key`, now the most recently used, and whether it was known; if not, a new one."""
        known = key in self.prefixes
        prefix = self.prefixes.setdefault(key, Prefix(key))
        self.prefixes.move_to_end(key)
        hit = prefix.ready
        self._hits, self._misses = self._hits + hit, self._misses + (not hit)
        return prefix, known

    def reserve(self, prefix: Prefix, own: int) -> KeysValues | None:
        """Room for `own` tokens of a request, and for its prefix if that has none. None: does not fit now."""
        if not self._make_room(prefix, own, spare_hoped_for=False):
            return None
        self._give(prefix)
        self.bytes += own * self.token_bytes
        return self._make(own)

    def prepare(self, prefix: Prefix) -> bool:
        """Room for a prefix that requests hope to find; whether there is. Takes none from prefixes like it."""
        if not self._make_room(prefix, 0, spare_hoped_for=True):
            return False
        self._give(prefix)
        return True

    def free(self, own: KeysValues) -> None:
        self.bytes -= own.nbytes

    def leave(self, prefix: Prefix) -> None:
        """Forgets a prefix without requests that is not ready, and one that was flushed meanwhile."""
        if not prefix.jobs and (prefix in self._flushed or not prefix.ready):
            self._forget(prefix)

    def flush(self, clips: str = "") -> None:
        """Of the clips whose names start so: forgets idle prefixes now, the others as soon as their requests are
        through; new requests find neither."""
        for key in [key for key in self.prefixes if key[0].startswith(clips)]:
            self._flushed[self.prefixes.pop(key)] = None
        for prefix in list(self._flushed):
            self.leave(prefix)

    @property
    def stats(self) -> CacheStats:
        """Of the prefixes that can be found; `bytes` includes what requests hold of their own."""
        entries = sum(prefix.ready for prefix in self.prefixes.values())
        return CacheStats(self._hits, self._misses, self._evictions, 0, entries, self.bytes, self.max_bytes)

    @property
    def held(self) -> int:
        """Bytes that could not be freed now."""
        idle, hoped_for = self._evictable(None)
        return self.bytes - sum(prefix.length * self.token_bytes for prefix in (*idle, *hoped_for))

    def _make_room(self, prefix: Prefix, own: int, spare_hoped_for: bool) -> bool:
        lacking = 0 if prefix.room is not None else prefix.length
        need = (own + lacking) * self.token_bytes - (self.max_bytes - self.bytes)
        idle, hoped_for = self._evictable(prefix)
        victims = []
        for victim in idle if spare_hoped_for else idle + hoped_for:
            if need <= 0:
                break
            victims.append(victim)
            need -= victim.length * self.token_bytes
        if need > 0:
            return False
        for victim in victims:
            self._evict(victim)
        return True

    def _evictable(self, keep: Prefix | None) -> tuple[list[Prefix], list[Prefix]]:
        """Prefixes that nobody waits for, and those that wait for the geometry of their requests."""
        known = [*self._flushed, *self.prefixes.values()]
        loose = [p for p in known if p.ready and not p.pins and p is not keep]
        return [p for p in loose if not p.jobs], [p for p in loose if p.jobs]

    def _evict(self, prefix: Prefix) -> None:
        """One with hopeful requests stays known, without its keys and values, to be fetched again for them."""
        self._evictions += 1
        if prefix.jobs:
            self._take(prefix)
        else:
            self._forget(prefix)

    def _give(self, prefix: Prefix) -> None:
        if prefix.room is None:
            prefix.room = self._make(prefix.length)
            self.bytes += prefix.room.nbytes

    def _take(self, prefix: Prefix) -> None:
        if prefix.room is not None:
            self.bytes -= prefix.room.nbytes
        prefix.room, prefix.done, prefix.watch = None, 0, Stopwatch()

    def _forget(self, prefix: Prefix) -> None:
        self._take(prefix)
        prefix.film = None
        if prefix.fetch is not None:
            prefix.fetch.cancel()
        self._flushed.pop(prefix, None)
        if self.prefixes.get(prefix.key) is prefix:
            del self.prefixes[prefix.key]
