"""`python -m tests.bench [PART …] [--preset bench | --checkpoint DIR] [--clip FILE] [--dtype TYPE]`: JSON lines.

Parts, all by default: `service` (cold, warm, overhead), `crowd` (16 clients, streams), `caches` (200 clips), `routing`
(three decoders, one killed), `engine` (the decoder's engine alone). The last two and `caches` choose their own model.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from models.config import ModelConfig
from tests.bench import caches, capacity, crowd, engine, routing, service
from tests.bench.record import Record
from tests.clips import make_clip
from training.embedded import make

TINY = "models/tiny"
SAMPLE = Path("models/tiny/sample/clip.mp4")
PARTS = ("service", "crowd", "caches", "capacity", "routing", "engine")
OWN_MODEL = {"caches", "routing", "engine"}  # parts that need neither the checkpoint nor the clip
SECONDS, FPS, SIZE = 4.0, 16, (640, 360)  # of the clip that is made where none is given


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=["service", "crowd", "caches", "routing", "engine"])
    parser.add_argument("--checkpoint", help="measured in place of random weights")
    parser.add_argument("--preset", choices=["tiny", "bench"], default="bench", help="random weights of this size")
    parser.add_argument("--clip", type=Path, help="by default, 4 s of 640x360 px are made")
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16"],
        default="float32",
        help="of the service in `service` and `crowd`; auto: as `make run` takes it on this machine",
    )
    parser.add_argument("--port", type=int, default=8899)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}; there are {sorted(PARTS)}")
    with tempfile.TemporaryDirectory() as directory:
        checkpoint, clip = arguments.checkpoint, arguments.clip
        shared = set(arguments.parts) - OWN_MODEL
        if checkpoint is None and shared:
            checkpoint = f"{directory}/checkpoint"
            make(Path(checkpoint), ModelConfig.preset(arguments.preset))
        if clip is None and shared:
            clip = Path(directory) / "clip.mp4"
            make_clip(clip, seconds=SECONDS, fps=FPS, size=SIZE)
        port, store = arguments.port, f"{directory}/store"
        parts: dict[str, Callable[[], Iterator[Record]]] = {
            "service": lambda: service.measure(checkpoint, clip, port, store, arguments.dtype),
            "crowd": lambda: crowd.measure(checkpoint, clip, port, store, arguments.dtype),
            "caches": lambda: caches.measure(SAMPLE, port, store),
            "capacity": lambda: capacity.measure(checkpoint, clip, port, store),
            "routing": lambda: routing.measure(TINY, SAMPLE, port, store),
            "engine": lambda: iter(asyncio.run(engine.run(arguments.preset))),
        }
        for part in arguments.parts:
            for record in parts[part]():
                print(record.line(), flush=True)


if __name__ == "__main__":
    main()
