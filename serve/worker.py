"""The one thread in which a replica runs torch, so that its event loop stays free for health checks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from serve.trace import Stopwatch

P = ParamSpec("P")
R = TypeVar("R")


class TorchWorker:
    """Runs functions one after the other under `inference_mode`, on the stage's device and threads.

    Takes plain values, not the settings, so that the engine runs without pydantic too.
    """

    def __init__(self, device: str = "cpu", dtype: str = "float32", threads: int = 0) -> None:
        """`device` as torch names it, `dtype` by its name in torch, `threads` of a CPU: 0 takes half of the cores."""
        self.device = device
        self.dtype: torch.dtype = getattr(torch, dtype)
        # Ray sets OMP_NUM_THREADS to the cores that a replica reserves, and to 1 for a fraction of one. Half of the
        # cores, because encoder and decoder work side by side on a cold clip: with all cores each, it takes twice as
        # long.
        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")

    async def run(self, watch: Stopwatch, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` in the thread; its time, without the wait for the thread, goes to `watch`."""

        def timed() -> R:
            with watch.running(), torch.inference_mode():
                result = function(*args, **kwargs)
                if self.device != "cpu":
                    torch.cuda.synchronize()
                return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def touch(self) -> None:
        """Fails when the device no longer computes; for health checks."""
        if torch.ones(2, device=self.device).sum().item() != 2:
            raise RuntimeError(f"{self.device} adds up wrongly")
