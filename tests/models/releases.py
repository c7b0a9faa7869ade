"""Writing weights in the released layout: in one file, or in shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from models.layout import Layout, recognise

ENCODER, SELECTOR = "visual.spatial_encoder.", ("visual.spatial_merger.", "visual.q_former_")

Weights = dict[str, Tensor]


def stage_of(key: str) -> str:
    """The stage that a tensor of the release belongs to."""
    return "encoder" if key.startswith(ENCODER) else "selector" if key.startswith(SELECTOR) else "decoder"


def save(weights: Weights, directory: Path) -> Layout:
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return recognise(directory)


def shard(weights: Mapping[str, Tensor], directory: Path, part: Callable[[str], str]) -> None:
    """Writes the weights in one file per part, with the index of the hub's layout."""
    index = {key: f"model-{part(key)}.safetensors" for key in weights}
    for name in set(index.values()):
        save_file({k: v for k, v in weights.items() if index[k] == name}, directory / name, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
