"""What the loop needs to know of what it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
Number = float | Tensor
Metrics = Mapping[str, tuple[Number, Number]]
"""Name -> (sum, count), so that they add up over micro-batches and workers. The loop reads scalars on a GPU all at once
after the backward pass: each one that is read before makes the GPU wait."""


@dataclass(frozen=True)
class Rate:
    """A group of parameters: those whose full name `pattern` finds (`re.search`) and no rate before this one did.

    `lr` is the peak; 0 freezes the group.
    """

    name: str
    pattern: str
    lr: float
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"the rate {self.name!r} has {name} {getattr(self, name)}; it must be at least 0")


@dataclass(frozen=True)
class Share:
    """The part of a step's batch that one micro-batch of one worker has: every `count`-th item from the `index`-th on.

    A step's items must not depend on the share, so that more workers or more micro-batches give the same step.
    """

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        if len(items) < self.count:
            raise ValueError(f"a step has {len(items)} items, fewer than its {self.count} parts (accumulate x workers)")
        return items[self.index :: self.count]


@dataclass(frozen=True)
class Outcome:
    """Of one micro-batch. `loss` is the SUM over `count` things; the loop divides by the count of the whole step.

    `ids` of the samples: they are named when a loss is not finite.
    """

    loss: Tensor
    count: float
    metrics: Metrics = field(default_factory=dict)
    ids: Sequence[str] = ()


class Task(Protocol):
    """What is trained. `loss` and `evaluate` may call any part of `module`, and blocks as often as they like.

    `module` holds all parameters, trained and frozen; its state dict is what a resumed run starts from."""

    @property
    def module(self) -> nn.Module: ...

    def rates(self) -> Sequence[Rate]: ...

    def batch(self, step: int, share: Share) -> Any:
        """A pure function of its arguments and of the run's config: a resumed run needs no other state."""
        ...

    def loss(self, batch: Any) -> Outcome: ...

    def evaluate(self, step: int) -> Metrics:
        """On data that is never trained on; may be empty."""
        ...

    def blocks(self) -> Sequence[nn.Module]:
        """What is sharded one by one over several GPUs, and recomputed with `checkpoint_blocks`; may be empty."""
        ...

    def export(self, directory: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """Writes what the run is for. `state`: the state dict of `module`, whole and on the CPU."""
        ...


def moved(value: Item, device: torch.device) -> Item:
    """A dataclass with all tensors in it on the device; what holds none stays. To a GPU without waiting for it."""
    if isinstance(value, Tensor):
        pinned = value.pin_memory() if device.type == "cuda" and value.device.type == "cpu" else value
        return pinned.to(device, non_blocking=True)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: moved(getattr(value, part.name), device) for part in fields(value)})
    return value
