"""`python -m tests.bench [--checkpoint DIR | --preset bench] [--clip FILE]`: one JSON object a line."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from models.config import ModelConfig
from tests.bench.service import measure
from training.embedded import make


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--checkpoint", default="models/tiny", help="what is measured")
    parser.add_argument("--preset", choices=["tiny", "bench"], help="random weights of this size in its place")
    parser.add_argument("--clip", type=Path, default=Path("models/tiny/sample/clip.mp4"))
    parser.add_argument("--port", type=int, default=8899)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = arguments.checkpoint
        if arguments.preset:
            checkpoint = f"{directory}/checkpoint"
            make(Path(checkpoint), ModelConfig.preset(arguments.preset))
        for record in measure(checkpoint, arguments.clip, arguments.port, f"{directory}/store"):
            print(record.line(), flush=True)


if __name__ == "__main__":
    main()
