"""The workers of a run as Ray Train starts them, over the machines of a cluster. The only module that needs ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
import torch
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from training.loop import stopping
from training.loop.workers import World


def launch_on_ray(work: Callable[[World], None], workers: int, out: Path) -> None:
    """Connects to the cluster of `RAY_ADDRESS`, or starts Ray here, and waits for the workers.

    This folder and `out` must be there on all machines: the first worker writes a state, all read it to resume.
    """
    folder = os.getcwd()

    def each(_: dict[str, object]) -> None:
        os.chdir(folder)  # so that paths in the run's config mean what they mean here
        work(World.joined())

    trainer = TorchTrainer(
        each,
        train_loop_config={},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(storage_path=str(out.resolve()), name="ray"),
    )
    if not ray.is_initialized():
        ray.init()
    # In the main thread Ray would answer Ctrl-C itself, and drop what was not saved.
    with stopping.listening(out), ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(trainer.fit).result()
        except WorkerGroupError as failed:
            _, error = min(failed.worker_failures.items())
            raise getattr(error, "cause", None) or error from failed
