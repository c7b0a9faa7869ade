"""`python -m training.scenes write DIR --scenes N --seed S`: N clips with their cues; what is there is not made again.

Progress goes to the standard error. Several processes may share the work by different ranges of seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from training.scenes.clips import write_clips
from training.scenes.config import SceneConfig, Seeds

BAR = 30  # characters


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    seed_of = Seeds.held_out if asked.held_out else Seeds.train
    try:
        config = replace(SceneConfig(), size=asked.size, frames=asked.frames)
        seeds = [seed_of(asked.seed + index) for index in range(asked.scenes)]
        started, before = time.monotonic(), 0
        for count, done in enumerate(write_clips(asked.directory, seeds, config, asked.device)):
            before = done if count == 0 else before
            sys.stderr.write(f"\r{_bar(done, asked.scenes, done - before, time.monotonic() - started)}")
            sys.stderr.flush()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write("\n")
    return 0


def _bar(done: int, total: int, made: int, seconds: float) -> str:
    full = BAR * done // max(total, 1)
    left = f"{seconds / made * (total - done):.0f} s left" if made else "starting"
    return f"[{'#' * full}{'.' * (BAR - full)}] {done}/{total} clips, {left}   "


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.scenes", description="Rendered scenes for training.")
    write = parser.add_subparsers(dest="command", required=True).add_parser("write", help="clips and their cues")
    write.add_argument("directory", type=Path)
    write.add_argument("--scenes", type=int, required=True, help="how many")
    write.add_argument("--seed", type=int, default=0, help="the number of the first scene of its split")
    write.add_argument("--held-out", action="store_true", help="scenes that training never sees")
    write.add_argument("--size", type=_size, default=SceneConfig.size, metavar="WxH", help="pixels, multiples of 28")
    write.add_argument("--frames", type=int, default=SceneConfig.frames)
    write.add_argument("--device", default="cpu", help="where to render: cpu, cuda, ...")
    return parser


if __name__ == "__main__":
    sys.exit(main())
