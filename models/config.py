"""Sizes and preprocessing of every stage, as frozen dataclasses with presets. Imports no torch: the HTTP edge reads it.

A checkpoint's `config.json` holds `name`, `frames`, `encoder` and `selector`; the decoder's sizes live where
transformers keeps them, in `decoder/config.json`, and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from models.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Config:
    """Strict reading from JSON: an unknown key, and a missing one that has no default, is an error that names it."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(data.keys() - fields.keys())
        if unknown:
            raise CheckpointError(f"{cls.__name__}: unknown keys {unknown}; known: {sorted(fields)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise CheckpointError(f"{cls.__name__}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class FramesConfig(Config):
    """How a video becomes frames. Sizes in pixels of one frame; every side a multiple of `side_multiple`."""

    count: int = 32
    min_pixels: int = 3_136
    max_pixels: int = 230_400
    patch_size: int = 14
    spatial_merge: int = 2
    temporal_patch: int = 2

    @property
    def side_multiple(self) -> int:
        return self.patch_size * self.spatial_merge


@dataclass(frozen=True)
class EncoderConfig(Config):
    """π³'s per-image encoder: DINOv2 with registers. `image_size` is the side the position table was learnt at."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 518
    patch_size: int = 14
    num_register_tokens: int = 4
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD

    def as_released_in_gsm(self) -> Self:
        """The release un-normalises Qwen's pixels with a green mean that is 0.0002 too small (0.4576275 for 0.4578275)
        before it applies the ImageNet statistics; seen from the frames, that is a green mean 0.0002 larger."""
        red, green, blue = self.image_mean
        return dataclasses.replace(self, image_mean=(red, green + 0.4578275 - 0.4576275, blue))


@dataclass(frozen=True)
class SelectorConfig(Config):
    """Merger and two Q-Formers. Attention has the language model's shape, so that its RoPE sections fit.

    `position_dtype`: "float32", or "activation" for the released weights, which were trained with query and text
    positions rounded to the activations' dtype (in bfloat16 every position above 256 is).
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    feature_size: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    num_queries: int = 32
    tokens_per_second: int = 2
    spatial_merge: int = 2
    temporal_patch: int = 2
    position_dtype: Literal["float32", "activation"] = "float32"

    def __post_init__(self) -> None:
        if self.position_dtype not in ("float32", "activation"):
            raise CheckpointError(f"position_dtype is {self.position_dtype!r}, expected 'float32' or 'activation'")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class VisionConfig:
    """Qwen2.5-VL's vision tower. `window_size` in pixels; `full_attention` lists the blocks that see a whole frame."""

    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    window_size: int = 112
    full_attention: tuple[int, ...] = (7, 15, 23, 31)


@dataclass(frozen=True)
class DecoderConfig:
    """Qwen2.5-VL's language model and vision tower."""

    vocab_size: int = 152_064
    hidden_size: int = 3584
    intermediate_size: int = 18_944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tokens_per_second: int = 2
    max_position_embeddings: int = 128_000
    tie_word_embeddings: bool = False
    vision: VisionConfig = field(default_factory=VisionConfig)


@dataclass(frozen=True)
class ModelConfig:
    """A whole model. `encoder` and `selector` are None for a base model without geometry."""

    name: str
    frames: FramesConfig
    decoder: DecoderConfig
    encoder: EncoderConfig | None = None
    selector: SelectorConfig | None = None

    @classmethod
    def tiny(cls, vocab_size: int = 1280) -> Self:
        """The embedded checkpoint: every real part, small enough for a laptop and a git repository."""
        decoder = DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=192,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=3,
            num_key_value_heads=1,
            mrope_section=(8, 12, 12),
            # 10 s are positions 0 to 30: as far apart as the 32 queries, so a query can look for a time.
            tokens_per_second=3,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            vision=VisionConfig(128, 256, 4, 4, 112, (1, 3)),
        )
        encoder = EncoderConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=6, image_size=112)
        return cls._compose("dsr-tiny", FramesConfig(max_pixels=112 * 112), decoder, encoder)

    @classmethod
    def bench(cls, vocab_size: int = 1280) -> Self:
        """A few seconds per cold answer on two CPU cores (32 frames of 640x360), so that ratios mean something."""
        decoder = DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=1,
            mrope_section=(8, 12, 12),
            max_position_embeddings=32_768,
            vision=VisionConfig(128, 384, 6, 4, 112, (2, 5)),
        )
        encoder = EncoderConfig(hidden_size=128, num_hidden_layers=6, num_attention_heads=4, image_size=518)
        return cls._compose("dsr-bench", FramesConfig(), decoder, encoder)

    @classmethod
    def seven_b(cls) -> Self:
        """The published sizes: Qwen2.5-VL-7B, π³'s ViT-L, Q-Formers of the language model's shape."""
        return cls._compose("dsr-7b", FramesConfig(), DecoderConfig(), EncoderConfig())

    @classmethod
    def preset(cls, name: str) -> Self:
        presets = {"tiny": cls.tiny, "bench": cls.bench, "7b": cls.seven_b}
        if name not in presets:
            raise CheckpointError(f"unknown preset {name!r}; there are {sorted(presets)}")
        return presets[name]()

    @classmethod
    def _compose(cls, name: str, frames: FramesConfig, decoder: DecoderConfig, encoder: EncoderConfig) -> Self:
        return cls(name, frames, decoder, encoder, selector_like(decoder, encoder))


def selector_like(decoder: DecoderConfig, encoder: EncoderConfig, num_queries: int = 32) -> SelectorConfig:
    """The selector whose attention and MLP have the sizes of `decoder` and which reads the features of `encoder`."""
    return SelectorConfig(
        hidden_size=decoder.hidden_size,
        intermediate_size=decoder.intermediate_size,
        num_attention_heads=decoder.num_attention_heads,
        num_key_value_heads=decoder.num_key_value_heads,
        feature_size=encoder.hidden_size,
        mrope_section=decoder.mrope_section,
        rope_theta=decoder.rope_theta,
        rms_norm_eps=decoder.rms_norm_eps,
        num_queries=num_queries,
        tokens_per_second=decoder.tokens_per_second,
    )
