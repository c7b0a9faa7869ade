"""Parts of a benchmark within a time: what does not fit is left out and named, what fails does not stop the rest."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable

from tests.bench.record import Record


class Plan:
    def __init__(self, minutes: float, show: Callable[[Record], None]) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._show = show
        self.skipped: list[str] = []
        self.failed: list[str] = []

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def run(self, name: str, need: float, part: Callable[[], Iterable[Record]]) -> float:
        """Shows the part's records as they come; its seconds. Not begun unless `need` seconds are left.

        A part that takes longer is ended after the record at which time is up: a single measurement is never cut off.
        """
        if self.left < need:
            self.skipped.append(f"{name}: may need {need:.0f} s of the {max(0.0, self.left):.0f} s that are left")
            return 0.0
        start = time.monotonic()
        try:
            for record in part():
                self._show(record)
                if self.left < 0:
                    self.skipped.append(f"{name}: what follows {record.name}, time is up")
                    break
        except Exception as error:
            traceback.print_exc()
            first = str(error).strip().splitlines() or [""]
            self.failed.append(f"{name}: {type(error).__name__}: {first[0]}")
        return time.monotonic() - start

    def say(self) -> None:
        for title, lines in (("left out", self.skipped), ("failed", self.failed)):
            for line in lines:
                print(f"{title}: {line}", file=sys.stderr)
