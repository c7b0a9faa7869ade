"""The light and the colours of scenes as tensors, and the colour of objects. Colours are linear until `encoded`.

Legend: S scenes, B frames, N samples of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from training.scenes.batch import Instances
from training.scenes.scene import Scene
from training.scenes.solids import Vector, normals

BAND = 0.4  # of the height of a wave: above it is the other colour, so that an object's own colour prevails


@dataclass(frozen=True)
class Looks:
    """`Look` of every scene, or of every frame: colours and `sun` [S, 3], numbers [S], `waves` [S, 4].

    `shades` [S, 1, TABLE + 1, TABLE + 1]: tiles with the checkerboard in them, the first row and column repeated.
    """

    sun: Tensor
    sunlight: Tensor
    skylight: Tensor
    dark: Tensor
    light: Tensor
    tile: Tensor
    soft: Tensor
    zenith: Tensor
    horizon: Tensor
    hills: Tensor
    waves: Tensor
    shades: Tensor

    @classmethod
    def of(cls, scenes: Sequence[Scene], device: torch.device | str) -> Self:
        names = [field.name for field in fields(cls) if field.name != "shades"]
        values = [np.asarray([getattr(scene.look, name) for scene in scenes], np.float32) for name in names]
        shades = np.stack([_checkered(scene) for scene in scenes])[:, None]
        return cls(*(torch.from_numpy(value).to(device) for value in (*values, shades)))

    def __getitem__(self, rows: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


def _checkered(scene: Scene) -> np.ndarray:
    look = scene.look
    board = np.indices(look.shades.shape).sum(axis=0) % 2
    shades = (1 - look.checker) * look.shades + look.checker * board
    return np.pad(shades, (0, 1), mode="wrap").astype(np.float32)


def objects(parts: Instances, instance: Tensor, looks: Looks, point: Vector) -> Tensor:
    """[3, N] seen of instances [N] at points in their unit space; `looks` has a row per frame."""
    shape, taper = parts.shape[instance], parts.taper[instance]
    x, y, z = normals(shape, point, taper)
    ix, iy, iz = _each(parts.inverse, instance)
    # In the world a normal is the transposed map to unit space, times it: this is one over its length there.
    length = torch.rsqrt((x * ix) ** 2 + (y * iy) ** 2 + (z * iz) ** 2)
    sx, sy, sz = _each(parts.sun, instance)
    ux, uy, uz = _each(parts.up, instance)
    towards_sun = ((x * sx + y * sy + z * sz) * length).clamp_min(0)
    upwards = (x * ux + y * uy + z * uz) * length
    colour = _painted(parts, instance, point)
    frame = parts.frame[instance]
    sky, sun = looks.skylight.T.index_select(1, frame), looks.sunlight.T.index_select(1, frame)
    return colour * (sky * (0.75 + 0.25 * upwards) + sun * towards_sun)


def encoded(linear: Tensor) -> Tensor:
    """Linear light to uint8 with a gamma of 2, which is close to sRGB and cheap."""
    return torch.sqrt(linear.clamp(0, 1)).mul_(255).add_(0.5).to(torch.uint8)


def _painted(parts: Instances, instance: Tensor, point: Vector) -> Tensor:
    paint = parts.paint.index_select(1, instance)
    along = paint[6] * point[0] + paint[7] * point[1] + paint[8] * point[2]
    offset, bands = paint[9], paint[10]
    other = torch.where(bands > 0, torch.sin(bands * along + offset) > BAND, along > offset)
    return torch.where(other, paint[3:6], paint[:3])


def _each(vectors: Tensor, instance: Tensor) -> tuple[Tensor, ...]:
    return vectors.index_select(1, instance).unbind(0)
