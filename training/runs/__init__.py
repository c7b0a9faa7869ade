"""The named runs: what each trains, and its defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from training.loop.task import Task
from training.runs.debug import DebugConfig, DebugTask
from training.runs.pi3 import Pi3RunConfig, Pi3Task
from training.runs.recipe import DsrConfig
from training.runs.tiny import TinyTask, config


@dataclass(frozen=True)
class Run:
    """`config`: a frozen dataclass with a `loop`. `task` makes the task of a config on a device."""

    what: str
    config: Any
    task: Callable[[Any, torch.device], Task]


def _dsr(config: DsrConfig, device: torch.device) -> Task:
    from training.runs.dsr import DsrTask  # it reads videos: a machine that trains on scenes alone may have no PyAV

    return DsrTask(config, device)


RUNS = {
    "debug": Run("the loop itself, in seconds", DebugConfig(), DebugTask),
    "tiny-pi3": Run("a small π³ from rendered scenes: the encoder", Pi3RunConfig(), Pi3Task),
    "tiny-read": Run(
        "the language model, from geometry that is told",
        config("read", "runs/tiny-read", 1600, noise=0.3, scenes=4),
        TinyTask,
    ),
    "tiny-look": Run(
        "the selector, towards such geometry",
        config("look", "runs/tiny-look", 6000, init="runs/tiny-read", scenes=5, questions=32, text=0.5, guided=0.5),
        TinyTask,
    ),
    "tiny": Run(
        "both, on questions about clips: the checkpoint that is served",
        config(
            "answer",
            "runs/tiny",
            3000,
            init="runs/tiny-look",
            scenes=3,
            questions=32,
            text=0.15,
            guided=0.3,
            lr=3e-4,
            selector_lr=6e-4,
        ),
        TinyTask,
    ),
    "dsr-7b": Run("the published recipe on the public data format", DsrConfig(), _dsr),
}
