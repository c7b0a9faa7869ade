"""Processor cores that several share, as an operating system shares them: all who work go on at the same speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_NOTHING = 1e-9  # seconds of work that are left of a sum of floats


@dataclass(eq=False)
class _Job:
    left: float  # seconds of one core
    done: Callable[[], None]


class SharedCores:
    """`count` may be a fraction, where two threads together do less than twice what one does.

    `now` and `at` are the simulation's clock: the time, and what to call after a delay.
    """

    def __init__(self, count: float, now: Callable[[], float], at: Callable[[float, Callable[[], None]], None]) -> None:
        self._count, self._now, self._at = count, now, at
        self._jobs: list[_Job] = []
        self._since = 0.0
        self._plans = 0

    def work(self, seconds: float, done: Callable[[], None]) -> None:
        """Calls `done` when so many seconds of one core were spent on it."""
        self._advance()
        self._jobs.append(_Job(seconds, done))
        self._plan()

    def _speed(self) -> float:
        return min(1.0, self._count / len(self._jobs)) if self._jobs else 1.0

    def _advance(self) -> None:
        spent, self._since = (self._now() - self._since) * self._speed(), self._now()
        for job in self._jobs:
            job.left -= spent

    def _plan(self) -> None:
        """Looks again when the first will have ended, unless somebody comes before."""
        self._plans += 1
        if self._jobs:
            plan, first = self._plans, min(job.left for job in self._jobs)
            self._at(max(0.0, first) / self._speed(), lambda: self._look(plan))

    def _look(self, plan: int) -> None:
        if plan != self._plans:
            return
        self._advance()
        ended = [job for job in self._jobs if job.left <= _NOTHING]
        self._jobs = [job for job in self._jobs if job.left > _NOTHING]
        self._plan()
        for job in ended:
            job.done()
