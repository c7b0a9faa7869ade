"""A run's state on disk, to go on exactly where it stopped; the same file for one process and for many."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save(directory: Path, step: int, module: nn.Module, optim: torch.optim.Optimizer, keep: int, writes: bool) -> None:
    """Writes `state-<step>.pt` at once or not at all, and removes all but the last `keep`. Every worker must call it;
    the one that `writes` does."""
    weights, moments = get_state_dict(module, optim, options=WHOLE)
    if not writes:
        return
    path = directory / f"state-{step:08d}.pt"
    unfinished = directory / "state.part"  # one name: what a crash left is written over
    with unfinished.open("wb") as file:
        torch.save({"step": step, "module": weights, "optimizer": moments}, file)
        file.flush()
        os.fsync(file.fileno())  # before the old states go, this one is on the disk
    os.replace(unfinished, path)
    for old in states(directory)[:-keep]:
        old.unlink()


def states(directory: Path) -> list[Path]:
    """The oldest first."""
    return sorted(directory.glob("state-*.pt"))


def load(path: Path, module: nn.Module, optim: torch.optim.Optimizer) -> int:
    """Puts the state into both and returns how many steps were done. The workers of a machine map the file once."""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    set_state_dict(
        module,
        optim,
        model_state_dict=state["module"],
        optim_state_dict=state["optimizer"],
        options=WHOLE,
    )
    return int(state["step"])


def weights(path: Path) -> Mapping[str, Tensor]:
    """The state dict of the run's module alone. `path` is a state, or a run's directory: its last state then.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_dir():
        found = states(path)
        if not found:
            raise FileNotFoundError(f"{path} has no state-*.pt: the run before this one has not been made")
        path = found[-1]
    return torch.load(path, map_location="cpu", weights_only=True)["module"]


def whole(module: nn.Module) -> dict[str, Any]:
    """The state dict of `module`, whole and on the CPU. Every worker must call it, the first one gets it."""
    return get_model_state_dict(module, options=WHOLE)
