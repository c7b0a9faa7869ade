"""One process or many: who am I, how parameters are sharded, and how the workers of a run are started.

One process needs nothing. Several use torch.distributed with FSDP2: gloo on the CPU, NCCL on GPUs.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from training.loop import stopping

LAUNCHERS = ("local", "ray")
PATIENCE = 5.0  # seconds: how long the other workers may go on after one has failed, and wait for it in vain
Result = TypeVar("Result")


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there. A CPU without instructions for it takes ten times as long as for float32."""
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True)
class World:
    """One worker of `size`."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: str | torch.device | None = None) -> World:
        return cls(0, 1, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))

    @classmethod
    def joined(cls) -> World:
        """A member of the process group that exists; on a machine with GPUs each worker has its own."""
        rank, local = dist.get_rank(), int(os.environ.get("LOCAL_RANK", 0))
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return cls(rank, dist.get_world_size(), device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def has_bf16(self) -> bool:
        """Whether bfloat16 is fast here."""
        return has_bf16(self.device)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()

    def any(self, value: bool) -> bool:
        """Whether it holds on some worker."""
        if self.size == 1:
            return value
        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def gathered(self, value: Result) -> list[Result]:
        """What each worker has, on every worker."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def sharded(self, module: nn.Module, blocks: Sequence[nn.Module], bf16: bool) -> Callable[..., Any]:
        """FSDP2: every worker keeps its part of each block and of the rest, and gathers a block when it runs.

        Returns what all work on `module` must be called through: `through(work, *args)` is `work(*args)`. With `bf16`
        parameters are gathered in bfloat16; what is kept and trained stays as it is.
        """
        if self.size == 1:
            return _called
        # Forward inputs stay as they are: times and angles are no bfloat16.
        policy = (
            MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
            if bf16
            else MixedPrecisionPolicy(cast_forward_inputs=False)
        )
        for block in blocks:
            fully_shard(block, mp_policy=policy)
        root = _Root(module)
        fully_shard(root, mp_policy=policy)
        return root

    def peak_memory(self) -> int:
        """MiB: of the GPU where there is one, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) // 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


class _Root(nn.Module):
    """FSDP gathers the parameters outside of the blocks for as long as `forward` of the root runs, so everything runs
    in it. Thus a task may call any method and any part of its module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[..., Result], *args: Any) -> Result:
        return work(*args)


def _called(work: Callable[..., Result], *args: Any) -> Result:
    return work(*args)


def launch(work: Callable[[World], None], workers: int, launcher: str, out: Path) -> None:
    """Runs `work` on every worker and waits; with more than one it must be picklable. What a worker raises is raised.

    Meanwhile Ctrl-C and SIGTERM ask the run in `out` to stop.

    Raises:
        ValueError: an unknown launcher, or fewer than one worker.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher is {launcher!r}, expected one of {LAUNCHERS}")
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    if launcher == "ray":
        try:
            from training.loop.on_ray import launch_on_ray  # only this run needs ray
        except ImportError as error:
            raise ValueError(f"launcher ray: {error} (pip install 'dsr-serve[train,cluster]')") from error

        launch_on_ray(work, workers, out)
        return
    with stopping.listening(out):
        if workers == 1:
            work(World.alone())
        else:
            _spawned(work, workers)


def _spawned(work: Callable[[World], None], workers: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failures = get_context("spawn").SimpleQueue()
    running = spawn(_worker, (work, workers, port, failures), workers, join=False)  # type: ignore[no-untyped-call]
    try:
        while not running.join(grace_period=PATIENCE):
            pass
    except ProcessRaisedException as failed:
        if failures.empty():
            raise
        raise failures.get() from failed
    finally:
        for process in running.processes:  # alive only if we were told to stop at once
            process.kill()


def _worker(rank: int, work: Callable[[World], None], workers: int, port: int, failures: Any) -> None:
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all; the process that started us listens
    os.environ |= {"LOCAL_RANK": str(rank)}
    if not torch.cuda.is_available():
        torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) // workers)))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    try:
        work(World.joined())
    except Exception as error:
        failures.put(error)  # before the group goes and the other workers fail of that
        raise
    finally:
        dist.destroy_process_group()
