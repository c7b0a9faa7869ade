"""Sums and counts of what a step or a measurement has counted, read from the device and made into means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.loop.task import Metrics

Floats = dict[str, tuple[float, float]]


def floats(metrics: Metrics) -> Floats:
    """Reads all scalars of a device at once: each reading waits for the device."""
    values = [value for pair in metrics.values() for value in pair]
    there = [value.double() for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(there).tolist() if there else [])
    numbers = [next(read) if isinstance(value, Tensor) else float(value) for value in values]
    return {name: (numbers[2 * n], numbers[2 * n + 1]) for n, name in enumerate(metrics)}


def means(parts: Sequence[Floats]) -> dict[str, float]:
    """Of sums and counts; what was counted nowhere is left out."""
    sums: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (value, count) in part.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + count)
    return {name: value / count for name, (value, count) in sums.items() if count}
