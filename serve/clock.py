"""When a request came, and until when it must be answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from serve.errors import Deadline

T = TypeVar("T")


class Clock:
    """A request may ask for less time than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.arrived = time.time()
        self._start = time.monotonic()
        self._seconds = seconds

    def limit(self, seconds: float | None) -> None:
        self._seconds = min(self._seconds, seconds or self._seconds)

    @property
    def deadline(self) -> float:
        """In seconds since 1970."""
        return self.arrived + self._seconds

    @property
    def seconds_left(self) -> float:
        return self._start + self._seconds - time.monotonic()

    async def within(self, work: Awaitable[T]) -> T:
        """
        Raises:
            Deadline: the request's time is over before `work` is; it is cancelled then.
        """
        try:
            async with asyncio.timeout(self.seconds_left):
                return await work
        except TimeoutError:
            raise Deadline(f"no answer within {self._seconds} s", limit=self._seconds) from None
