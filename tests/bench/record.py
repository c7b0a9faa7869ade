"""The line that a benchmark prints."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

MiB = 1024**2


def hardware() -> str:
    """Processor, cores and what torch runs on."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


@dataclass(frozen=True)
class Record:
    """`value` is the median of `runs` runs, `spread` the middle half of them, `baseline` what it is compared with."""

    name: str
    value: float
    unit: str
    baseline: str
    runs: int
    spread: tuple[float, float]
    hardware: str

    def line(self) -> str:
        return json.dumps(asdict(self))


def median(name: str, values: Sequence[float], unit: str, baseline: str) -> Record:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    rounded = [float(f"{v:.5g}") for v in (middle, low, high)]
    return Record(name, rounded[0], unit, baseline, len(values), (rounded[1], rounded[2]), hardware())


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
