"""Checkpoints: what is written is what is read, whatever the layout and the naming."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from models import checkpoint
from models.checkpoint import (
    load_decoder,
    load_embeddings,
    load_encoder,
    load_pi3,
    load_selector,
    open_layout,
    refuse_damaged,
)
from models.config import ModelConfig
from models.decoder import Decoder, transformers_config
from models.encoder import ImageEncoder
from models.errors import CheckpointError
from models.layout import Layout, recognise
from models.prompt import SpecialTokens
from models.rope import Grid
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from tests.models.releases import Weights, save, shard, stage_of

PI3 = Path(__file__).parents[1] / "golden" / "pi3"


def frames() -> Tensor:
    """Four, of 2 x 3 merged tokens."""
    return torch.randint(0, 256, (4, 56, 84, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def random_stages(config: ModelConfig, special: SpecialTokens) -> tuple[Decoder, ImageEncoder, Selector]:
    assert config.encoder is not None
    assert config.selector is not None
    torch.manual_seed(11)
    decoder = Decoder(Qwen2_5_VLForConditionalGeneration(transformers_config(config.decoder, special)).eval())
    return decoder, ImageEncoder(config.encoder).eval(), Selector(config.selector).eval()


@torch.inference_mode()
def computed(decoder: Decoder, encoder: ImageEncoder, selector: Selector) -> list[Tensor]:
    """Something that every weight of the three stages takes part in."""
    grid = Grid(2, 2, 3, seconds_per_time=1.0)
    features, video, text = encoder(frames()), decoder.see(frames()), decoder.embed(range(9))
    tokens = selector.select([text], [selector.project(selector.remember(features, grid), grid)]).tokens[0]
    logits = decoder.model(inputs_embeds=torch.cat([video, tokens, text])[None]).logits
    return [features, tokens, logits]


def test_what_is_written_is_what_is_read(tmp_path: Path, small_config: ModelConfig, small: Path) -> None:
    shutil.copytree(small / "decoder", tmp_path / "decoder", ignore=shutil.ignore_patterns("model*"))
    decoder, encoder, selector = random_stages(small_config, QwenTokenizer(small / "decoder").special)
    checkpoint.write(tmp_path, small_config, decoder.model, encoder, selector)
    layout = open_layout(tmp_path)
    read = load_decoder(layout), load_encoder(layout), load_selector(layout)
    assert layout.config == small_config
    for ours, expected in zip(computed(*read), computed(decoder, encoder, selector), strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(load_embeddings(layout), decoder.embeddings)


def test_a_base_model_is_written_and_read_without_geometry(
    tmp_path: Path, small_config: ModelConfig, small: Path
) -> None:
    shutil.copytree(small / "decoder", tmp_path / "decoder", ignore=shutil.ignore_patterns("model*"))
    decoder, _, _ = random_stages(small_config, QwenTokenizer(small / "decoder").special)
    with pytest.raises(CheckpointError, match="encoder"):
        checkpoint.write(tmp_path, small_config, decoder.model)
    checkpoint.write(tmp_path, replace(small_config, encoder=None, selector=None), decoder.model)
    layout = open_layout(tmp_path)
    assert (layout.model.encoder, layout.model.selector) == (None, None)
    load_decoder(layout)
    for load in (load_encoder, load_selector):
        with pytest.raises(CheckpointError, match="a base model answers without geometry"):
            load(layout)


def test_loaded_stages_are_frozen_and_of_the_dtype_that_was_asked_for(small: Path) -> None:
    layout = recognise(small)
    for load in (load_encoder, load_selector, load_decoder):
        module = load(layout, dtype=torch.bfloat16)
        assert not module.training
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in module.parameters())


def test_transformers_reads_the_decoder_directory_as_any_other(small: Path) -> None:
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(small / "decoder", output_loading_info=True)
    assert not any(report.values())
    ours = load_decoder(recognise(small))
    ids = torch.tensor([AutoTokenizer.from_pretrained(small / "decoder").encode("What moves?")])
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, ours.model(input_ids=ids).logits)


def test_a_checkpoint_can_be_written_over_the_one_that_is_loaded(
    small: Path, small_config: ModelConfig, tmp_path: Path
) -> None:
    """The loaded tensors are mapped from the files, so the files must be replaced and never rewritten in place."""
    layout = recognise(Path(shutil.copytree(small, tmp_path / "copy")))
    decoder, encoder, selector = load_decoder(layout), load_encoder(layout), load_selector(layout)
    before = computed(decoder, encoder, selector)
    checkpoint.write(layout.path, small_config, decoder.model, encoder, selector)
    again = load_decoder(layout), load_encoder(layout), load_selector(layout)
    for ours, expected in zip(computed(*again), before, strict=True):
        assert torch.equal(ours, expected)


def test_training_a_loaded_stage_leaves_its_file_alone(small: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(small, tmp_path / "copy"))
    before = checkpoint.hashes(directory)
    for load in (load_encoder, load_selector, load_decoder):
        for parameter in load(recognise(directory)).parameters():
            parameter.add_(1.0)
    assert checkpoint.hashes(directory) == before


def test_everybody_may_read_what_is_written(small: Path) -> None:
    assert {path.stat().st_mode & 0o044 for path in small.rglob("*.safetensors")} == {0o044}


def test_manifest_holds_the_hash_of_every_file_and_what_the_caller_says(small: Path) -> None:
    manifest = json.loads((small / "manifest.json").read_text())
    assert manifest["licence"] == "Apache-2.0"
    files = {path.relative_to(small).as_posix() for path in small.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    assert {"decoder/model.safetensors", "decoder/merges.txt", "encoder.safetensors", "config.json"} <= files
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((small / name).read_bytes()).hexdigest() == digest


def in_transformers_5(key: str) -> str:
    return f"model.{key}" if key.startswith("visual.") else key.replace("model.", "model.language_model.")


def with_model_in_front(key: str) -> str:
    return key if key == "lm_head.weight" else f"model.{key}"


@pytest.mark.parametrize("rename", [in_transformers_5, with_model_in_front])
def test_both_namings_of_the_release_are_the_same_model(
    released: Layout, weights: Weights, other: Path, rename: Callable[[str], str]
) -> None:
    layout = save({rename(key): tensor for key, tensor in weights.items()}, other)
    assert replace(layout.model, name="gsm") == released.config
    for load in (load_encoder, load_selector, load_decoder):
        ours, expected = load(layout).state_dict(), load(released).state_dict()
        assert all(torch.equal(ours[key], tensor) for key, tensor in expected.items())
    assert torch.equal(load_embeddings(layout), load_embeddings(released))


def test_a_sharded_release_is_the_same_model(released: Layout, weights: Weights, other: Path) -> None:
    """Shards as the hub cuts them: by order, through the middle of stages."""
    order = sorted(weights)
    shard(weights, other, lambda key: str(order.index(key) * 4 // len(order)))
    layout = recognise(other)
    for load in (load_encoder, load_selector, load_decoder):
        ours, expected = load(layout).state_dict(), load(released).state_dict()
        assert all(torch.equal(ours[key], tensor) for key, tensor in expected.items())
    assert torch.equal(load_embeddings(layout), load_embeddings(released))


def test_a_base_model_is_a_release_without_geometry(released: Layout, weights: Weights, other: Path) -> None:
    layout = save({key: tensor for key, tensor in weights.items() if stage_of(key) == "decoder"}, other)
    assert layout.kind == "base"
    ours, expected = load_decoder(layout).state_dict(), load_decoder(released).state_dict()
    assert all(torch.equal(ours[key], tensor) for key, tensor in expected.items())
    for load in (load_encoder, load_selector):
        with pytest.raises(CheckpointError, match="a base model answers without geometry"):
            load(layout)


def test_a_base_model_with_half_of_the_geometry_is_refused(weights: Weights, other: Path) -> None:
    """Without the queries it is no release, and as a base model it has keys too many."""
    del weights["visual.q_former_queries"]
    layout = save(weights, other)
    assert layout.kind == "base"
    with pytest.raises(CheckpointError, match=r"has unexpected \d+ tensors: model\.visual\.q_former_1"):
        load_decoder(layout)


def test_weights_of_pi3_serve_as_encoder(tmp_path: Path) -> None:
    """With the token that DINOv2 hides patches with, which π³'s own file holds and nobody needs."""
    shutil.copytree(PI3, tmp_path, dirs_exist_ok=True)
    weights = load_file(PI3 / "model.safetensors")
    weights["encoder.mask_token"] = torch.zeros(1, 32)
    save_file(weights, tmp_path / "model.safetensors")
    ours, expected = load_encoder(recognise(tmp_path)), load_pi3(PI3).encoder
    with torch.inference_mode():
        assert torch.equal(ours(frames()), expected(frames()))
    weights["encoder.gate"] = torch.zeros(1, 32)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="the encoder has unexpected 1 tensors: gate"):
        load_encoder(recognise(tmp_path))
    with pytest.raises(CheckpointError, match="holds π³ alone"):
        load_decoder(recognise(tmp_path))


