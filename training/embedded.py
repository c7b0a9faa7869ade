"""`python -m training.embedded DIR`: a checkpoint with every real part at small size and random weights from a seed.

Benchmarks and tests use such ones. The weights in `models/tiny` are trained: see `training/README.md`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from models import checkpoint
from models.config import ModelConfig
from models.decoder import transformers_config
from models.encoder import ImageEncoder
from models.prompt import SpecialTokens
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from training.sample import write_sample
from training.tokenizer import save_tokenizer

SEED = 20_512


def make(directory: Path, config: ModelConfig, seed: int = SEED) -> None:
    """Writes a checkpoint in our layout with random weights of `config`'s sizes; replaces what was there."""
    shutil.rmtree(directory, ignore_errors=True)
    save_tokenizer(directory / "decoder", config.decoder.vocab_size)
    special = QwenTokenizer(directory / "decoder").special
    torch.manual_seed(seed)
    decoder = random_decoder(config, special)
    encoder = ImageEncoder(config.encoder) if config.encoder else None
    selector = Selector(config.selector) if config.selector else None
    write_sample(directory / "sample")
    manifest = {
        "model": config.name,
        "run": {"name": "random", "command": "python -m training.embedded", "seed": seed},
        "data": None,
        "metrics": None,
        "licence": "Apache-2.0",
    }
    for module in (decoder, encoder, selector):
        if module is not None:
            module.to(torch.bfloat16)  # half the bytes in the repository; loading gives any dtype
    checkpoint.write(directory, config, decoder, encoder, selector, manifest)


def random_decoder(config: ModelConfig, special: SpecialTokens) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL of these sizes whose answers end where Qwen's do."""
    model = Qwen2_5_VLForConditionalGeneration(transformers_config(config.decoder, special))
    model.generation_config = GenerationConfig(
        bos_token_id=special.endoftext, eos_token_id=[special.im_end, special.endoftext], pad_token_id=special.endoftext
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.embedded", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", default="tiny", choices=["tiny", "bench"])
    arguments = parser.parse_args()
    make(arguments.directory, ModelConfig.preset(arguments.preset))


if __name__ == "__main__":
    main()
