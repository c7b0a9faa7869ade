"""Time and memory of one call on a device, and what the device itself can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from tests.bench.record import MiB, Record, median

MOST_SECONDS = 15.0  # of one measurement, unless a single run is longer
MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
COPY_BYTES = {"cuda": 2048 * MiB, "cpu": 256 * MiB}


@dataclass(frozen=True)
class Measured:
    """`seconds` of each run; `peak`: the most bytes above those that were there before, None where none are counted."""

    seconds: list[float]
    peak: int | None


@dataclass(frozen=True)
class Meter:
    """Measures calls on a device, under `inference_mode`: `warm_up` calls that are not timed, in which kernels are
    chosen and code is compiled, then at most `runs` timed ones, within `MOST_SECONDS`."""

    device: torch.device
    runs: int = 20
    warm_up: int = 1

    @torch.inference_mode()
    def measure(self, call: Callable[[], object]) -> Measured:
        before = self._reset_peak()
        for _ in range(self.warm_up):
            call()
        self._wait()
        peak = None if before is None else torch.cuda.max_memory_allocated(self.device) - before
        seconds: list[float] = []
        while len(seconds) < self.runs and sum(seconds) < MOST_SECONDS:
            seconds.append(self._timed(call))
        return Measured(seconds, peak)

    def _timed(self, call: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.device):
            # Between two marks in the stream, so that gaps count in which the device waits for the next kernel.
            first.record()
            call()
            last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset_peak(self) -> int | None:
        if self.device.type != "cuda":
            return None
        self._wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)


@dataclass(frozen=True)
class Ceilings:
    """The best that was seen: operations per second of a large square product, bytes per second of a copy."""

    matmul: float
    copy: float

    @classmethod
    def of(cls, meter: Meter, dtype: torch.dtype) -> Ceilings:
        return cls(_matmul(meter, dtype), _copy(meter))

    def records(self) -> Iterator[Record]:
        yield median("ceiling_matmul", [self.matmul / 1e12], "TFLOP/s", "absolute")
        yield median("ceiling_copy", [self.copy / 1e9], "GB/s", "absolute")


def _matmul(meter: Meter, dtype: torch.dtype) -> float:
    side = MATMUL_SIDE[meter.device.type]
    left, right = (torch.randn(side, side, device=meter.device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 / min(meter.measure(lambda: torch.mm(left, right, out=product)).seconds)


def _copy(meter: Meter) -> float:
    """A copy reads and writes, so that its bytes count twice."""
    size = COPY_BYTES[meter.device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=meter.device)
    target = torch.empty_like(source)
    return 2 * size / min(meter.measure(lambda: target.copy_(source)).seconds)
