"""The one thread in which a replica runs torch, so that its event loop stays free for health checks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

from models.attention import kernel
from serve.errors import OutOfMemory
from serve.trace import Stopwatch

# torch raises a bare RuntimeError on the CPU; its allocator's words are all that tells.
_CPU_WORDS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")

P = ParamSpec("P")
R = TypeVar("R")


class TorchWorker:
    """Runs functions one after the other under `inference_mode`, on the stage's device and threads.

    Takes plain values, not the settings, so that the engine runs without pydantic too.
    """

    def __init__(self, device: str = "cpu", dtype: str = "float32", threads: int = 0) -> None:
        """`device` as torch names it, `dtype` by its name in torch or "auto", `threads` of a CPU: 0 takes half of the
        cores."""
        self.device = device
        self.dtype: torch.dtype = fastest(device) if dtype == "auto" else getattr(torch, dtype)
        # Ray sets OMP_NUM_THREADS to the cores that a replica reserves, and to 1 for a fraction of one. Half of the
        # cores, because encoder and decoder work side by side on a cold clip: with all cores each, it takes twice as
        # long.
        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")

    async def run(self, watch: Stopwatch, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` in the thread; its time, without the wait for the thread, goes to `watch`."""

        def timed() -> R:
            with watch.running(), torch.inference_mode(), self._memory_may_be_short():
                result = function(*args, **kwargs)
                if self.device != "cpu":
                    torch.cuda.synchronize()
                return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    @contextmanager
    def _memory_may_be_short(self) -> Iterator[None]:
        """
        Raises:
            OutOfMemory: the device had too little for this; what was allocated on the way is free again.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if self.device != "cpu":
                torch.cuda.empty_cache()
            # `from None`: the frames of the failed pass would keep its tensors alive.
            raise OutOfMemory(f"{self.device} has too little memory for this request now") from None

    @property
    def device_bytes(self) -> int:
        """That torch has taken of the GPU; 0 on a CPU."""
        return 0 if self.device == "cpu" else torch.cuda.memory_reserved(self.device)

    def touch(self) -> None:
        """Fails when the device no longer computes; for health checks."""
        if torch.ones(2, device=self.device).sum().item() != 2:
            raise RuntimeError(f"{self.device} adds up wrongly")


def fastest(device: str) -> torch.dtype:
    """bfloat16 on a GPU that has it and on a CPU that our attention is compiled for; elsewhere float32.

    On other CPUs bfloat16 is emulated, or attention in it takes as long as in float32.
    """
    if device == "cpu":
        return torch.float32 if kernel() is None else torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _CPU_WORDS)
