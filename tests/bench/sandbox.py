"""`python -m tests.bench.sandbox [--runs 9] [--clip FILE]`: what it costs to decode in other processes.

Compares the pool of sandboxed processes with `models.video.read` in threads of this one, as many of each, over the same
clips; both alternate within a run, so that what else the machine does meets both. One JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from models import video
from models.video import Limits, Sampling
from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.bench.record import Record, median
from tests.clips import make_clip

IN_PROCESS = "models.video.read in as many threads of one process"
TOGETHER = 2
CLIPS = {  # seconds, frames per second, size
    "4s_360p": (4.0, 16, (640, 360)),
    "10s_720p": (10.0, 30, (1280, 720)),
    "10s_1080p": (10.0, 30, (1920, 1080)),
}
READS = 12  # in one measurement of the throughput


async def measure(name: str, path: Path, pool: Pool, runs: int) -> list[Record]:
    """Seconds of one clip alone, and clips a second with all decoders busy."""
    threads = ThreadPoolExecutor(TOGETHER)
    loop = asyncio.get_running_loop()

    def here() -> Awaitable[object]:
        return loop.run_in_executor(threads, lambda: video.read(path, Sampling()))

    async def there() -> object:
        with path.open("rb") as file:
            return await pool.read(file, Sampling(), Limits())

    async def timed(read: Callable[[], Awaitable[object]], times: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(read() for _ in range(times)))
        return time.perf_counter() - start

    await timed(here, TOGETHER)
    await timed(there, TOGETHER)
    alone = [(await timed(here, 1), await timed(there, 1)) for _ in range(runs)]
    busy = [(await timed(here, READS), await timed(there, READS)) for _ in range(runs)]
    threads.shutdown()
    return [
        median(f"frames_{name}_in_process", [1000 * own for own, _ in alone], "ms", "absolute"),
        median(f"frames_{name}_sandboxed", [1000 * other for _, other in alone], "ms", "absolute"),
        median(f"frames_{name}_latency", [other / own for own, other in alone], "x", IN_PROCESS),
        median(f"frames_{name}_throughput", [own / other for own, other in busy], "x", IN_PROCESS),
    ]


def run(clips: dict[str, Path], runs: int, videos_per_child: int) -> Iterator[Record]:
    start = time.perf_counter()
    pool = Pool(Sandbox(videos_per_child=videos_per_child), TOGETHER)
    yield median("sandbox_start", [time.perf_counter() - start], "s", "absolute")
    try:
        with asyncio.Runner() as runner:
            for name, path in clips.items():
                yield from runner.run(measure(name, path, pool, runs))
    finally:
        pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sandbox", description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--clip", type=Path, help="in place of those that are made")
    parser.add_argument("--videos-per-child", type=int, default=Sandbox().videos_per_child)
    given = parser.parse_args()
    torch.set_num_threads(1)  # as Ray leaves it to a stage with a share of a core, and as the sandbox has it
    with tempfile.TemporaryDirectory() as directory:
        clips = {"clip": given.clip} if given.clip else {name: Path(directory) / f"{name}.mp4" for name in CLIPS}
        for name, path in clips.items() if given.clip is None else ():
            seconds, fps, size = CLIPS[name]
            make_clip(path, seconds=seconds, fps=fps, size=size)
        for record in run(clips, given.runs, given.videos_per_child):
            print(record.line(), flush=True)


if __name__ == "__main__":
    main()
