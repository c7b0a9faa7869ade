"""The same work by Ray tasks, over the cores of a machine or the machines of a cluster that share the folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
import torch

from training.cues import record
from training.cues.extract import Done, Make, attempt, config_of
from training.cues.settings import Settings


class Worker:
    """Loads the estimators once and then takes one video after another."""

    def __init__(self, out: Path, make: Make, settings: Settings) -> None:
        self.out, self.settings, self.estimators = out, settings, make()
        record.keep_config(out, config_of(self.estimators, settings))

    def take(self, path: Path) -> Done:
        return attempt(path, self.out, self.estimators, self.settings)


def spread(paths: Sequence[Path], out: Path, make: Make, settings: Settings, workers: int) -> Iterator[Done]:
    """Connects to the cluster of `RAY_ADDRESS`, or starts Ray here. Yields videos as they end.

    A worker that dies takes the video that it was at with it, which is told, and is replaced.
    """
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False)
    gpus = 1 if torch.cuda.is_available() else 0
    kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(Worker)
    try:
        actors = [kind.remote(out.resolve(), make, settings) for _ in range(min(workers, len(paths)))]
        waiting = [path.resolve() for path in reversed(paths)]
        running = {actor.take.remote(path): (actor, path) for actor in actors if (path := waiting.pop())}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, path = running.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayActorError as error:
                yield Done(path.stem, f"its worker died: {error}")
            if waiting:
                path = waiting.pop()
                running[actor.take.remote(path)] = (actor, path)
    finally:
        if started:
            ray.shutdown()
