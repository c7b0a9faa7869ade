from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.decoder import Decoder
from models.parity import TOLERANCE
from models.tokenizer import QwenTokenizer
from serve.engine import Engine, Limits, parity
from serve.engine.transformer import Transformer
from tests.serve.engine.asked import Noted


def test_the_forward_pass_is_transformers_own(decoder: Decoder) -> None:
    assert parity.check(decoder, Transformer(decoder)) < 1e-5


def test_it_is_in_bfloat16_too(decoder: Decoder) -> None:
    halved = Decoder(copy.deepcopy(decoder.model).to(torch.bfloat16))
    assert 0 < parity.check(halved, Transformer(halved)) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_engine_that_computes_something_else_does_not_start(
    decoder: Decoder, tokenizer: QwenTokenizer, place: int
) -> None:
    """Queries, keys or values of one layer a little off, as after an upgrade that changes a detail."""

    def changed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: Any, *rest: Any) -> Any:
            found = function(layer, *rest)
            if isinstance(found, tuple) and layer.self_attn.layer_idx == 1:
                return tuple(x * 1.1 if index == place else x for index, x in enumerate(found))
            return found

        return call

    with pytest.raises(RuntimeError, match="deviates from transformers"):
        Engine(decoder, tokenizer, Noted(), Limits(1 << 20), changed)


def test_sliding_windows_are_refused(decoder: Decoder) -> None:
    other = copy.deepcopy(decoder)
    other.model.model.language_model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(ValueError, match="sliding_attention"):
        Transformer(other)
