"""Which part every pixel sees: work lists of (part, tile of pixels), intersected at once and reduced to the nearest.

Legend: I instances, R rows of a work list, K samples of a row, G groups of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from training.scenes.batch import Instances
from training.scenes.parts import Shape
from training.scenes.solids import MISS, Vector, depths

TILE = 4  # pixels a side


@dataclass(frozen=True)
class Raster:
    """`frames` pictures of `width` x `height` pixels, in tiles. Both sides are multiples of `TILE`."""

    frames: int
    width: int
    height: int

    @property
    def across(self) -> int:
        return self.width // TILE

    @property
    def down(self) -> int:
        return self.height // TILE

    @property
    def tiles(self) -> int:
        return self.frames * self.across * self.down

    def tiled(self, images: Tensor) -> Tensor:
        """[B, H, W] to [tiles, K]"""
        return rearrange(images, "b (th y) (tw x) -> (b th tw) (y x)", y=TILE, x=TILE)

    def images(self, tiles: Tensor) -> Tensor:
        """[tiles, K] to [B, H, W]"""
        return rearrange(tiles, "(b th tw) (y x) -> b (th y) (tw x)", th=self.down, tw=self.across, y=TILE, x=TILE)


@dataclass(frozen=True)
class Work:
    """Rows of (instance, tile): `instance`, `tile`, and the tile's first `column` and `row` in pixels, each [R]."""

    instance: Tensor
    tile: Tensor
    column: Tensor
    row: Tensor

    def __getitem__(self, rows: Tensor) -> Work:
        return Work(self.instance[rows], self.tile[rows], self.column[rows], self.row[rows])


@dataclass(frozen=True)
class Nearest:
    """For every group that has rows: its `key` [G], `depth` [G, K] of the nearest, infinite for none, and `of` [G, K],
    the label of the row that it came from."""

    key: Tensor
    depth: Tensor
    of: Tensor


def work(boxes: Tensor, frames: Tensor, raster: Raster) -> Work:
    """Every tile that a box touches. `boxes` [4, I] in pixels, `frames` [I] counted from the raster's first."""
    left, top = boxes[:2] // TILE
    right, bottom = (boxes[2:] - 1) // TILE
    wide, high = right - left + 1, bottom - top + 1
    count = torch.where((boxes[2] > boxes[0]) & (boxes[3] > boxes[1]), wide * high, 0)
    instance = torch.repeat_interleave(count)
    place = torch.arange(len(instance), device=boxes.device) - (count.cumsum(0) - count)[instance]
    down, across = top[instance] + place // wide[instance], left[instance] + place % wide[instance]
    tile = (frames[instance] * raster.down + down) * raster.across + across
    return Work(instance, tile, across * TILE, down * TILE)


def within_tile(device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns and rows [K] of a tile's pixel centres from its corner."""
    step = torch.arange(TILE, device=device, dtype=torch.float32) + 0.5
    return step.repeat(TILE), step.repeat_interleave(TILE)


Meet = Callable[[Shape, Tensor, Tensor], Tensor]


def by_shape(parts: Instances, instance: Tensor, meet: Meet) -> tuple[Tensor, Tensor]:
    """Runs `meet(shape, instances, rows)` once per shape, on the rows of `instance` [R] that have it.

    Gives the rows in the order of shapes, and what `meet` made of them.
    """
    shapes = parts.shape[instance]
    order = [torch.nonzero(shapes == shape)[:, 0] for shape in Shape]
    found = [meet(shape, instance[rows], rows) for shape, rows in zip(Shape, order, strict=True)]
    return torch.cat(order), torch.cat(found)


def first_hits(parts: Instances, todo: Work) -> tuple[Work, Tensor]:
    """The rows in another order, and the depths [R, K] at which they are hit at the pixels' centres."""
    x, y = within_tile(parts.eye.device)

    def meet(shape: Shape, own: Tensor, rows: Tensor) -> Tensor:
        eye, ray = rays(parts, own, todo.column[rows, None] + x, todo.row[rows, None] + y)
        return depths(shape, eye, ray, parts.taper[own, None])

    order, depth = by_shape(parts, todo.instance, meet)
    return todo[order], depth


def nearest(key: Tensor, depth: Tensor, of: Tensor) -> Nearest:
    """Reduces rows with equal `key` [R]. `depth` [R, K]; `of` [R] or [R, K]. Of equal depths the first row's wins."""
    unique, group, counts = torch.unique(key, return_inverse=True, return_counts=True)
    order = torch.argsort(group, stable=True)
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(order), device=key.device) - (counts.cumsum(0) - counts)[group[order]]
    samples = depth.shape[1]
    best = torch.full((len(unique), samples), MISS, device=key.device)
    who = torch.full((len(unique), samples), -1, dtype=of.dtype, device=key.device)
    label = of if of.ndim == 2 else of[:, None]
    for turn in range(int(counts.max()) if len(counts) else 0):
        # No two rows of one turn have the same key.
        rows = torch.nonzero(rank == turn)[:, 0]
        place, found = group[rows], depth[rows]
        before = best[place]
        closer = found < before
        best[place] = torch.where(closer, found, before)
        who[place] = torch.where(closer, label[rows], who[place])
    return Nearest(unique, best, who)


def rays(parts: Instances, own: Tensor, column: Tensor, row: Tensor) -> tuple[Vector, Vector]:
    """Eye and ray in the unit space of instances `own` [R], through image points [R, K] or [K]."""
    eye = spread(parts.eye, own)
    m = [values[:, None] for values in parts.ray.index_select(1, own)]
    x, y, z = (torch.addcmul(m[i + 2] + m[i] * column, m[i + 1], row) for i in (0, 3, 6))
    return eye, (x, y, z)


def spread(vectors: Tensor, own: Tensor) -> Vector:
    """Three [R, 1] of `vectors` [3, I]."""
    x, y, z = vectors.index_select(1, own)[..., None]
    return x, y, z
