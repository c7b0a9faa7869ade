"""From what π³ says of every pixel to a scene that can be kept and shown: cameras, and the points that are good.

Legend: F frames, H x W pixels, K kept points. Axes as in OpenCV; the scale is free, as π³'s is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from models.pi3 import Reconstruction

MIN_CONFIDENCE = 0.1
"""Probability below which a point is none: what the authors of π³ show."""

MAX_STEP = 0.03
"""Of its depth: how much the depth may change around a pixel. Beyond it the pixel mixes two surfaces, and its point
hangs in the air between them."""


@dataclass(frozen=True)
class Scene:
    """The world is the first frame's camera. Every prefix of the points is an even sample of all that are good."""

    poses: Tensor
    """float32 [F, 4, 4] camera to world; the first is the identity."""
    confidence: Tensor
    """float32 [F]: mean over the frame's pixels of the probability that their points are good."""
    points: Tensor
    """float32 [K, 3]."""
    colors: Tensor
    """uint8 [K, 3] RGB."""
    frames: Tensor
    """int64 [K]: the frame that a point was seen in."""
    certainty: Tensor
    """float32 [K]: the probability that the point is good."""
    good: int
    """How many of the F * H * W pixels have a good point; K of them are kept."""


def scene_of(
    found: Reconstruction,
    frames: Tensor,
    most: int,
    min_confidence: float = MIN_CONFIDENCE,
    max_step: float = MAX_STEP,
) -> Scene:
    """`found` has one scene (B = 1) of `frames`, uint8 [F, H, W, 3]; K is at most `most`. The same arguments give the
    same scene."""
    depth = found.local_points[0, ..., 2]
    certainty = found.confidence[0].sigmoid()
    good = (certainty >= min_confidence) & ~is_edge(depth, max_step) & found.local_points[0].isfinite().all(-1)
    chosen = even_sample(good, most)
    frame, row, column = chosen.unbind(-1)
    poses = from_first(found.camera_poses[0])
    local = found.local_points[0][frame, row, column]
    turned = torch.einsum("kij,kj->ki", poses[frame, :3, :3], local)
    on_cpu = chosen.cpu().unbind(-1)
    return Scene(
        poses=poses,
        confidence=reduce(certainty, "f h w -> f", "mean"),
        points=turned + poses[frame, :3, 3],
        colors=frames[on_cpu],
        frames=frame,
        certainty=certainty[frame, row, column],
        good=int(good.sum()),
    )


def is_edge(depth: Tensor, max_step: float) -> Tensor:
    """[F, H, W] -> bool: within the 3 x 3 pixels around it, the depth changes by more than `max_step` of itself."""
    maps = rearrange(depth, "f h w -> f 1 h w")
    farthest = F.max_pool2d(maps, 3, stride=1, padding=1)
    nearest = -F.max_pool2d(-maps, 3, stride=1, padding=1)
    return rearrange(farthest - nearest > max_step * maps, "f 1 h w -> f h w")


def even_sample(good: Tensor, most: int) -> Tensor:
    """Bool [F, H, W] -> int64 [K, 3] places that are good, in an order drawn once and for all, `most` at most."""
    places = good.nonzero()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:most]
    return places[order.to(places.device)]


def from_first(poses: Tensor) -> Tensor:
    """[F, 4, 4] poses in any world -> in that of the first camera. A rigid inverse: rounding leaves rotations alone."""
    rotation, centre = poses[0, :3, :3], poses[0, :3, 3]
    moved = poses.clone()
    moved[:, :3, :3] = rotation.T @ poses[:, :3, :3]
    moved[:, :3, 3] = (poses[:, :3, 3] - centre) @ rotation
    moved[0] = torch.eye(4, device=poses.device)
    return moved
