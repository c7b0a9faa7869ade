"""`python -m training.prepare --groups 15`: makes the scenes and questions of the tiny runs ahead of them.

A run makes what it misses by itself; this goes on making more beside a run that trains on the first groups.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from models.config import ModelConfig
from training.data.scenes import SceneStore
from training.runs.model import tokenizer_in
from training.runs.stores import prepared
from training.scenes.config import SceneConfig


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description=__doc__)
    parser.add_argument("--groups", type=int, default=15, help="of 256 scenes")
    parser.add_argument("--per-scene", type=int, default=48, help="questions, on average; as `per_scene` of a run")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="as `cache` of a run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    tokenizer = tokenizer_in(given.cache, ModelConfig.tiny().decoder.vocab_size)
    prepared(SceneStore(given.cache, SceneConfig(), given.per_scene), given.groups, given.processes, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
