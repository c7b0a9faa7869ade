"""The named runs: what each trains, and its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from training.loop.task import Task
from training.runs.debug import DebugConfig, DebugTask


@dataclass(frozen=True)
class Run:
    """`config`: a frozen dataclass with a `loop`. `task` makes the task of a config on a device."""

    what: str
    config: Any
    task: Callable[[Any, torch.device], Task]


RUNS = {
    "debug": Run("the loop itself, in seconds", DebugConfig(), DebugTask),
}
