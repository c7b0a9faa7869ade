"""Configurations: strict reading, presets that fit together, and the published sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from models.config import Config, EncoderConfig, FramesConfig, ModelConfig, SelectorConfig, selector_like
from models.decoder import transformers_config
from models.encoder import ImageEncoder
from models.errors import CheckpointError
from models.prompt import SpecialTokens
from models.selector import Selector

SPECIAL = SpecialTokens(1, 2, 3, 4, 5, 6, 7, 8)
PRESETS = ["tiny", "bench", "7b"]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sizes(config: ModelConfig) -> dict[str, int]:
    """Parameters of each stage, counted without allocating any."""
    assert config.encoder is not None
    assert config.selector is not None
    with torch.device("meta"):
        return {
            "encoder": parameters(ImageEncoder(config.encoder)),
            "selector": parameters(Selector(config.selector)),
            "decoder": parameters(Qwen2_5_VLForConditionalGeneration(transformers_config(config.decoder, SPECIAL))),
        }


@pytest.mark.parametrize("kind", [FramesConfig, EncoderConfig, SelectorConfig])
def test_an_unknown_key_is_refused_by_name(kind: type[Config]) -> None:
    with pytest.raises(CheckpointError, match=rf"{kind.__name__}: unknown keys \['num_heads'\]"):
        kind.from_json({"num_heads": 3})


def test_a_missing_key_without_a_default_is_refused_by_name() -> None:
    data = selector_like(ModelConfig.tiny().decoder, EncoderConfig()).to_json()
    del data["feature_size"]
    with pytest.raises(CheckpointError, match=r"SelectorConfig: .*'feature_size'"):
        SelectorConfig.from_json(data)


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_back_the_same_configuration(name: str) -> None:
    config = ModelConfig.preset(name)
    for part in (config.frames, config.encoder, config.selector):
        assert part is not None
        assert type(part).from_json(json.loads(json.dumps(part.to_json()))) == part


def test_json_keeps_what_differs_from_the_defaults() -> None:
    changed = replace(EncoderConfig(), hidden_size=96, image_mean=(0.1, 0.2, 0.3))
    assert EncoderConfig.from_json(json.loads(json.dumps(changed.to_json()))) == changed


@pytest.mark.parametrize("name", PRESETS)
def test_the_stages_of_a_preset_fit_together(name: str) -> None:
    config = ModelConfig.preset(name)
    encoder, selector, decoder = config.encoder, config.selector, config.decoder
    assert encoder is not None
    assert selector is not None
    assert selector.feature_size == encoder.hidden_size
    assert selector.hidden_size == decoder.hidden_size
    assert selector.mrope_section == decoder.mrope_section
    assert 2 * sum(selector.mrope_section) == selector.head_size == decoder.hidden_size // decoder.num_attention_heads
    assert encoder.patch_size == config.frames.patch_size
    assert encoder.image_size % encoder.patch_size == 0
    assert config.frames.side_multiple == 28
    # Text follows the last time position of a clip, so the longest clip and its prompt must fit.
    tokens = config.frames.count // 2 * config.frames.max_pixels // 28**2
    assert tokens + selector.num_queries < decoder.max_position_embeddings


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"unknown preset '8b'; there are \['7b', 'bench', 'tiny'\]"):
        ModelConfig.preset("8b")


def test_the_7b_preset_has_the_published_sizes() -> None:
    config = ModelConfig.seven_b()
    assert config.selector is not None
    assert sizes(config) == {"encoder": 304_371_712, "selector": 562_805_760, "decoder": 8_292_166_656}
    assert sum(sizes(config).values()) == 9_159_344_128
    with torch.device("meta"):
        selector = Selector(config.selector)
    assert parameters(selector.merger) == 96_488_960
    assert parameters(selector.q_former_1) == parameters(selector.q_former_2) == 233_099_264
    assert selector.queries.numel() == 32 * 3584


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", {"encoder": 2_798_400, "selector": 3_306_112, "decoder": 3_980_288}),
        ("bench", {"encoder": 1_442_816, "selector": 2_834_176, "decoder": 8_524_672}),
    ],
)
def test_small_presets_have_their_stated_sizes(name: str, expected: dict[str, int]) -> None:
    assert sizes(ModelConfig.preset(name)) == expected


def test_the_release_normalises_with_a_green_mean_that_is_too_small() -> None:
    """The released path: Qwen's normalisation, undone with another green mean, then ImageNet's."""
    exact = EncoderConfig()
    released = exact.as_released_in_gsm()
    x, std = 0.6, 0.26130258
    undone = (x - 0.4578275) / std * std + 0.4576275
    assert (x - released.image_mean[1]) / exact.image_std[1] == pytest.approx(
        (undone - exact.image_mean[1]) / exact.image_std[1], abs=1e-12
    )
    assert released.image_mean[1] - exact.image_mean[1] == pytest.approx(0.0002)
    assert (released.image_mean[0], released.image_mean[2]) == (exact.image_mean[0], exact.image_mean[2])


def test_what_the_http_edge_reads_imports_no_torch(gsm: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import models.config, models.errors, models.prompt; "
        "from models.layout import recognise; recognise(Path(sys.argv[1])); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers')))"
    )
    subprocess.run([sys.executable, "-c", program, str(gsm)], check=True)
