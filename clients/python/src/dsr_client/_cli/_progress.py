"""A bar for uploads that take long, on stderr, when a person looks at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .._form import Progress

__all__ = ["Bar", "shown"]

QUIET_SECONDS = 0.5  # what is done by then needs no bar
REDRAW_SECONDS = 0.1
WIDTH = 24
CLEAR_LINE = "\r\x1b[K"


class Bar:
    """Call it as a `Progress`. Draws nothing in its first `quiet` seconds."""

    def __init__(self, name: str, out: TextIO, quiet: float = QUIET_SECONDS) -> None:
        self._name = name
        self._out = out
        self._start = time.monotonic()
        self._next = self._start + quiet
        self._drawn = False

    def __call__(self, sent: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next, self._drawn = now + REDRAW_SECONDS, True
        self._out.write(CLEAR_LINE + self.line(sent, total, now - self._start))
        self._out.flush()

    def line(self, sent: int, total: int | None, seconds: float) -> str:
        """`seconds`: since the upload began."""
        rate = f"{sent / 1e6 / max(seconds, 1e-3):.1f} MB/s"
        if not total:
            return f"{self._name}  {sent / 1e6:.1f} MB  {rate}"
        done = sent / total
        bar = "█" * int(WIDTH * done) + "░" * (WIDTH - int(WIDTH * done))
        return f"{self._name}  {bar} {done:4.0%}  {sent / 1e6:.1f} of {total / 1e6:.1f} MB  {rate}"

    def clear(self) -> None:
        if self._drawn:
            self._out.write(CLEAR_LINE)
            self._out.flush()


@contextmanager
def shown(name: str) -> Iterator[Progress | None]:
    """The progress to hand to an upload; None when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = Bar(name, sys.stderr)
    try:
        yield bar
    finally:
        bar.clear()
