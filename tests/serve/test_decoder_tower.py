"""The decoder stage computes with the faster tower, or does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch

from models import tower
from models.parity import TOLERANCE
from serve.decoder import Decoder
from serve.settings import DecoderStage

TINY = "models/tiny"


def stage(dtype: Literal["float32", "bfloat16"] = "float32") -> Decoder:
    return Decoder(DecoderStage(threads=1, dtype=dtype), str(Path(TINY).resolve()), cast(Any, None), None)


def test_the_stage_has_the_faster_tower() -> None:
    visual = stage()._decoder.model.model.visual
    assert visual.config._attn_implementation == tower.NAME
    assert isinstance(visual.patch_embed, tower.PatchEmbed)


def test_the_stage_starts_in_bfloat16() -> None:
    assert stage("bfloat16")._decoder.embeddings.dtype == torch.bfloat16


def test_a_stage_whose_tower_computes_something_else_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCE, torch.float32, -1.0)
    with pytest.raises(RuntimeError, match="faster vision tower deviates"):
        stage()
