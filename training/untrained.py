"""Every stage with random weights, made where and as it is used: at 7B a copy in float32 would be 37 GB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from models.config import ModelConfig
from models.decoder import transformers_config
from models.encoder import ImageEncoder, encoder_of
from models.prompt import SpecialTokens
from models.selector import Selector


@dataclass(frozen=True)
class Stages:
    """The modules of one model; encoder and selector are None for a base model without geometry."""

    decoder: Qwen2_5_VLForConditionalGeneration
    encoder: ImageEncoder | None
    selector: Selector | None


def random_stages(
    config: ModelConfig,
    special: SpecialTokens,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Stages:
    """Weights from a seed, drawn on the device itself; the same seed gives other weights on another device or dtype."""
    torch.manual_seed(seed)
    with torch.device(device), _default(dtype):
        decoder = random_decoder(config, special)
        encoder = encoder_of(config.encoder) if config.encoder else None
        selector = Selector(config.selector) if config.selector else None
    return Stages(decoder, encoder, selector)


def random_decoder(config: ModelConfig, special: SpecialTokens) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL of these sizes whose answers end where Qwen's do."""
    model = Qwen2_5_VLForConditionalGeneration(transformers_config(config.decoder, special))
    model.generation_config = GenerationConfig(
        bos_token_id=special.endoftext, eos_token_id=[special.im_end, special.endoftext], pad_token_id=special.endoftext
    )
    return model


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
