"""The workers of a run as Ray Train starts them, over the machines of a cluster. The only module that needs ray."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from training.loop.workers import World


def launch_on_ray(work: Callable[[World], None], workers: int) -> None:
    """Connects to the cluster of `RAY_ADDRESS`, or starts Ray here, and waits for the workers.

    `loop.out` must be a folder that all machines see: the first worker writes there, all read the state to resume.
    """

    def each(_: dict[str, object]) -> None:
        work(World.joined())

    scaling = ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available())
    TorchTrainer(each, train_loop_config={}, scaling_config=scaling).fit()
