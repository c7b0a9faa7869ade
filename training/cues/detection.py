"""Boxes of named things by Grounding DINO (arXiv 2303.05499), from transformers.

Its pictures are prepared here, as its processor does: transformers' own needs torchvision, which we do not.

Legend: K pictures, Q queries, L tokens of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import AutoTokenizer, GroundingDinoForObjectDetection

from models.checkpoint import locate
from models.config import IMAGENET_MEAN, IMAGENET_STD
from training.cues.estimators import Boxes, Facts, Footage, Names
from training.cues.weights import load_strict

SHORTEST, LONGEST = 800, 1333  # pixels: what it was trained with


@dataclass(frozen=True)
class GroundingDino:
    """`batch`: pictures at a time. `shortest`, `longest`: sides of a picture, the aspect is kept."""

    model: Any
    tokenizer: Any
    facts: Facts
    batch: int = 4
    shortest: int = SHORTEST
    longest: int = LONGEST

    @classmethod
    def load(cls, location: str | Path, device: str) -> GroundingDino:
        """CheckpointError when the directory or hub id is no Grounding DINO."""
        model, facts = load_strict(GroundingDinoForObjectDetection, location, device, torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(locate(location), local_files_only=True)
        return cls(model, tokenizer, {"kind": "grounding-dino", **facts})

    @torch.inference_mode()
    def __call__(self, footage: Footage, frames: Sequence[int], names: Names) -> list[Boxes]:
        """The name of a box is the one whose tokens fit best; its score is that of the best of these."""
        pictures = self._prepared(footage.frames[list(frames)])
        height, width = footage.frames.shape[1:3]
        parts: list[list[Boxes]] = [[] for _ in frames]
        for some in self._texts(names.all):
            for start in range(0, len(pictures), self.batch):
                found = self._boxes(pictures[start : start + self.batch], some, width, height)
                for place, boxes in enumerate(found, start):
                    parts[place].append(boxes)
        return [_joined(part) for part in parts]

    def _prepared(self, frames: np.ndarray) -> Tensor:
        """uint8 [K, H, W, 3] -> normalised [K, 3, h, w]."""
        height, width = frames.shape[1:3]
        scale = min(self.shortest / min(height, width), self.longest / max(height, width))
        size = round(height * scale), round(width * scale)
        images = rearrange(torch.from_numpy(frames), "k h w c -> k c h w").float() / 255
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (images - mean) / std

    def _texts(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """As many names at a time as the model's text holds."""
        some: list[str] = []
        for name in names:
            if some and len(self.tokenizer(_text([*some, name]))["input_ids"]) > self.model.config.max_text_len:
                yield tuple(some)
                some = []
            some.append(name)
        if some:
            yield tuple(some)

    def _boxes(self, pictures: Tensor, names: Sequence[str], width: int, height: int) -> list[Boxes]:
        told = self.tokenizer([_text(names)] * len(pictures), return_tensors="pt", return_offsets_mapping=True)
        offsets = told.pop("offset_mapping")[0].tolist()
        device = self.model.device
        out = self.model(pixel_values=pictures.to(device), **{key: value.to(device) for key, value in told.items()})
        scores = out.logits.float().sigmoid()[..., : len(offsets)]
        of_names = torch.stack([scores[..., own].amax(dim=-1) for own in _tokens(names, offsets)], dim=-1)
        best, which = (tensor.cpu().numpy() for tensor in of_names.max(dim=-1))
        middle, size = (part.double().cpu().numpy() for part in out.pred_boxes.split(2, dim=-1))
        corners = np.concatenate([middle - size / 2, middle + size / 2], axis=-1).clip(0, 1)
        corners *= np.array([width, height, width, height])
        return [
            Boxes(boxes, score.astype(np.float64), tuple(names[n] for n in name))
            for boxes, score, name in zip(corners, best, which, strict=True)
        ]


def _text(names: Sequence[str]) -> str:
    """Lower case, each name ended by a full stop: that is how the model tells one from the next."""
    return " ".join(f"{name.lower()}." for name in names)


def _tokens(names: Sequence[str], offsets: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Of each name the places of its tokens, without the full stop. ValueError for a name without any."""
    ends = np.cumsum([0, *(len(name) + 2 for name in names)]).tolist()  # the full stop and the space
    for name, (start, end) in zip(names, pairwise(ends), strict=True):
        own = [n for n, (left, right) in enumerate(offsets) if start <= left < right <= end - 2]
        if not own:
            raise ValueError(f"the detector's tokenizer has no token for the name {name!r}")
        yield own


def _joined(parts: Sequence[Boxes]) -> Boxes:
    if not parts:
        return Boxes(np.zeros((0, 4)), np.zeros(0), ())
    boxes, scores = (np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores"))
    return Boxes(boxes, scores, tuple(name for part in parts for name in part.names))
