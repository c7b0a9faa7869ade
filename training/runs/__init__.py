"""The named runs: what each trains, and its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from training.loop.task import Task
from training.runs.debug import DebugConfig, DebugTask
from training.runs.pi3 import Pi3RunConfig, Pi3Task
from training.runs.tiny import TinyTask, config


@dataclass(frozen=True)
class Run:
    """`config`: a frozen dataclass with a `loop`. `task` makes the task of a config on a device."""

    what: str
    config: Any
    task: Callable[[Any, torch.device], Task]


RUNS = {
    "debug": Run("the loop itself, in seconds", DebugConfig(), DebugTask),
    "tiny-pi3": Run("a small π³ from rendered scenes: the encoder", Pi3RunConfig(), Pi3Task),
    "tiny-read": Run(
        "the language model, from geometry that is told", config("read", "runs/tiny-read", 2600), TinyTask
    ),
    "tiny-look": Run(
        "the selector, towards such geometry",
        config("look", "runs/tiny-look", 4000, init="runs/tiny-read", scenes=8),
        TinyTask,
    ),
    "tiny": Run(
        "both, on questions about clips: the checkpoint that is served",
        config("answer", "runs/tiny", 2000, init="runs/tiny-look", questions=24, text=0.1, lr=3e-4, selector_lr=3e-4),
        TinyTask,
    ),
}
