"""`python -m training.embedded DIR`: a checkpoint with every real part at small size and random weights from a seed.

Benchmarks and tests use such ones. The weights in `models/tiny` are trained: see `training/README.md`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from models import checkpoint
from models.config import ModelConfig
from models.tokenizer import QwenTokenizer
from training.sample import write_sample
from training.tokenizer import save_tokenizer
from training.untrained import random_stages

SEED = 20_512


def make(directory: Path, config: ModelConfig, seed: int = SEED) -> None:
    """Writes a checkpoint in our layout with random weights of `config`'s sizes; replaces what was there."""
    shutil.rmtree(directory, ignore_errors=True)
    save_tokenizer(directory / "decoder", config.decoder.vocab_size)
    special = QwenTokenizer(directory / "decoder").special
    stages = random_stages(config, special, seed)
    write_sample(directory / "sample")
    manifest = {
        "model": config.name,
        "run": {"name": "random", "command": "python -m training.embedded", "seed": seed},
        "data": None,
        "metrics": None,
        "licence": "Apache-2.0",
    }
    for module in (stages.decoder, stages.encoder, stages.selector):
        if module is not None:
            module.to(torch.bfloat16)  # half the bytes in the repository; loading gives any dtype
    checkpoint.write(directory, config, stages.decoder, stages.encoder, stages.selector, manifest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.embedded", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", default="tiny", choices=["tiny", "bench"])
    arguments = parser.parse_args()
    make(arguments.directory, ModelConfig.preset(arguments.preset))


if __name__ == "__main__":
    main()
