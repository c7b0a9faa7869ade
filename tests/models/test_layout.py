"""Recognising what lies in a directory, and what its JSON says, without reading a weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.config import DecoderConfig, EncoderConfig, FramesConfig, ModelConfig, VisionConfig
from models.decoder import transformers_config
from models.errors import CheckpointError
from models.layout import Files, Layout, decoder_config, recognise
from models.prompt import SpecialTokens
from tests.models.releases import Weights, save, stage_of

PI3 = Path(__file__).parents[1] / "golden" / "pi3"


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_our_layout_gives_back_the_configuration_that_was_written(small: Path, small_config: ModelConfig) -> None:
    layout = recognise(small)
    assert layout.kind == "ours"
    assert layout.config == small_config
    assert layout.decoder == small / "decoder"
    assert layout.special == SpecialTokens(*range(1016, 1024))


def test_released_layout_states_every_size(released: Layout, gsm: Path) -> None:
    vision = VisionConfig(32, 64, 3, 2, window_size=56, full_attention=(1,))
    decoder = DecoderConfig(512, 64, 128, 3, 2, 1, (4, 6, 6), max_position_embeddings=4096, vision=vision)
    encoder = EncoderConfig(32, 3, 4, image_size=56).as_released_in_gsm()
    assert released.kind == "released"
    assert released.decoder == gsm
    assert released.special == SpecialTokens(*range(1, 9))
    assert released.model.decoder == decoder
    assert released.model.encoder == encoder
    assert released.model.frames == FramesConfig()
    selector = released.model.selector
    assert selector is not None
    assert (selector.hidden_size, selector.intermediate_size, selector.feature_size) == (64, 128, 32)
    assert (selector.num_queries, selector.position_dtype) == (32, "activation")


def test_released_layout_without_stated_sizes_is_the_published_one(gsm: Path, tmp_path: Path) -> None:
    (copy(gsm, tmp_path) / "geometry.json").unlink()
    layout = recognise(tmp_path / "copy")
    assert layout.model.encoder == EncoderConfig().as_released_in_gsm()
    assert layout.special == SpecialTokens()  # no tokenizer.json either: Qwen's own ids


def test_number_of_queries_is_that_of_the_weights(weights: Weights, other: Path) -> None:
    weights["visual.q_former_queries"] = weights["visual.q_former_queries"][:8].clone()
    selector = save(weights, other).model.selector
    assert selector is not None
    assert selector.num_queries == 8


def test_a_qwen_directory_without_geometry_is_a_base_model(weights: Weights, other: Path) -> None:
    layout = save({key: tensor for key, tensor in weights.items() if stage_of(key) == "decoder"}, other)
    assert layout.kind == "base"
    assert (layout.model.encoder, layout.model.selector) == (None, None)


def test_pi3_is_recognised_by_its_weights() -> None:
    layout = recognise(PI3)
    assert layout.kind == "pi3"
    with pytest.raises(CheckpointError, match="holds π³ alone; a whole model is needed"):
        _ = layout.model


def test_shards_are_found_through_their_index(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Files(tmp_path).where == {"a": tmp_path / "one.safetensors", "b": tmp_path / "two.safetensors"}


def test_decoder_sizes_survive_transformers_own_configuration() -> None:
    config = replace(ModelConfig.tiny().decoder, tokens_per_second=3, rope_theta=5e5, rms_norm_eps=1e-5)
    written = transformers_config(config, SpecialTokens(*range(1, 9))).to_dict()
    assert decoder_config(json.loads(json.dumps(written))) == config


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "vision_config"])
def test_a_decoder_without_a_size_is_refused_by_name(gsm: Path, key: str) -> None:
    data = json.loads((gsm / "config.json").read_text())
    del data[key]
    with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
        decoder_config(data)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda data: data.pop("name"), r"config\.json lacks 'name'"),
        ("config.json", lambda data: data.pop("frames"), "none of our layout, the released one, Qwen2.5-VL, or π³"),
        ("config.json", lambda data: data["encoder"].update(depth=3), r"EncoderConfig: unknown keys \['depth'\]"),
        ("config.json", lambda data: data["selector"].pop("hidden_size"), "SelectorConfig: .*'hidden_size'"),
        ("decoder/config.json", lambda data: data["text_config"].pop("vocab_size"), "lacks 'vocab_size'"),
        ("decoder/tokenizer.json", lambda data: data["added_tokens"].pop(-8), r"lacks the special token '<\|endoftext"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused_by_name(
    small: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copy(small, tmp_path) / file, change)
    with pytest.raises(CheckpointError, match=message):
        recognise(tmp_path / "copy")


def test_other_directories_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing: not a checkpoint directory"):
        recognise(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"none of our layout"):
        recognise(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        recognise(tmp_path)


def test_damaged_and_missing_weights_are_refused_by_file(gsm: Path, tmp_path: Path) -> None:
    weights = copy(gsm, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged"):
        recognise(tmp_path / "copy")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged"):
        recognise(tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json lacks 'weight_map'"):
        recognise(tmp_path / "copy")
