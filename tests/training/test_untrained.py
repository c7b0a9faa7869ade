from __future__ import annotations

import torch

from models.config import ModelConfig
from models.prompt import SpecialTokens
from training.untrained import random_stages

SPECIAL = SpecialTokens(*range(8))


def test_the_published_sizes_are_made_in_bfloat16_without_a_copy_in_float32() -> None:
    stages = random_stages(ModelConfig.seven_b(), SPECIAL, seed=0, device="meta", dtype=torch.bfloat16)
    modules = [module for module in (stages.decoder, stages.encoder, stages.selector) if module is not None]
    weights = [parameter for module in modules for parameter in module.parameters()]
    assert {(parameter.dtype, parameter.device.type) for parameter in weights} == {(torch.bfloat16, "meta")}
    assert 9.1e9 < sum(parameter.numel() for parameter in weights) < 9.2e9
    # Angles of positions in the thousands need it.
    assert {b.dtype for name, b in stages.decoder.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_a_seed_gives_the_same_weights_and_leaves_the_default_type_alone() -> None:
    first, second, other = (random_stages(ModelConfig.tiny(), SPECIAL, seed) for seed in (1, 1, 2))
    assert torch.equal(first.decoder.lm_head.weight, second.decoder.lm_head.weight)
    assert not torch.equal(first.decoder.lm_head.weight, other.decoder.lm_head.weight)
    random_stages(ModelConfig.tiny(), SPECIAL, 1, dtype=torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32
