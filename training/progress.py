"""How far it is, on stderr: a bar where tqdm is installed, a line where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def shown(things: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The things, as they come."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _counted(things, total, what)
    else:
        yield from tqdm(things, total=total, desc=what, dynamic_ncols=True, mininterval=0.5)


def _counted(things: Iterable[T], total: int, what: str) -> Iterator[T]:
    step = max(1, total // 100)
    for number, thing in enumerate(things, start=1):
        if number % step == 0:
            sys.stderr.write(f"\r{what}: {number} of {total}")
        yield thing
    sys.stderr.write(f"\r{what}: {total} of {total}\n")
