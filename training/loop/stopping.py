"""How a run is asked to stop: by a file `stop` in its directory, which workers see wherever they run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def asked(directory: Path) -> bool:
    return (directory / "stop").exists()


def done(directory: Path) -> None:
    """Nobody asks any more."""
    (directory / "stop").unlink(missing_ok=True)


@contextmanager
def listening(directory: Path) -> Iterator[None]:
    """In this block Ctrl-C or SIGTERM asks the run in `directory` to stop; a second one stops this process at once."""
    done(directory)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can listen
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(_: int, __: FrameType | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "stop").touch()
        for one in SIGNALS:
            signal.signal(one, before[one])
        # Not by print: the buffer of stderr may be in use at the moment that the signal comes.
        os.write(2, b"\nstopping after this step; once more stops at once\n")

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
