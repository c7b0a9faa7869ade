"""What each stage did for a request: its own seconds, when that was, and whether its cache had the result.

Traces travel back with results, so that the answer can show where its time went. `seconds` is a stage's own work; the
time it waited for the stage before it is not in it, so that the stages' seconds may be added up. Spans, which hold such
waits, show which stages worked at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from serve.cache import Cached, CacheStats

V = TypeVar("V")


Span = tuple[float, float]
"""From the first to the last moment of some work, in seconds since 1970, so that other processes can tell."""


@dataclass(frozen=True)
class Work:
    """`span` None: nothing was done for this request."""

    seconds: float
    cache: Literal["hit", "miss"]
    span: Span | None = field(default=None, compare=False)


Trace = dict[str, Work]


@dataclass
class Stopwatch:
    """Adds up the time inside its `with running()` blocks."""

    seconds: float = 0.0
    span: Span | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        began, start = time.time(), time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.add(seconds, (began, began + seconds))

    def add(self, seconds: float, span: Span | None) -> None:
        """Work that another watch has measured."""
        self.seconds += seconds
        self.span = hull(self.span, span)


@dataclass(frozen=True)
class Made(Generic[V]):
    """A result with the trace of how it came to be."""

    value: V
    trace: Trace = field(default_factory=dict)


def hull(first: Span | None, second: Span | None) -> Span | None:
    """The shortest span that holds both."""
    if first is None or second is None:
        return first or second
    return min(first[0], second[0]), max(first[1], second[1])


def merge(*traces: Trace) -> Trace:
    """One trace for one request. A stage that appears twice worked for both, and missed if it missed once."""
    merged: Trace = {}
    for trace in traces:
        for stage, work in trace.items():
            seen = merged.get(stage, Work(0.0, "hit"))
            missed = "miss" in (seen.cache, work.cache)
            span = hull(seen.span, work.span)
            merged[stage] = Work(seen.seconds + work.seconds, "miss" if missed else "hit", span)
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
            own = Work(inner.seconds + watch.seconds, inner.cache, hull(inner.span, watch.span))
            return Made(made.value, {**made.trace, self.stage: own})

        made, source = await self._cached.get(key, timed)
        if source == "hit":
            return Made(made.value, {self.stage: Work(0.0, "hit")})
        if source == "joined":
            return Made(made.value, {stage: Work(0.0, work.cache) for stage, work in made.trace.items()})
        return made
