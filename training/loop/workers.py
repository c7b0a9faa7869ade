"""One process or many: who am I, how parameters are sharded, and how the workers of a run are started.

One process needs nothing. Several use torch.distributed with FSDP2: gloo on the CPU, NCCL on GPUs.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

LAUNCHERS = ("local", "ray")


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

    def summed(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """The sums and counts of all workers added up; a name may be missing on some."""
        if self.size == 1:
            return dict(sums)
        parts: list[Mapping[str, tuple[float, float]]] = [{}] * self.size
        dist.all_gather_object(parts, dict(sums))
        names = dict.fromkeys(name for part in parts for name in part)
        none = (0.0, 0.0)
        return {
            name: (sum(part.get(name, none)[0] for part in parts), sum(part.get(name, none)[1] for part in parts))
            for name in names
        }

    def shard(self, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """FSDP2: every worker keeps its part of each block and of the rest, and gathers a block when it runs."""
        if self.size == 1:
            return
        for block in blocks:
            fully_shard(block)
        fully_shard(module)

    def peak_memory(self) -> int:
        """MiB: of the GPU where there is one, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) // 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


def launch(work: Callable[[World], None], workers: int, launcher: str) -> None:
    """Runs `work` on every worker and waits; with more than one it must be picklable.

    Raises:
        ValueError: an unknown launcher, or fewer than one worker.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher is {launcher!r}, expected one of {LAUNCHERS}")
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    if launcher == "ray":
        from training.loop.on_ray import launch_on_ray  # only this run needs ray

        launch_on_ray(work, workers)
    elif workers == 1:
        work(World.alone())
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        spawn(_worker, args=(work, workers, port), nprocs=workers)  # type: ignore[no-untyped-call]


def _worker(rank: int, work: Callable[[World], None], workers: int, port: int) -> None:
    os.environ |= {"LOCAL_RANK": str(rank)}
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    try:
        work(World.joined())
    finally:
        dist.destroy_process_group()
