"""Ground and sky. Every pattern is a function of the point or of the direction, so nothing flickers.

The camera has no roll, so the ground is equally deep all along a row of pixels, and most of the work is done once per
row. All colours are linear, and come as planes: the colour is the first axis.

Legend: B frames, H, W sides of a frame in pixels, N rows of sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.scenes.batch import Views
from training.scenes.looks import TABLE
from training.scenes.shading import Looks
from training.scenes.solids import MISS

FAR = 60.0  # metres: the ground ends here, in the colour of the hills
COARSE = 5.3  # tiles that one blotch of the coarse pattern is wide
FINE_SHARE = 0.7  # of the ground's contrast that is in its tiles; the rest is in the coarse pattern
SHADE = 0.8  # of the sunlight that a shadow takes


@dataclass(frozen=True)
class Rows:
    """The rays of frames of `width` pixels, row by row: the ray of a pixel is `start` + its column's centre * `step`.

    `start` [B, H, 3] and `step` [B, 1, 3] world, of depth 1 in the camera. `depth` [B, H] of the ground, infinite where
    a row sees none.
    """

    start: Tensor
    step: Tensor
    depth: Tensor
    width: int

    @classmethod
    def of(cls, views: Views, width: int, height: int) -> Rows:
        line = torch.arange(height, device=views.eye.device)[:, None] + 0.5
        across, down, corner = views.ray[:, None].unbind(-1)
        start = corner + down * line
        fall = start[..., 2]
        depth = -views.eye[:, 2, None] / torch.where(fall == 0, 1, fall)
        return cls(start, across, torch.where((fall < 0) & (depth < FAR), depth, MISS), width)

    @property
    def columns(self) -> Tensor:
        """[W] centres"""
        return torch.arange(self.width, device=self.depth.device) + 0.5


def backdrop(rows: Rows, views: Views, looks: Looks, lit: Tensor) -> Tensor:
    """[3, B, H, W] as if there were no objects, but with their shadows: `lit` [B, H, W] is the share of the sun."""
    canvas = _ground(rows, views, looks, lit)
    frame, line = torch.nonzero(torch.isinf(rows.depth), as_tuple=True)
    canvas[:, frame, line] = _sky(rows, looks, frame, line, views.focal[frame])
    return canvas


def _ground(rows: Rows, views: Views, looks: Looks, lit: Tensor) -> Tensor:
    """[3, B, H, W]; what it holds above the horizon has no meaning."""
    depth = rows.depth.clamp_max(FAR)[..., None]
    middle = rows.start + rows.step * (rows.width / 2)
    beside = depth / views.focal[:, None, None]
    along = beside * depth / views.eye[:, 2, None, None]  # at a flat angle a pixel sees a long piece of the ground
    tile = looks.tile[:, None, None]
    size = torch.maximum((beside + along * middle[..., :2].abs()) / tile, looks.soft[:, None, None])
    near = (views.eye[:, None, :2] + depth * rows.start[..., :2]) / tile
    step = depth * rows.step[..., :2] / tile
    u, v = (torch.addcmul(near[..., i, None], step[..., i, None], rows.columns) for i in range(2))
    fine = _lookup(looks.shades, _filtered(u, size[..., :1]), _filtered(v, size[..., 1:]))
    coarse = _lookup(looks.shades, u / COARSE, v / COARSE)
    # Beyond two pixels a tile the filter no longer averages enough.
    share = FINE_SHARE * (1.6 - 0.6 * size.amax(dim=-1, keepdim=True)).clamp(0, 1)
    shade = torch.add(share * (fine - 0.5), coarse, alpha=1 - FINE_SHARE).add_(FINE_SHARE / 2)
    return _lit_ground(looks, shade, depth, lit)


def _lit_ground(looks: Looks, shade: Tensor, depth: Tensor, lit: Tensor) -> Tensor:
    """Light falls on every channel alike in its strength, so that two planes of factors serve all three channels."""
    sunny = looks.sunlight * looks.sun[:, 2:]
    full = looks.skylight + sunny
    loss = (SHADE * sunny.mean(1) / full.mean(1))[:, None, None]
    haze = (depth / FAR) ** 2
    light = (lit * loss + (1 - loss)).mul_(1 - haze)
    shade = shade * light
    canvas = torch.empty((3, *shade.shape), device=shade.device)
    dark, more = looks.dark * full, (looks.light - looks.dark) * full
    for channel, plane in enumerate(canvas):
        torch.mul(light, dark[:, channel, None, None], out=plane)
        plane.addcmul_(shade, more[:, channel, None, None]).add_(haze * looks.hills[:, channel, None, None])
    return canvas


def _filtered(u: Tensor, width: Tensor) -> Tensor:
    """Where to look up a row of unit tiles linearly so as to see them averaged over `width`, 0 to 1 tile.

    Only the nearest edge between two tiles matters; the lookup stands between the two by what is seen of each.
    """
    edge = torch.round(u)
    return ((u - edge) * (1 / width.clamp_min(1e-3))).clamp_(-0.5, 0.5).add_(edge).sub_(0.5)


def _lookup(shades: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """[B, H, W] bilinear in tables that repeat; index i is the middle of a tile."""
    # grid_sample wants -1 for the first and 1 for the last index.
    place = torch.stack([u, v], dim=-1).mul_(1 / TABLE)
    place = place.sub_(torch.floor(place)).mul_(2).sub_(1)
    return F.grid_sample(shades, place, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]


def _sky(rows: Rows, looks: Looks, frame: Tensor, line: Tensor, focal: Tensor) -> Tensor:
    """[3, N, W]"""
    dx, dy, dz = (rows.start[frame, line, None] + rows.step[frame] * rows.columns[:, None]).unbind(-1)
    flat = torch.rsqrt(dx * dx + dy * dy)
    across, along, rise = dx * flat, dy * flat, dz * flat
    a, b, c, d = looks.waves[frame, :, None].unbind(1)
    ridge = 0.075 + 0.025 * torch.sin(5 * across + a) * torch.sin(4 * along + b)
    ridge = ridge + 0.014 * torch.sin(17 * across + c) + 0.014 * torch.sin(15 * along + d)
    share = torch.sqrt((1.2 * rise).clamp(0, 1))
    zenith, horizon, hills = (colour[frame].T[..., None] for colour in (looks.zenith, looks.horizon, looks.hills))
    colour = horizon + (zenith - horizon) * share
    return colour + (hills - colour) * (0.5 + (ridge - rise) * focal[:, None]).clamp(0, 1)
