"""What lies in a checkpoint directory: ours, the released one, a base model alone, or π³. Imports no torch.

ours       config.json {name, frames, encoder, selector}, encoder.safetensors, selector.safetensors, decoder/
released   one flat directory: Qwen2.5-VL in the 4.5x naming with `visual.spatial_*` and `visual.q_former_*` beside it
base       a plain Qwen2.5-VL directory: served without geometry
pi3        π³'s own weights: `encoder.`, `decoder.`, heads
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from models.config import (
    DecoderConfig,
    EncoderConfig,
    FramesConfig,
    ModelConfig,
    SelectorConfig,
    VisionConfig,
    selector_like,
)
from models.errors import CheckpointError
from models.prompt import SpecialTokens

Kind = Literal["ours", "released", "base", "pi3"]


@dataclass(frozen=True)
class Files:
    """The tensors of one or several safetensors files, by name; shards are found through their index."""

    directory: Path
    single: str = "model.safetensors"

    @cached_property
    def where(self) -> Mapping[str, Path]:
        """Name of each tensor → the file that holds it."""
        index = self.directory / f"{self.single}.index.json"
        if index.is_file():
            shards = _entry(read_json(index), "weight_map", index)
            return {key: self.directory / shard for key, shard in shards.items()}
        with opened(self.directory / self.single, "np") as file:
            return dict.fromkeys(file.keys(), self.directory / self.single)

    def shape(self, key: str) -> tuple[int, ...]:
        with opened(self.where[key], "np") as file:
            return tuple(file.get_slice(key).get_shape())


@dataclass(frozen=True)
class Layout:
    """A recognised directory. `config` and `special` are None for π³, which has no language model."""

    kind: Kind
    path: Path
    config: ModelConfig | None = None
    special: SpecialTokens | None = None

    @property
    def decoder(self) -> Path:
        return self.path / "decoder" if self.kind == "ours" else self.path

    @property
    def model(self) -> ModelConfig:
        if self.config is None:
            raise CheckpointError(f"{self.path} holds π³ alone; a whole model is needed here")
        return self.config


def recognise(path: Path) -> Layout:
    """The layout of a directory.

    Raises:
        CheckpointError: it does not exist or is none of the four.
    """
    if any(path.glob("model.safetensors*")) and "point_head.proj.weight" in Files(path).where:
        return Layout("pi3", path)
    config = path / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{config} is missing: not a checkpoint directory")
    data = read_json(config)
    if data.get("model_type") == "qwen2_5_vl":
        return _qwen(path, data)
    if "frames" not in data or not (path / "decoder" / "config.json").is_file():
        raise CheckpointError(f"{config}: none of our layout, the released one, Qwen2.5-VL, or π³")
    return _ours(path, data)


def _ours(path: Path, data: Mapping[str, Any]) -> Layout:
    decoder = decoder_config(read_json(path / "decoder" / "config.json"))
    encoder = EncoderConfig.from_json(data["encoder"]) if data.get("encoder") else None
    selector = SelectorConfig.from_json(data["selector"]) if data.get("selector") else None
    name = _entry(data, "name", path / "config.json")
    config = ModelConfig(name, FramesConfig.from_json(data["frames"]), decoder, encoder, selector)
    return Layout("ours", path, config, special_tokens(path / "decoder"))


def _qwen(path: Path, data: Mapping[str, Any]) -> Layout:
    decoder = decoder_config(data)
    config = ModelConfig(data.get("name", path.name), FramesConfig(), decoder)
    queries = next((key for key in Files(path).where if key.endswith("visual.q_former_queries")), None)
    if queries is None:
        return Layout("base", path, config, special_tokens(path))
    # The release fixes the encoder to ViT-L; other sizes come with a geometry.json.
    sizes = read_json(path / "geometry.json") if (path / "geometry.json").is_file() else {}
    encoder = EncoderConfig.from_json(sizes.get("geometry_encoder", {})).as_released_in_gsm()
    selector = selector_like(decoder, encoder, num_queries=Files(path).shape(queries)[0])
    selector = replace(selector, position_dtype="activation")
    special = SpecialTokens(**sizes["special_token_ids"]) if sizes else special_tokens(path)
    return Layout("released", path, replace(config, encoder=encoder, selector=selector), special)


def decoder_config(data: Mapping[str, Any]) -> DecoderConfig:
    """Our view of a Qwen2.5-VL `config.json`, flat (as on the hub) or nested (as transformers 5 writes it)."""
    text = data.get("text_config") or data
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    defaults = VisionConfig()
    try:
        vision = data["vision_config"]
        return DecoderConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            intermediate_size=text["intermediate_size"],
            num_hidden_layers=text["num_hidden_layers"],
            num_attention_heads=text["num_attention_heads"],
            num_key_value_heads=text["num_key_value_heads"],
            mrope_section=tuple(rope["mrope_section"]),
            rope_theta=rope.get("rope_theta") or text.get("rope_theta", 1_000_000.0),
            rms_norm_eps=text.get("rms_norm_eps", 1e-6),
            tokens_per_second=vision.get("tokens_per_second", 2),
            max_position_embeddings=text.get("max_position_embeddings", 128_000),
            tie_word_embeddings=data.get("tie_word_embeddings", False),
            vision=VisionConfig(
                hidden_size=vision.get("hidden_size", defaults.hidden_size),
                intermediate_size=vision.get("intermediate_size", defaults.intermediate_size),
                num_hidden_layers=vision.get("depth", defaults.num_hidden_layers),
                num_attention_heads=vision.get("num_heads", defaults.num_attention_heads),
                window_size=vision.get("window_size", defaults.window_size),
                full_attention=tuple(vision.get("fullatt_block_indexes", defaults.full_attention)),
            ),
        )
    except KeyError as missing:
        raise CheckpointError(f"the decoder's config.json lacks {missing}") from None


def special_tokens(directory: Path) -> SpecialTokens:
    """The special ids that `tokenizer.json` states; Qwen's own where a directory has no tokenizer."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return SpecialTokens()
    added = {token["content"]: token["id"] for token in read_json(path)["added_tokens"]}
    try:
        return SpecialTokens.from_vocabulary(added)
    except KeyError as missing:
        raise CheckpointError(f"{path} lacks the special token {missing}") from None


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def sha256(path: Path) -> str:
    """64 hexadecimal digits of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def opened(path: Path, framework: str = "pt") -> Iterator[Any]:
    """`safe_open`; a missing or damaged file, or one without the tensor that is asked for, is a `CheckpointError`."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None


def _entry(data: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in data:
        raise CheckpointError(f"{path} lacks {key!r}")
    return data[key]
