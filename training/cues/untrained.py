"""All estimators at tiny sizes with random weights: the real code runs, what it finds means nothing.

For tests and for trying the command where no weights are.
"""

from __future__ import annotations

import re

import torch
from transformers import (
    BertTokenizer,
    Dinov2Config,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2VideoConfig,
    Sam2VideoModel,
)

from models.config import EncoderConfig
from models.pi3 import FusionConfig, HeadsConfig, Pi3, Pi3Config
from training.cues.detection import GroundingDino
from training.cues.estimators import Estimators, Facts, Namer
from training.cues.geometry import Pi3Geometer
from training.cues.masks import Sam2Tracker
from training.cues.names import AGENTS, OBJECTS, Listed
from training.cues.orientation import OrientAnything, OrientAnythingOrienter

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""Grounding DINO knows the ids of these by heart."""
SIDE = 64  # pixels of SAM's pictures


def untrained(namer: Namer | None = None, seed: int = 0, device: str = "cpu") -> Estimators:
    """The same weights for the same seed."""
    facts: Facts = {"kind": "untrained", "seed": seed}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        geometer, detector, tracker, orienter = pi3(), grounding_dino(), sam2(), orient_anything()
    for model in (geometer, detector, tracker, orienter):
        model.to(device).eval().requires_grad_(False)
    return Estimators(
        namer=namer or Listed(),
        geometer=Pi3Geometer(geometer, facts),
        detector=GroundingDino(detector, tokenizer(), facts, shortest=64, longest=128),
        tracker=Sam2Tracker(tracker, facts),
        orienter=OrientAnythingOrienter(orienter, facts),
    )


def pi3() -> Pi3:
    return Pi3(Pi3Config(EncoderConfig(32, 1, 2, 56), FusionConfig(32, 2, 2), HeadsConfig(32, 2, 1, 16)))


def tokenizer(names: tuple[str, ...] = (*AGENTS, *OBJECTS)) -> BertTokenizer:
    """Whole words of the names; every other word is unknown."""
    words = sorted({word for name in names for word in re.findall(r"\w+", name)})
    free = [f"[unused{number}]" for number in range(1030)]
    vocabulary = {token: number for number, token in enumerate(free) if number not in SPECIAL.values()} | SPECIAL
    vocabulary |= {word: 1030 + number for number, word in enumerate(words)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def grounding_dino() -> GroundingDinoForObjectDetection:
    backbone = {
        "model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
        "image_size": 64, "out_indices": [2, 3, 4],
    }  # fmt: skip
    text = {
        "model_type": "bert", "vocab_size": 1200, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 256,
    }  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, num_queries=20, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    )  # fmt: skip
    return GroundingDinoForObjectDetection(config)


def sam2() -> Sam2VideoModel:
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 2, 4, 2],
        "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 128,
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )
    return Sam2VideoModel(config)


def orient_anything() -> OrientAnything:
    return OrientAnything(Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=56))