def test_a_hub_id_without_network_is_refused_in_our_words() -> None:
    with pytest.raises(CheckpointError, match=r"^nobody/nothing: no such directory, and the hub did not deliver it \("):
        open_layout("nobody/nothing")


@pytest.mark.parametrize("location", ["/no/such/place", "nowhere", "a/b/c", "~/no such place"])
def test_a_wrong_path_is_refused_in_our_words(location: str) -> None:
    with pytest.raises(CheckpointError, match="no such directory, and not a hub id of the form owner/name"):
        open_layout(location)


PARTS = {"decoder/model": "decoder/", "encoder": "encoder.safetensors", "selector": "selector.safetensors"}


@pytest.mark.parametrize("part", PARTS)
def test_one_flipped_bit_is_refused_by_its_hash(small: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    file = copy / f"{part}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # in the last weight: nothing but the hash can tell
    file.write_bytes(data)
    layout = open_layout(copy)
    for other, prefix in PARTS.items():
        if other != part:
            refuse_damaged(layout, prefix)
    with pytest.raises(CheckpointError, match=f"{part}.safetensors is damaged: its sha256 is [0-9a-f]+, the manifest"):
        refuse_damaged(layout, PARTS[part])


def test_a_changed_config_is_refused_by_its_hash(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    config = copy / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(CheckpointError, match=r"config.json is damaged"):
        refuse_damaged(open_layout(copy), "encoder.safetensors")
