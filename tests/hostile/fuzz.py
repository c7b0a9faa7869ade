"""`python -m tests.hostile.fuzz [--first 0] [--inputs 10000]`: random damage, as long as wanted.

Input N is the same on every run, so that a range can be repeated or gone on with, and a failure names its number.
Prints progress as one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from models.video import Clip
from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.hostile.corpus import corpus
from tests.hostile.damage import bases, damaged
from tests.hostile.judge import nonsense, outcome, told
from tests.processes import descendants

EVERY = 1000  # inputs between two lines of progress
LARGEST = 200_000  # bytes of a seed: more of it only takes longer


@dataclass
class Result:
    """Counts of one run. `deaths`: what the pool logged of decoders that died, failed or lied, `broken` the inputs that
    met them; `parent_mb` at the start, at the lines of progress and at the end; `largest_mb`: the most that any decoder
    had then."""

    first: int
    inputs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    broken: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    parent_mb: list[int] = field(default_factory=list)
    largest_mb: int = 0
    decoders: int = 0
    slowest: tuple[float, int] = (0.0, -1)
    seconds: float = 0.0

    def line(self) -> str:
        return json.dumps(self.__dict__)


class _Deaths(logging.Handler):
    """Counts what the pool logs of decoders that did not end well."""

    def __init__(self, result: Result) -> None:
        super().__init__(logging.WARNING)
        self._result = result

    def emit(self, record: logging.LogRecord) -> None:
        self._result.deaths[record.getMessage()] += 1


@cache
def seeds() -> tuple[bytes, ...]:
    """Good clips first, then what is odd: damage on top of it reaches further."""
    odd = (case.data for case in corpus() if case.expected != "refused" and len(case.data) < LARGEST)
    return (*bases().values(), *bases().values(), *bases().values(), *odd)


def mutant(number: int) -> bytes:
    """Input `number`."""
    generator = np.random.default_rng(number)
    return damaged(seeds()[int(generator.integers(len(seeds())))], generator)


async def fuzz(pool: Pool, first: int, inputs: int, together: int, show: bool = True) -> Result:
    """Inputs `first` to `first + inputs - 1`; every one must end in a clip or a refusal that tells nothing."""
    result = Result(first)
    handler = _Deaths(result)
    log = logging.getLogger("serve.sandbox.pool")
    log.addHandler(handler)
    numbers = iter(range(first, first + inputs))
    seeds()
    start = time.monotonic()
    _look(result)
    try:
        await asyncio.gather(*(_work(pool, numbers, result, start, show) for _ in range(together)))
    finally:
        log.removeHandler(handler)
        result.seconds = round(time.monotonic() - start, 1)
        _look(result)
    return result


async def _work(pool: Pool, numbers: object, result: Result, start: float, show: bool) -> None:
    for number in numbers:  # type: ignore[attr-defined]
        began = time.monotonic()
        try:
            made = await outcome(pool, mutant(number))
        except Exception as error:
            raise RuntimeError(f"input {number} ended in {type(error).__name__}: {error}") from error
        result.slowest = max(result.slowest, (round(time.monotonic() - began, 3), number))
        good = isinstance(made, Clip)
        wrong = nonsense(f"input {number}", made) if isinstance(made, Clip) else told(f"input {number}", made)
        if wrong:
            result.complaints.append(wrong)
        result.ends["clip" if good else getattr(made, "code", "?")] += 1
        if getattr(made, "message", "") == "the video cannot be decoded":
            result.broken.append(number)
        result.inputs += 1
        if result.inputs % EVERY == 0:
            result.seconds = round(time.monotonic() - start, 1)
            _look(result)
            if show:
                print(result.line(), flush=True)


def _look(result: Result) -> None:
    """At the memory of this process and its decoders."""
    result.parent_mb.append(_resident("self"))
    decoders = [pid for pid, command in descendants().items() if "serve.sandbox.zygote" in command]
    result.decoders = max(result.decoders, len(decoders))
    result.largest_mb = max([result.largest_mb, *(_resident(str(pid)) for pid in decoders)])


def _resident(pid: str) -> int:
    """MiB; 0 of a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--together", type=int, default=2, help="decoders at a time")
    given = parser.parse_args()
    pool = Pool(Sandbox(), given.together)
    try:
        result = asyncio.run(fuzz(pool, given.first, given.inputs, given.together))
    finally:
        pool.close()
    print(result.line())
    return 1 if result.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
