"""Where agents face, by Orient Anything (arXiv 2412.18605): DINOv2 and two layers over its class token.

The published file is a torch state dict, `dino_weight.pt` (hub `Viglong/Orient-Anything`, folder `croplargeEX2`). Its
keys, as the release's code makes them with transformers 4: `dinov2.*` are those of `Dinov2Model`, attention as
`attention.attention.{query,key,value}` and `attention.output.dense`; `down_sampler.net1.0`, `.net2.0` are linear,
`down_sampler.net1.1`, `.net2.1` batch norms. Between the two stands a ReLU. No published file was at hand: names and
shapes come from that code, and loading refuses any other.

722 numbers come out: 360 of azimuth, 180 of polar angle + 90, 180 of rotation + 90, and 2 of which the first is the
confidence. As the release draws them: at azimuth 0 a thing faces the camera, at 90 it faces left in the picture; the
polar angle is how high the camera stands above it; the rotation turns the picture counterclockwise.

Legend: F frames, N things, B crops, S side of a crop in pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from models.config import IMAGENET_MEAN, IMAGENET_STD
from models.errors import CheckpointError
from models.strict import assign
from training.cues.estimators import Facts, Footage, Orientations
from training.cues.measure import boxes_of
from training.cues.weights import facts_of
from training.questions.cues import BoolArray, FloatArray

BINS = (360, 180, 180, 2)  # azimuth, polar, rotation, confidence
SIDE, RESIZED = 224, 256  # pixels: the shorter side is resized to 256, the middle is cut out
MARGIN = 0.1  # of the box on every side: the whole thing and a little of where it stands
WEIGHTS = "dino_weight.pt"
# transformers 5 names DINOv2's attention otherwise than the release's file.
RENAMED = (
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", lambda m: ".attention.o_proj."),
)


class Head(nn.Module):
    """[B, D] -> [B, 722]. The names are the release's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        out = sum(BINS)
        self.net1 = nn.Sequential(nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU())
        self.net2 = nn.Sequential(nn.Linear(out, out), nn.BatchNorm1d(out))

    def forward(self, x: Tensor) -> Tensor:
        return self.net2(self.net1(x))


class OrientAnything(nn.Module):
    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.dinov2 = Dinov2Model(config)
        self.down_sampler = Head(config.hidden_size)

    @classmethod
    def published(cls) -> OrientAnything:
        """On DINOv2-large: 306 M parameters, uninitialised."""
        config = Dinov2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518)
        with torch.device("meta"):
            return cls(config)

    def forward(self, crops: Tensor) -> Tensor:
        """Normalised [B, 3, S, S] -> [B, 722]."""
        return self.down_sampler(self.dinov2(pixel_values=crops).last_hidden_state[:, 0])

    def fill(self, tensors: dict[str, Tensor], where: str) -> None:
        """All tensors of the published layout, and no others. CheckpointError names what does not fit."""
        assign(self, {_renamed(key): value for key, value in tensors.items()}, where)


@dataclass(frozen=True)
class OrientAnythingOrienter:
    """`batch`: crops at a time."""

    model: OrientAnything
    facts: Facts
    batch: int = 64

    @classmethod
    def load(cls, location: str | Path, device: str) -> OrientAnythingOrienter:
        """From a directory with `dino_weight.pt`, or such a file. CheckpointError for another layout."""
        path = Path(location).expanduser()
        file = path / WEIGHTS if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(f"{location}: there is no {WEIGHTS}")
        tensors: Any = torch.load(file, map_location="cpu", weights_only=True)
        model = OrientAnything.published()
        model.fill(tensors, str(file))
        facts = {"kind": "orient-anything", **facts_of(location, file)}
        return cls(model.to(device).eval().requires_grad_(False), facts)

    @torch.inference_mode()
    def __call__(self, footage: Footage, masks: BoolArray, rays: FloatArray) -> Orientations:
        boxes = boxes_of(masks)
        known = np.isfinite(boxes).all(axis=2) & np.isfinite(rays).all(axis=2)
        which = np.argwhere(known)
        forward, up = np.full(rays.shape, np.nan), np.full(rays.shape, np.nan)
        confidence = np.zeros(rays.shape[:2])
        device = next(self.model.parameters()).device
        for start in range(0, len(which), self.batch):
            some = which[start : start + self.batch]
            crops = torch.stack([crop(footage.frames[frame], boxes[thing, frame]) for thing, frame in some])
            angles, sure = read(self.model(crops.to(device)).float().cpu())
            things, frames = some.T
            axes = along(rays[things, frames]) @ axes_of(angles)
            forward[things, frames], up[things, frames] = axes[..., 0], axes[..., 1]
            confidence[things, frames] = sure
        return Orientations(forward, up, confidence)


