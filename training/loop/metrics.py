"""Sums and counts of what a step or a measurement has counted, read from the device and made into means."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from training.loop.task import Metrics, Number

Floats = dict[str, tuple[float, float]]


def floats(metrics: Metrics) -> Floats:
    """Reads all scalars of a device at once: each reading waits for the device."""
    values = [value for pair in metrics.values() for value in pair]
    there = [value.double() for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(there).tolist() if there else [])
    numbers = [next(read) if isinstance(value, Tensor) else float(value) for value in values]
    return {name: (numbers[2 * n], numbers[2 * n + 1]) for n, name in enumerate(metrics)}


def summed(parts: Iterable[Metrics]) -> Metrics:
    """Of several batches, as if they had been one."""
    sums: dict[str, tuple[Number, Number]] = {}
    for part in parts:
        for name, (value, count) in part.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + count)
    return sums


def means(parts: Iterable[Metrics]) -> dict[str, float]:
    """Of sums and counts; what was counted nowhere is left out."""
    return {name: value / count for name, (value, count) in floats(summed(parts)).items() if count}
