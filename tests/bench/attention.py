"""`python -m tests.bench.attention [--threads 1] [--runs 15]`: ours in bfloat16 on CPUs against torch's kernel.

In turns, on normal inputs of the shapes that a clip has in the `bench` preset and at 7B: times, what is computed in a
second, and the error of either against float32, of the outputs' norm.

Legend: B sequences, H heads, N queries, K keys, D head size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.attention import in_one_pass, kernel
from tests.bench.record import Record, median

TORCHS = "torch's kernel in bfloat16, in turns"


@dataclass(frozen=True)
class Shape:
    """Scores of B * H heads, half of them where `causal`."""

    name: str
    batch: int
    heads: int
    queries: int
    keys: int
    size: int
    causal: bool = False

    @property
    def operations(self) -> int:
        return 4 * self.batch * self.heads * self.queries * self.keys * self.size // (2 if self.causal else 1)


SHAPES = (
    Shape("encoder", 7, 4, 1061, 1061, 32),
    Shape("tower_windows", 66, 8, 64, 64, 32),
    Shape("prefix", 1, 4, 1056, 1056, 64, causal=True),
    Shape("prefix_to_earlier", 1, 4, 1056, 3168, 64),
    Shape("prefix_7b", 1, 28, 1056, 1056, 128, causal=True),
)


@torch.inference_mode()
def measure(shape: Shape, runs: int) -> Iterator[Record]:
    """
    Raises:
        RuntimeError: there is no kernel of ours on this machine.
    """
    chance = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(shape.batch, shape.heads, n, shape.size, generator=chance).bfloat16()
        for n in (shape.queries, shape.keys, shape.keys)
    )

    def ours() -> Tensor:
        return in_one_pass(q, k, v, shape.causal)[0]

    def torchs(*inputs: Tensor) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*inputs or (q, k, v), 0.0, shape.causal)[0]

    exact = torchs(q.float(), k.float(), v.float())
    name = f"attention_{shape.name}"
    for whose, work in (("ours", ours), ("torchs", torchs)):
        error = float((work().float() - exact).norm() / exact.norm())
        yield median(f"{name}_error_{whose}", [error], "1", "float32 of the same inputs")
    times = [(_seconds(ours), _seconds(torchs)) for _ in range(runs)]
    yield median(f"{name}_time", [1000 * mine for mine, _ in times], "ms", "absolute")
    yield median(f"{name}_computes", [shape.operations / mine / 1e9 for mine, _ in times], "GFLOP/s", "absolute")
    yield median(f"{name}_speedup", [theirs / mine for mine, theirs in times], "x", TORCHS)


def _seconds(work: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attention", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    if kernel() is None:
        parser.exit(1, "no kernel of ours: pip found no C++ compiler, or this CPU has no AVX512-BF16, or has AMX\n")
    torch.set_num_threads(given.threads)
    for shape in SHAPES:
        for record in measure(shape, given.runs):
            print(record.line(), flush=True)


if __name__ == "__main__":
    main()
