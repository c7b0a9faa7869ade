"""Scenes as flat tables on a device: a row for every frame, and one for every part in every frame.

A part is intersected in its own unit space, where it is a sphere, a cube or a frustum of radius 1. An affine map keeps
the parameter of a ray, and rays here have depth 1 in the camera, so that parameter is the depth in metres.

Legend: S scenes, B frames of all scenes, I instances (a part in a frame), P parts of one scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.questions.cues import FloatArray
from training.scenes.scene import Scene

NEAR = 0.05  # metres: what is nearer than this to the camera's plane is not projected
CORNERS = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8)
LEAST_ROLL = 1e-6  # sine of the angle: rows of pixels are taken to be level
NOWHERE = np.array([0, 0, 0, 0])


@dataclass(frozen=True)
class Instances:
    """Sorted by frame; the last axis of every table is I, because a component at a time is what is read.

    `eye` [3, I] is the camera in unit space; `ray` [9, I], a matrix row by row, maps (column, row, 1) to a ray there.
    `sun`, `up` [3, I]: those world directions there. `inverse` [3, I]: one over the half sizes. `paint` [11, I]:
    colour, other colour, plane, offset, bands. `box`, `shade` [4, I]: left, top, right, bottom in whole pixels, the
    last two exclusive, of what can show the part and its shadow; empty when nothing can. `body` starts at 1.
    """

    frame: Tensor
    shape: Tensor
    body: Tensor
    taper: Tensor
    eye: Tensor
    ray: Tensor
    sun: Tensor
    up: Tensor
    inverse: Tensor
    paint: Tensor
    box: Tensor
    shade: Tensor

    def of_frames(self, start: int, end: int) -> Instances:
        """Those of the frames in [start, end), which are counted from `start` then."""
        bounds = torch.tensor([start, end], device=self.frame.device)
        first, last = torch.searchsorted(self.frame, bounds).tolist()
        cut = Instances(*(getattr(self, field.name)[..., first:last] for field in fields(self)))
        return replace(cut, frame=cut.frame - start)


@dataclass(frozen=True)
class Views:
    """A row per frame. `eye` [B, 3] world; `ray` [B, 3, 3] maps (column, row, 1) to a world ray of depth 1.

    `scene` [B] counts the scenes of the batch.
    """

    scene: Tensor
    eye: Tensor
    ray: Tensor
    focal: Tensor

    def __getitem__(self, rows: slice) -> Views:
        return Views(self.scene[rows], self.eye[rows], self.ray[rows], self.focal[rows])


def instances(scenes: Sequence[Scene], device: torch.device | str) -> Instances:
    tables = [_instances(scene, index * len(scene.times)) for index, scene in enumerate(scenes)]
    return Instances(
        *(
            torch.from_numpy(np.concatenate(column, axis=-1)).to(device, non_blocking=True)
            for column in zip(*tables, strict=True)
        )
    )


def views(scenes: Sequence[Scene], device: torch.device | str) -> Views:
    frames = len(scenes[0].times)
    for scene in scenes:
        if np.abs(scene.camera_to_world[:, 2, 0]).max() > LEAST_ROLL:
            raise ValueError(f"{scene.video}: the camera rolls; its x axis must be horizontal")
    poses = np.concatenate([scene.camera_to_world for scene in scenes])
    rays = np.concatenate([scene.camera_to_world[:, :3, :3] @ np.linalg.inv(scene.intrinsics) for scene in scenes])
    return Views(
        torch.arange(len(scenes), device=device).repeat_interleave(frames),
        _floats(poses[:, :3, 3], device),
        _floats(rays, device),
        _floats(np.repeat([scene.focal for scene in scenes], frames), device),
    )


def _floats(values: FloatArray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)


def _instances(scene: Scene, first: int) -> tuple[np.ndarray, ...]:
    """The columns of `Instances` for one scene whose first frame has the number `first`."""
    parts = [(number, body, part) for number, body in enumerate(scene.bodies, 1) for part in body.parts]
    frames, count = len(scene.times), len(parts)
    # The frustum's own axis is z: a cyclic exchange of axes brings it there, for every shape alike.
    orders = np.array([np.roll([0, 1, 2], 2 - part.axis) for _, _, part in parts])
    half = np.take_along_axis(np.array([part.half for _, _, part in parts]), orders, axis=1)
    plane = np.take_along_axis(np.array([part.plane for _, _, part in parts], float), orders, axis=1)
    turned = np.stack([body.axes[:, :, order] for (_, body, _), order in zip(parts, orders, strict=True)], axis=1)
    centres = np.stack([body.centres + body.axes @ part.centre for _, body, part in parts], axis=1)
    to_unit = np.swapaxes(turned, 2, 3) / half[:, :, None]
    poses = scene.camera_to_world[:, None]
    corners = centres[..., None] + turned @ (half[:, :, None] * CORNERS)
    boxes = _bounds(scene, corners)
    sun = scene.look.sun
    shades = _bounds(scene, corners - sun[:, None] * (corners[:, :, 2:] / sun[2]))
    shades[:, [not part.shadow for _, _, part in parts]] = NOWHERE
    paint = np.array([(*p.colour, *p.other, *v, p.offset, p.bands) for (_, _, p), v in zip(parts, plane, strict=True)])

    def each(values: Any, dtype: type) -> np.ndarray:
        """[P, ...] to [..., F * P]"""
        return np.tile(np.asarray(values, dtype).T, frames)

    def flat(values: FloatArray, dtype: type = np.float32) -> np.ndarray:
        """[F, P, ...] to [..., F * P]"""
        return np.ascontiguousarray(values.reshape(frames * count, -1).T, dtype)

    return (
        np.repeat(np.arange(first, first + frames), count),
        each([part.shape for _, _, part in parts], np.int64),
        each([number for number, _, _ in parts], np.int64),
        each([part.taper for _, _, part in parts], np.float32),
        flat((to_unit @ (poses[..., :3, 3] - centres)[..., None])[..., 0]),
        flat(to_unit @ poses[..., :3, :3] @ np.linalg.inv(scene.intrinsics)),
        flat(to_unit @ sun),
        flat(to_unit[..., 2]),
        each(1 / half, np.float32),
        each(paint, np.float32),
        flat(boxes, np.int64),
        flat(shades, np.int64),
    )


def _bounds(scene: Scene, corners: FloatArray) -> FloatArray:
    """[F, P, 3, 8] world -> [F, P, 4] the pixels that can show what lies between the corners.

    All of them when that reaches the plane of the eye, none when it lies behind.
    """
    width, height = scene.config.size
    world_to_pixels = scene.intrinsics @ np.swapaxes(scene.camera_to_world[:, :3, :3], 1, 2)
    x, y, z = np.moveaxis(world_to_pixels[:, None] @ (corners - scene.camera_to_world[:, None, :3, 3:]), 2, 0)
    ahead = np.maximum(z, NEAR)
    columns, rows = x / ahead, y / ahead
    bounds = np.stack([columns.min(-1), rows.min(-1), columns.max(-1), rows.max(-1)], axis=-1)
    bounds[(z < NEAR).any(-1)] = (0, 0, width, height)
    bounds = np.clip(
        np.concatenate([np.floor(bounds[..., :2]), np.ceil(bounds[..., 2:])], axis=-1), 0, [width, height] * 2
    )
    bounds[(z < NEAR).all(-1)] = NOWHERE
    return bounds
