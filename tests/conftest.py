"""What tests of several folders share: the golden fixture and a small random checkpoint. No test reaches a network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from models import checkpoint
from models.config import ModelConfig
from models.decoder import transformers_config
from models.encoder import ImageEncoder
from models.layout import Layout, recognise
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from training.tokenizer import save_tokenizer


@pytest.fixture(scope="session")
def gsm() -> Path:
    """The golden fixture of the whole model, in the released layout. Never written to."""
    return Path(__file__).parent / "golden" / "gsm"


@pytest.fixture(scope="session")
def released(gsm: Path) -> Layout:
    return recognise(gsm)


@pytest.fixture(scope="session")
def small_config() -> ModelConfig:
    return ModelConfig.tiny(vocab_size=1024)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, small_config: ModelConfig) -> Path:
    """A checkpoint in our layout: the tiny preset's stages with random weights and a real tokenizer. Copy to change."""
    directory = tmp_path_factory.mktemp("checkpoint") / "small"
    save_tokenizer(directory / "decoder", small_config.decoder.vocab_size)
    special = QwenTokenizer(directory / "decoder").special
    assert small_config.encoder is not None
    assert small_config.selector is not None
    torch.manual_seed(7)
    decoder = Qwen2_5_VLForConditionalGeneration(transformers_config(small_config.decoder, special))
    encoder, selector = ImageEncoder(small_config.encoder), Selector(small_config.selector)
    checkpoint.write(directory, small_config, decoder, encoder, selector, {"licence": "Apache-2.0"})
    return directory


@pytest.fixture(scope="session")
def tokenizer(small: Path) -> QwenTokenizer:
    return QwenTokenizer(small / "decoder")
