"""A bounded amount of work under way, and before it a queue that is fair between callers.

Two things are bounded: the patches of cold clips and the number of answers that are being worked on. A request's share
is the larger of its parts of both (the "dominant share"). Who waits is let in by the share that its caller has had
lately: a caller with a hundred requests and one with a single one take turns by their work (start-time fair queueing).

The time that a new request would wait is the work before it over the rate at which work was finished lately. When that
is more than `wait_seconds`, or than the request has left, it is refused at once with that time in `Retry-After`: a
refusal costs nothing, and an answer that nobody waits for any more costs all that an answer costs.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve.errors import Busy

WINDOW_SECONDS = 30.0  # of the measured rate: some cold answers long, and short against a change of the load
LEAST_SAMPLES = 3  # finished requests, before a rate says anything
UNKNOWN_SHARES = 4.0  # before a rate is known: what may wait, in shares of all that is worked on at a time
LONGEST_RETRY = 120.0  # seconds: beyond that an estimate from half a minute means nothing


@dataclass(frozen=True)
class Capacity:
    """Of one ingress replica. `patches`, `answers`: under way at a time; `waiting`: requests in the queue."""

    patches: float
    answers: int
    waiting: int
    wait_seconds: float


@dataclass(eq=False)
class _Turn:
    caller: str
    patches: float
    share: float
    start: float  # virtual time, in shares
    number: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """For one event loop's thread."""

    def __init__(self, capacity: Capacity, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._patches = 0.0
        self._answers = 0
        self._under_way = 0.0  # shares
        self._waiting: list[_Turn] = []
        self._virtual = 0.0
        self._finish: dict[str, float] = {}  # of each caller's last request that is known, in virtual time
        self._finished: deque[tuple[float, float]] = deque()  # (when, share)
        self._busy_since = clock()
        self._known_rate: float | None = None
        self._numbers = itertools.count()

    @asynccontextmanager
    async def turn(self, caller: str, patches: float, seconds_left: float) -> AsyncIterator[None]:
        """Waits for its turn, and holds its share of the capacity inside.

        Raises:
            Busy: too much work is waiting before it; `retry_after` says when there will be less.
        """
        turn = self._queue(caller, patches, seconds_left)
        try:
            await turn.admitted
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._admit()
            elif not turn.admitted.cancelled():
                self._leave(turn)  # let in, and cancelled in the same moment
            raise
        try:
            yield
            self._finished.append((self._clock(), turn.share))  # a failure costs little, and says nothing of the rate
        finally:
            self._leave(turn)

    def knock(self, caller: str) -> None:
        """Before a body is read: refuses what would be refused even if it cost next to nothing.

        Raises:
            Busy: as `turn`.
        """
        if self._waiting:
            self._refuse_if_full(self._start(caller), self._capacity.wait_seconds)

    @property
    def load(self) -> tuple[int, int]:
        """Requests that wait, and that are worked on."""
        return len(self._waiting), self._answers

    def wait_seconds(self, start: float = math.inf) -> float | None:
        """How long a request will wait that begins at this virtual time (default: the last of all); None: nothing was
        ever finished by which to tell."""
        rate = self._rate()
        return None if rate is None else self._ahead(start) / rate

    def _ahead(self, start: float) -> float:
        """Shares that are under way or will be before."""
        return self._under_way + sum(turn.share for turn in self._waiting if turn.start <= start)

    def _queue(self, caller: str, patches: float, seconds_left: float) -> _Turn:
        share = max(min(1.0, patches / self._capacity.patches), 1 / self._capacity.answers)
        start = self._start(caller)
        if self._waiting or not self._fits(patches):
            self._refuse_if_full(start, seconds_left)
        elif not self._answers:
            self._busy_since = self._clock()
            self._finish.clear()
            start = self._virtual
        self._finish[caller] = start + share
        turn = _Turn(caller, patches, share, start, next(self._numbers))
        self._waiting.append(turn)
        self._admit()
        return turn

    def _start(self, caller: str) -> float:
        """Not before what the caller has asked already."""
        return max(self._virtual, self._finish.get(caller, 0.0))

    def _fits(self, patches: float) -> bool:
        """What is larger than the whole capacity goes alone."""
        if not self._answers:
            return True
        return self._answers < self._capacity.answers and self._patches + patches <= self._capacity.patches

    def _admit(self) -> None:
        while self._waiting:
            first = min(self._waiting, key=lambda turn: (turn.start, turn.number))
            if first.admitted.cancelled():  # its task does not know yet
                self._waiting.remove(first)
                continue
            if not self._fits(first.patches):
                # Smaller ones may not overtake it for ever: it is the next, and all that finishes makes room for it.
                return
            self._waiting.remove(first)
            self._virtual = first.start
            self._patches += first.patches
            self._answers += 1
            self._under_way += first.share
            first.admitted.set_result(None)

    def _leave(self, turn: _Turn) -> None:
        self._patches -= turn.patches
        self._answers -= 1
        self._under_way -= turn.share
        if not self._answers:
            self._patches = self._under_way = 0.0  # sums of floats drift
        self._admit()

    def _rate(self) -> float | None:
        """Shares per second, finished within the last `WINDOW_SECONDS` of work; while too little was, what it was
        before: a service that was idle, or that stalls, is no reason to let everybody in."""
        now = self._clock()
        since = max(now - WINDOW_SECONDS, self._busy_since)
        while self._finished and self._finished[0][0] < since:
            self._finished.popleft()
        if len(self._finished) >= LEAST_SAMPLES and now > since:
            self._known_rate = sum(share for _, share in self._finished) / (now - since)
        return self._known_rate

    def _refuse_if_full(self, start: float, seconds_left: float) -> None:
        """`start`: the virtual time at which a new request would begin."""
        waiting, capacity = len(self._waiting), self._capacity
        wait = self.wait_seconds(start)
        longest = min(capacity.wait_seconds, seconds_left)
        fits = wait <= longest if wait is not None else self._ahead(start) - self._under_way < UNKNOWN_SHARES
        if waiting < capacity.waiting and fits:
            return
        over = 1.0 if wait is None else wait - longest
        raise Busy(
            f"{waiting} requests wait already" + (f", for about {wait:.0f} s" if wait is not None else ""),
            retry_after=min(LONGEST_RETRY, max(1.0, over)),
            field="waiting",
            value=waiting,
            limit=capacity.waiting,
        )
