"""One chunk of frames, from tables to pictures.

Legend: B frames, H, W sides of a frame in pixels, K pixels of a tile, R rows of a work list, N samples of objects,
E pixels on an edge; a pixel's place is its index among all B * H * W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from training.scenes import shading
from training.scenes.backdrop import Rows, backdrop
from training.scenes.batch import Instances, Views
from training.scenes.casting import (
    TILE,
    Nearest,
    Raster,
    Work,
    by_shape,
    first_hits,
    nearest,
    rays,
    spread,
    within_tile,
    work,
)
from training.scenes.parts import Shape
from training.scenes.shading import Looks
from training.scenes.solids import MISS, depths

MOST_BODIES = 8  # numbers of bodies start at 1, and a scene has at most 5
OFFSETS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))  # of samples from a pixel's centre


@dataclass(frozen=True)
class Drawn:
    """`pictures` uint8 [B, H, W, 3]; `depth` [B, H, W]; `masks` uint8 [B, H, W]; `whole` [B, MOST_BODIES]."""

    pictures: Tensor
    depth: Tensor
    masks: Tensor
    whole: Tensor


def draw(parts: Instances, views: Views, looks: Looks, raster: Raster) -> Drawn:
    """`parts.frame` counts from the chunk's first frame; `looks` has a row for every frame."""
    rows = Rows.of(views, raster.width, raster.height)
    hits, hit_depth = first_hits(parts, work(parts.box, parts.frame, raster))
    bodies = nearest(hits.tile * MOST_BODIES + parts.body[hits.instance], hit_depth, hits.instance)
    depth, seen = _buffers(bodies, rows, raster)
    canvas = backdrop(rows, views, looks, _lit(parts, rows, raster))
    _paint(canvas.view(3, -1), parts, looks, hits, seen, depth, raster)
    masks = torch.where(seen >= 0, parts.body.to(torch.uint8)[seen.clamp_min(0)], 0)
    pictures = rearrange(shading.encoded(canvas), "c b h w -> b h w c").contiguous()
    return Drawn(pictures, depth, masks, _whole(bodies, raster))


