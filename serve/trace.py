"""What each stage did for a request: its own seconds, and whether its cache had the result.

Traces travel back with results, so that the answer can show where its time went. `seconds` is a stage's own work; the
time it waited for the stage before it is not in it, so that the stages' seconds may be added up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from serve.cache import Cached, CacheStats

V = TypeVar("V")


@dataclass(frozen=True)
class Work:
    seconds: float
    cache: Literal["hit", "miss"]


Trace = dict[str, Work]


@dataclass
class Stopwatch:
    """Adds up the time inside its `with running()` blocks."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class Made(Generic[V]):
    """A result with the trace of how it came to be."""

    value: V
    trace: Trace = field(default_factory=dict)


def merge(*traces: Trace) -> Trace:
    """One trace for one request. A stage that appears twice worked for both, and missed if it missed once."""
    merged: Trace = {}
    for trace in traces:
        for stage, work in trace.items():
            seen = merged.get(stage, Work(0.0, "hit"))
            missed = "miss" in (seen.cache, work.cache)
            merged[stage] = Work(seen.seconds + work.seconds, "miss" if missed else "hit")
    return merged


class TracedCache(Generic[V]):
    """A stage's cache whose results say what the stage did for them."""

    def __init__(self, stage: str, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self.stage = stage
        self._cached: Cached[str, Made[V]] = Cached(max_bytes, size_of=lambda made: size_of(made.value))

    def __contains__(self, key: str) -> bool:
        return key in self._cached

    def flush(self, prefix: str = "") -> None:
        """Forgets what is kept under keys that start with `prefix`. What is being computed for one still reaches those
        who wait for it, but it is not kept."""
        self._cached.drop_where(lambda key: key.startswith(prefix))

    @property
    def stats(self) -> CacheStats:
        return self._cached.stats

    async def get(self, key: str, make: Callable[[Stopwatch], Awaitable[Made[V]]]) -> Made[V]:
        """The kept result, or the one that `make` computes; `make` runs once for all who wait.

        `make` gets a stopwatch for its own work and returns its result with the traces of what it asked. When that is
        another cache of the same stage, the inner one decides between hit and miss. Whoever joined a computation under
        way sees its misses but none of its seconds: they belong to the request that started it.
        """

        async def timed() -> Made[V]:
            watch = Stopwatch()
            made = await make(watch)
            inner = made.trace.get(self.stage, Work(0.0, "miss"))
            own = Work(inner.seconds + watch.seconds, inner.cache)
            return Made(made.value, {**made.trace, self.stage: own})

        made, source = await self._cached.get(key, timed)
        if source == "hit":
            return Made(made.value, {self.stage: Work(0.0, "hit")})
        if source == "joined":
            return Made(made.value, {stage: Work(0.0, work.cache) for stage, work in made.trace.items()})
        return made
