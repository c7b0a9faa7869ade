"""Parameter groups by pattern, and the table of them that a run prints first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.loop.task import Rate


@dataclass(frozen=True)
class Group:
    rate: Rate
    parameters: tuple[tuple[str, nn.Parameter], ...]

    @property
    def frozen(self) -> bool:
        return self.rate.lr == 0


def grouped(module: nn.Module, rates: Sequence[Rate]) -> list[Group]:
    """Every parameter of `module` in the first rate that finds it; sets `requires_grad` accordingly.

    Raises:
        ValueError: a pattern finds nothing, or a parameter is found by none.
    """
    found: dict[str, list[tuple[str, nn.Parameter]]] = {rate.name: [] for rate in rates}
    if len(found) < len(rates):
        raise ValueError(f"two rates have the same name: {[rate.name for rate in rates]}")
    for name, parameter in module.named_parameters():
        rate = next((rate for rate in rates if re.search(rate.pattern, name)), None)
        if rate is None:
            raise ValueError(f"no rate finds the parameter {name}; there are {[r.pattern for r in rates]}")
        parameter.requires_grad_(rate.lr > 0)
        found[rate.name].append((name, parameter))
    for rate in rates:
        if not found[rate.name]:
            raise ValueError(f"the rate {rate.name!r} finds no parameter with the pattern {rate.pattern!r}")
    return [Group(rate, tuple(found[rate.name])) for rate in rates]


def optimizer(groups: Sequence[Group]) -> torch.optim.AdamW:
    """AdamW over what is not frozen. Vectors (biases, norms, scales) do not decay."""
    parts: list[dict[str, Any]] = []
    for group in groups:
        for decays in (True, False):
            parameters = [p for _, p in group.parameters if (p.ndim > 1) == decays]
            if parameters and not group.frozen:
                decay = group.rate.weight_decay if decays else 0.0
                parts.append({"params": parameters, "lr": group.rate.lr, "peak": group.rate.lr, "weight_decay": decay})
    if not parts:
        raise ValueError("every rate is 0: there is nothing to train")
    # On a GPU in one kernel: the default makes copies of all parameters, which at 7B are 33 GB.
    on_gpu = all(parameter.device.type == "cuda" for part in parts for parameter in part["params"])
    optim = torch.optim.AdamW(parts, betas=(0.9, 0.98), fused=on_gpu or None)
    # AdamW makes these at a parameter's first gradient. Made now, a saved state has all of them, whenever that comes.
    for part in parts:
        for parameter in part["params"]:
            zeros = torch.zeros_like(parameter, requires_grad=False)
            step = torch.tensor(0.0, device=parameter.device if on_gpu else None)
            optim.state[parameter] = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    return optim


def table(groups: Sequence[Group]) -> str:
    """One line for each group: name, tensors, parameters, learning rate, decay and pattern."""
    lines = [f"{'group':<14}{'tensors':>8}{'parameters':>14}{'lr':>10}{'decay':>8}  pattern"]
    for group in groups:
        count = sum(parameter.numel() for _, parameter in group.parameters)
        rate = "frozen" if group.frozen else f"{group.rate.lr:.1e}"
        decay = "" if group.frozen else f"{group.rate.weight_decay:g}"
        lines.append(
            f"{group.rate.name:<14}{len(group.parameters):>8}{count:>14,}{rate:>10}{decay:>8}  {group.rate.pattern}"
        )
    return "\n".join(lines)


def share_of_peak(step: float, steps: int, warmup: float, floor: float) -> float:
    """Linear warm-up over the share `warmup` of the steps, then half a cosine down to `floor`. The first step is 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