def _buffers(bodies: Nearest, rows: Rows, raster: Raster) -> tuple[Tensor, Tensor]:
    """[B, H, W] depth of what each pixel's centre sees, and which instance that is: -1 for ground and sky."""
    first = nearest(bodies.key // MOST_BODIES, bodies.depth, bodies.of)
    depth = torch.full((raster.tiles, TILE * TILE), MISS, device=rows.depth.device)
    seen = torch.full_like(depth, -1, dtype=torch.long)
    depth[first.key], seen[first.key] = first.depth, first.of
    depth, seen = raster.images(depth), raster.images(seen)
    floor = rows.depth[..., None]
    return torch.minimum(depth, floor), torch.where(depth <= floor, seen, -1)


def _whole(bodies: Nearest, raster: Raster) -> Tensor:
    """[B, MOST_BODIES] pixels of each body as if it stood alone."""
    frame = bodies.key // MOST_BODIES // (raster.down * raster.across)
    counts = torch.zeros(raster.frames * MOST_BODIES, dtype=torch.long, device=frame.device)
    counts.index_add_(0, frame * MOST_BODIES + bodies.key % MOST_BODIES, torch.isfinite(bodies.depth).sum(dim=1))
    return counts.view(raster.frames, MOST_BODIES)


def _lit(parts: Instances, ground: Rows, raster: Raster) -> Tensor:
    """[B, H, W] in [0, 1]: how much of the sun the ground sees. The edge of a shadow is three pixels wide."""
    todo = work(parts.shade, parts.frame, raster)
    x, y = within_tile(ground.depth.device)
    floor = repeat(ground.depth, "b (th y) -> b th (y x)", y=TILE, x=TILE)

    def meet(shape: Shape, own: Tensor, rows: Tensor) -> Tensor:
        row = todo.row[rows]
        eye, ray = rays(parts, own, todo.column[rows, None] + x, row[:, None] + y)
        away = floor[parts.frame[own], row // TILE]
        point = (eye[0] + away * ray[0], eye[1] + away * ray[1], eye[2] + away * ray[2])
        return torch.isfinite(depths(shape, point, spread(parts.sun, own), parts.taper[own, None]))

    order, hidden = by_shape(parts, todo.instance, meet)
    lit = torch.ones((raster.tiles, TILE * TILE), device=ground.depth.device)
    row, pixel = torch.nonzero(hidden, as_tuple=True)
    lit[todo.tile[order][row], pixel] = 0
    return _blurred(raster.images(lit))


def _blurred(image: Tensor) -> Tensor:
    """[B, H, W] averaged over 3 x 3 pixels; the outermost ones are kept."""
    across = image.clone()
    across[:, :, 1:-1] += image[:, :, :-2]
    across[:, :, 1:-1] += image[:, :, 2:]
    both = across.clone()
    both[:, 1:-1] += across[:, :-2]
    both[:, 1:-1] += across[:, 2:]
    image[:, 1:-1, 1:-1] = both[:, 1:-1, 1:-1] / 9
    return image


def _paint(
    canvas: Tensor, parts: Instances, looks: Looks, hits: Work, seen: Tensor, depth: Tensor, raster: Raster
) -> None:
    """Draws the objects on `canvas` [3, B * H * W]: one sample a pixel, and more where two parts meet."""
    edges = _edges(seen)
    plain = torch.nonzero(((seen >= 0) & ~edges).flatten())[:, 0]
    column, row = _centres(plain, raster)
    canvas[:, plain] = _shaded(parts, looks, seen.flatten()[plain], column, row, depth.flatten()[plain])
    fine, columns, rows = _fine_hits(parts, hits, edges, raster)
    samples = repeat(canvas[:, fine.key], "c e -> c e s", s=len(OFFSETS)).flatten(1)
    some = torch.nonzero((fine.of >= 0).flatten())[:, 0]
    column, row, away = (values.flatten()[some] for values in (columns, rows, fine.depth))
    samples[:, some] = _shaded(parts, looks, fine.of.flatten()[some], column, row, away)
    canvas[:, fine.key] = samples.view(3, -1, len(OFFSETS)).mean(dim=-1)


def _edges(seen: Tensor) -> Tensor:
    """[B, H, W] bool: another part is seen in a pixel to the side, above or below."""
    edges = torch.zeros_like(seen, dtype=torch.bool)
    beside, below = seen[:, :, 1:] != seen[:, :, :-1], seen[:, 1:] != seen[:, :-1]
    edges[:, :, 1:] |= beside
    edges[:, :, :-1] |= beside
    edges[:, 1:] |= below
    edges[:, :-1] |= below
    return edges


def _centres(place: Tensor, raster: Raster) -> tuple[Tensor, Tensor]:
    """Columns and rows [N] of the centres of pixels."""
    return place % raster.width + 0.5, place // raster.width % raster.height + 0.5


def _fine_hits(parts: Instances, hits: Work, edges: Tensor, raster: Raster) -> tuple[Nearest, Tensor, Tensor]:
    """What the samples of the pixels on edges see, the pixels' places being the keys; the samples' columns and rows."""
    listed, inside = torch.nonzero(raster.tiled(edges)[hits.tile], as_tuple=True)
    instance = hits.instance[listed]
    column, row = hits.column[listed] + inside % TILE, hits.row[listed] + inside // TILE
    left, top, right, bottom = parts.box.index_select(1, instance)
    near = torch.nonzero((column >= left) & (column < right) & (row >= top) & (row < bottom))[:, 0]
    instance, column, row = instance[near], column[near], row[near]
    place = (parts.frame[instance] * raster.height + row) * raster.width + column
    aside = torch.tensor(OFFSETS, device=edges.device).T + 0.5

    def meet(shape: Shape, own: Tensor, rows: Tensor) -> Tensor:
        eye, ray = rays(parts, own, column[rows, None] + aside[0], row[rows, None] + aside[1])
        return depths(shape, eye, ray, parts.taper[own, None])

    order, depth = by_shape(parts, instance, meet)
    found = nearest(place[order], depth, instance[order])
    x, y = _centres(found.key, raster)
    return found, x[:, None] + aside[0] - 0.5, y[:, None] + aside[1] - 0.5


def _shaded(parts: Instances, looks: Looks, instance: Tensor, column: Tensor, row: Tensor, depth: Tensor) -> Tensor:
    """[3, N] what is seen of instances at image points and depths [N]."""
    eye, ray = rays(parts, instance, column[:, None], row[:, None])
    x, y, z = (e[:, 0] + depth * r[:, 0] for e, r in zip(eye, ray, strict=True))
    return shading.objects(parts, instance, looks, (x, y, z))
