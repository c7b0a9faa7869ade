"""`python -m tests.bench.memory [--presets tiny bench 7b] [--dtype bfloat16]`: what the selector keeps of a clip.

Compares the two forms of a clip's memory: its merged features [M, D], which every question must project again, and
Q-Former 2's keys and values, which `Selector.project` makes once; and a pass over eight questions with eight passes.
Random weights, 32 frames of 640x360 (or the most that a preset's frames allow), questions of 32 tokens. Milliseconds
are the processor's, on one thread: what else the machine does is not in them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.config import ModelConfig
from models.rope import Grid
from models.selector import Memory, Selector
from tests.bench.record import Record, median

MiB = 1024**2
MERGED = "merged features, projected for every question"
ALONE = "one pass for each question"
FRAMES, HEIGHT, WIDTH = 32, 364, 644  # what 640x360 becomes
TEXT = 32  # tokens
TOGETHER = 8  # questions


@torch.inference_mode()
def measure(preset: str, dtype: torch.dtype, runs: int) -> Iterator[Record]:
    """Bytes of a clip and milliseconds of a question about it; what is compared alternates."""
    selector, grid = _selector(preset, dtype), _grid(preset)
    width = selector.config.hidden_size
    generator = torch.Generator().manual_seed(1)
    geometry = torch.randn(grid.size, width, generator=generator).to(dtype)
    text = [torch.randn(TEXT, width, generator=generator).to(dtype)]
    memory = selector.project(geometry, grid)

    def merged() -> Tensor:
        return selector.select(text, [selector.project(geometry, grid)]).tokens

    def projected() -> Tensor:
        return selector.select(text, [memory]).tokens

    def together() -> Tensor:
        return selector.select(text * TOGETHER, [memory] * TOGETHER).tokens

    if not torch.equal(merged(), projected()):
        raise RuntimeError(f"{preset}: the two forms of the memory give different tokens")
    yield from _sizes(preset, geometry, memory)
    times = [(_milliseconds(merged), _milliseconds(projected), _milliseconds(together)) for _ in range(runs)]
    yield median(f"selector_{preset}_merged_question", [old for old, _, _ in times], "ms", "absolute")
    yield median(f"selector_{preset}_projected_question", [new for _, new, _ in times], "ms", "absolute")
    yield median(f"selector_{preset}_speedup", [old / new for old, new, _ in times], "x", MERGED)
    shares = [TOGETHER * new / batch for _, new, batch in times]
    yield median(f"selector_{preset}_speedup_of_{TOGETHER}_together", shares, "x", ALONE)


def _sizes(preset: str, geometry: Tensor, memory: Memory) -> Iterator[Record]:
    yield median(f"selector_{preset}_merged_bytes", [geometry.nbytes / MiB], "MiB per clip", "absolute")
    yield median(f"selector_{preset}_projected_bytes", [memory.nbytes / MiB], "MiB per clip", "absolute")
    yield median(f"selector_{preset}_bytes_saved", [geometry.nbytes / memory.nbytes], "x", MERGED)


def _selector(preset: str, dtype: torch.dtype) -> Selector:
    config = ModelConfig.preset(preset).selector
    if config is None:
        raise ValueError(f"preset {preset} has no selector")
    torch.manual_seed(0)
    with torch.device("meta"):
        selector = Selector(config).to(dtype)
    selector.to_empty(device="cpu")
    for parameter in selector.parameters():
        parameter.normal_(std=0.02)
    return selector.eval().requires_grad_(False)


def _grid(preset: str) -> Grid:
    frames = ModelConfig.preset(preset).frames
    scale = min(1.0, (frames.max_pixels / (HEIGHT * WIDTH)) ** 0.5)
    rows, columns = (max(1, int(size * scale) // frames.side_multiple) for size in (HEIGHT, WIDTH))
    return Grid(FRAMES // frames.temporal_patch, rows, columns, 0.6)


def _milliseconds(work: Callable[[], Tensor]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--presets", nargs="+", choices=["tiny", "bench", "7b"], default=["tiny", "bench", "7b"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for preset in given.presets:
        for record in measure(preset, getattr(torch, given.dtype), given.runs):
            print(record.line(), flush=True)


if __name__ == "__main__":
    main()
