"""A cache bounded in bytes, and one that computes what it lacks, once for all who wait. For one event loop's thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

Source = Literal["hit", "joined", "miss"]
"""Where a value came from: the cache, a computation that another caller had started, or a computation of its own."""

_ABSENT: Any = object()


@dataclass(frozen=True)
class CacheStats:
    """`hits`, `misses`, `evictions`, `rejected` (larger than the whole budget) only grow; the others are of now."""

    hits: int
    misses: int
    evictions: int
    rejected: int
    entries: int
    bytes: int
    max_bytes: int


class ByteLRU(Generic[K, V]):
    """Least recently used goes first. The sum of the sizes never exceeds `max_bytes`; 0 switches the cache off.

    `size_of` measures a value in bytes. An entry counts as 1 byte at least, so that empty values
    are bounded too. A size is taken once: values must not grow after they are put.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes: {max_bytes} is below 0")
        self.max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evictions = self._rejected = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Neither counts nor refreshes the entry."""
        return key in self._entries

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value, now the most recently used; or `default`."""
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return default
        self._hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V) -> V:
        """Keeps `value` (in place of the key's old one) unless it is larger than the whole budget; returns it."""
        size = max(self._size_of(value), 1)
        self.drop(key)
        if size > self.max_bytes:
            self._rejected += 1
            return value
        while self._bytes + size > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed
            self._evictions += 1
        self._entries[key] = value, size
        self._bytes += size
        return value

    def drop(self, key: K) -> bool:
        """Forgets one entry; whether there was one. Not an eviction."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
        return entry is not None

    def drop_where(self, predicate: Callable[[K], bool]) -> int:
        """Forgets the entries whose key the predicate wants; how many these were. Not evictions."""
        return sum(self.drop(key) for key in [key for key in self._entries if predicate(key)])

    @property
    def stats(self) -> CacheStats:
        counted = (self._hits, self._misses, self._evictions, self._rejected)
        return CacheStats(*counted, len(self._entries), self._bytes, self.max_bytes)


class _Flight(Generic[V]):
    """One computation and the number of callers that wait for it."""

    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiters = 0


class SingleFlight(Generic[K, V]):
    """Calls for one key that overlap in time share one computation, which nobody owns.

    A failure reaches every waiter. A cancelled waiter leaves alone; the last one to leave cancels the computation, and
    whoever comes after that starts a new one.
    """

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()

    def __len__(self) -> int:
        return len(self._flights)

    async def run(
        self, key: K, make: Callable[[], Awaitable[V]], keep: Callable[[K, V], object] | None = None
    ) -> tuple[V, bool]:
        """The value, and whether the computation was already under way. Raises what `make` raises.

        `keep` gets key and value of a computation that nobody wanted forgotten, before anyone can start it again.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._start(key, make, keep)
        flight.waiters += 1
        try:
            # Unlike `await task`, a cancelled wait leaves the task running.
            await asyncio.wait({flight.task})
            return flight.task.result(), joined
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._land(key, flight)
                flight.task.cancel()

    def forget(self, predicate: Callable[[K], bool]) -> None:
        """From now on nobody joins what is under way for a key that the predicate wants; who waits still gets it."""
        for key in [key for key in self._flights if predicate(key)]:
            del self._flights[key]

    def _start(self, key: K, make: Callable[[], Awaitable[V]], keep: Callable[[K, V], object] | None) -> _Flight[V]:
        async def compute() -> V:
            try:
                value = await make()
                if keep is not None and self._flights.get(key) is flight:
                    keep(key, value)
                return value
            finally:
                self._land(key, flight)

        # In an empty context: a context tells Ray Serve which request the calls made in it belong to, and Serve cancels
        # them with that request. This computation belongs to every waiter, not to the first.
        task = asyncio.create_task(compute(), name=f"flight {key}", context=contextvars.Context())
        flight = self._flights[key] = _Flight(task)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return flight

    def _land(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _done(self, task: asyncio.Task[V]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: with no waiter left, nobody else will


class Cached(Generic[K, V]):
    """A `ByteLRU` that computes what it lacks, in single flight."""

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self._lru: ByteLRU[K, V] = ByteLRU(max_bytes, size_of)
        self._flights: SingleFlight[K, V] = SingleFlight()

    def __contains__(self, key: K) -> bool:
        """Whether the value is kept. Neither counts nor refreshes it."""
        return key in self._lru

    async def get(self, key: K, make: Callable[[], Awaitable[V]]) -> tuple[V, Source]:
        """The value of `key`, made by `make` when it is neither cached nor under way. A failure is not cached."""
        value = self._lru.get(key, _ABSENT)
        if value is not _ABSENT:
            return value, "hit"
        value, joined = await self._flights.run(key, make, self._lru.put)
        return value, "joined" if joined else "miss"

    def drop_where(self, predicate: Callable[[K], bool]) -> None:
        """Forgets the values whose key the predicate wants, also those that are being computed: who waits for one gets
        it, but it is not kept."""
        self._flights.forget(predicate)
        self._lru.drop_where(predicate)

    @property
    def stats(self) -> CacheStats:
        """A caller that joined counts as a miss."""
        return self._lru.stats