def crop(frame: np.ndarray, box: FloatArray) -> Tensor:
    """uint8 [H, W, 3] and left, top, right, bottom -> normalised [3, 224, 224]: a square around the box.

    What a square has outside the frame is black, so that a thing keeps its shape.
    """
    middle, side = (box[:2] + box[2:]) / 2, max(float((box[2:] - box[:2]).max()) * (1 + 2 * MARGIN), 2.0)
    left, top = np.floor(middle - side / 2).astype(int)
    right, bottom = np.ceil(middle + side / 2).astype(int)
    square = np.zeros((bottom - top, right - left, 3), np.uint8)
    inside = frame[max(top, 0) : bottom, max(left, 0) : right]
    row, column = max(-top, 0), max(-left, 0)
    square[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    image = rearrange(torch.from_numpy(square), "h w c -> 1 c h w").float() / 255
    image = F.interpolate(image, (RESIZED, RESIZED), mode="bicubic", antialias=True)[0].clamp(0, 1)
    cut = (RESIZED - SIDE) // 2
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image[:, cut : cut + SIDE, cut : cut + SIDE] - mean) / std


def read(out: Tensor) -> tuple[FloatArray, FloatArray]:
    """[B, 722] -> azimuth, polar angle and rotation [B, 3] in degrees, and confidence [B]."""
    azimuth, polar, rotation, sure = torch.split(out, list(BINS), dim=1)
    angles = torch.stack([azimuth.argmax(1), polar.argmax(1) - 90, rotation.argmax(1) - 90], dim=1)
    return angles.double().numpy(), sure.softmax(dim=1)[:, 0].double().numpy()


def axes_of(angles: FloatArray) -> FloatArray:
    """[B, 3] degrees -> [B, 3, 2] columns forward and up of the thing, for a camera that looks straight at it."""
    azimuth, polar, rotation = np.radians(angles).T
    sine, cosine = np.sin(polar), np.cos(polar)
    forward = np.stack([-np.sin(azimuth), np.cos(azimuth) * sine, -np.cos(azimuth) * cosine], axis=1)
    up = np.stack([np.zeros_like(sine), -cosine, -sine], axis=1)
    axes = np.stack([forward, up], axis=2)
    # Counterclockwise as seen, where y is down.
    turned = axes.copy()
    c, s = np.cos(rotation)[:, None], np.sin(rotation)[:, None]
    turned[:, 0], turned[:, 1] = c * axes[:, 0] + s * axes[:, 1], -s * axes[:, 0] + c * axes[:, 1]
    return turned


def along(rays: FloatArray) -> FloatArray:
    """[B, 3] unit vectors -> [B, 3, 3] the smallest rotations of the optical axis onto them.

    A crop shows a thing as a camera sees it that looks straight at it; the angles are in that camera's axes.
    """
    x, y, z = rays.T
    over = 1 / (1 + z)  # a thing is before its camera, z > 0
    return np.stack([
        np.stack([1 - x * x * over, -x * y * over, x], axis=1),
        np.stack([-x * y * over, 1 - y * y * over, y], axis=1),
        np.stack([-x, -y, z], axis=1),
    ], axis=1)  # fmt: skip


def _renamed(key: str) -> str:
    for pattern, name in RENAMED:
        key = re.sub(pattern, name, key)
    return key
