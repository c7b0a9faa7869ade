"""π³'s own lesson: points, poses and confidence, up to one scale per scene (arXiv 2507.13347, section 3.3).

Legend: B scenes, N images of a scene, H, W sides in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from models.pi3 import Reconstruction
from training.loop.task import Metrics, Number

GOOD = 0.1  # of its depth: a point that is off by less is one to be confident of
POSE, CONFIDENCE = 0.3, 0.05  # weights beside the points'
HUBER = 0.1
FARTHEST = 40.0  # metres: what lies beyond is taught as lying there


def lesson(found: Reconstruction, points: Tensor, valid: Tensor, poses: Tensor) -> tuple[Tensor, Metrics]:
    """The mean loss and what to log: name -> (sum, count).

    `points` [B, N, H, W, 3] metres in each camera's axes, `valid` [B, N, H, W], `poses` [B, N, 4, 4] camera to world.
    """
    # In bfloat16 the cosine of a small angle is one, where the slope of the angle is endless.
    with torch.autocast(points.device.type, enabled=False):
        return _lesson(found, points, valid, poses)


def _lesson(found: Reconstruction, points: Tensor, valid: Tensor, poses: Tensor) -> tuple[Tensor, Metrics]:
    far = points[..., 2:].clamp(min=0.3)
    points = points * (FARTHEST / far).clamp(max=1.0)
    weight = valid / far.clamp(max=FARTHEST).squeeze(-1)
    scale = _scale(found.local_points.detach(), points, weight)
    error = (found.local_points * scale - points).abs().sum(-1) * weight
    count = valid.sum().clamp(min=1)
    good = (error.detach() < GOOD).float()
    unsure = F.binary_cross_entropy_with_logits(found.confidence, good, reduction="none")
    turned, moved = _pose_errors(found.camera_poses, poses, scale[:, 0, 0, 0, 0])
    placed = error.sum() / count
    loss = placed + POSE * (turned + moved) + CONFIDENCE * (unsure * valid).sum() / count
    sure = ((found.confidence > 0) == (good > 0)) & valid
    metrics: dict[str, tuple[Number, Number]] = {
        "point_error": (error.detach().sum(), count),
        "turn_rad": (turned.detach() * len(points), len(points)),
        "move_m": (moved.detach() * len(points), len(points)),
        "confident": (sure.sum(), count),
    }
    return loss, metrics


def _scale(found: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    """[B, 1, 1, 1, 1]: what brings the found points nearest to the true ones, by weighted least squares."""
    square = weight.square()[..., None]
    top = reduce(square * found * points, "b n h w c -> b 1 1 1 1", "sum")
    bottom = reduce(square * found * found, "b n h w c -> b 1 1 1 1", "sum")
    return (top / bottom.clamp(min=1e-8)).clamp(1e-3, 1e3)


def _pose_errors(found: Tensor, poses: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean angle in radians and mean Huber loss of the moves in metres between all pairs of images."""
    (turn, move), (true_turn, true_move) = _between(found), _between(poses)
    trace = (turn * true_turn).sum((-2, -1))
    # The angle's own derivative is endless at zero and at π.
    angle = torch.acos(((trace - 1) / 2).clamp(-1 + 1e-4, 1 - 1e-4))
    apart = F.huber_loss(move * scale[:, None, None, None], true_move, reduction="none", delta=HUBER).sum(-1)
    pairs = 1 - torch.eye(poses.shape[1], device=poses.device)
    count = len(poses) * poses.shape[1] * (poses.shape[1] - 1)
    return (angle * pairs).sum() / count, (apart * pairs).sum() / count


def _between(poses: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations [B, N, N, 3, 3] and moves [B, N, N, 3] of the second camera in the axes of the first."""
    rotation, place = poses[..., :3, :3], poses[..., :3, 3]
    back = rotation.transpose(-1, -2)[:, :, None]
    turn = back @ rotation[:, None]
    move = (back @ (place[:, None] - place[:, :, None])[..., None]).squeeze(-1)
    return turn, move
