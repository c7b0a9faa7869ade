"""Where rays meet the unit solids: sphere, cube, and frustum along z with radius 1 at z = -1 and `taper` at z = 1.

Components come one by one, each of any shape that broadcasts: that is what makes them fast on a processor. No solid
holds the eye.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.parts import Shape

Vector = tuple[Tensor, Tensor, Tensor]
INSIDE = 1 + 1e-5  # a cap or a wall reaches this far, so that no ray slips between the two
MISS = torch.inf


def depths(shape: Shape, eye: Vector, ray: Vector, taper: Tensor) -> Tensor:
    """The parameter t > 0 at which eye + t * ray enters the solid, infinite where it does not."""
    # Seen from the point of the ray that is nearest to the middle, numbers are small: float32 keeps its digits.
    squared = _dot(ray, ray)
    nearest = -_dot(eye, ray) / squared
    middle = _at(eye, ray, nearest)
    if shape == Shape.SPHERE:
        entered = _sphere(middle, squared)
    elif shape == Shape.BOX:
        entered = _box(middle, ray)
    else:
        entered = _frustum(middle, ray, taper)
    entered += nearest
    return torch.where(entered > 0, entered, MISS)


def normals(shape: Tensor, point: Vector, taper: Tensor) -> Vector:
    """Outward, of any length, at points of the surfaces; `shape` holds values of `Shape`."""
    x, y, z = point
    largest = torch.maximum(torch.maximum(x.abs(), y.abs()), z.abs())
    box, frustum = shape == Shape.BOX, shape == Shape.FRUSTUM
    flat = frustum & (z.abs() > 0.999)
    radius = (1 + taper) / 2 - (1 - taper) / 2 * z
    x = torch.where(box & (x.abs() < largest) | flat, 0, x)
    y = torch.where(box & (y.abs() < largest) | flat, 0, y)
    side = torch.where(flat, z, (1 - taper) / 2 * radius)
    return x, y, torch.where(frustum, side, torch.where(box & (z.abs() < largest), 0, z))


def _sphere(middle: Vector, squared: Tensor) -> Tensor:
    room = 1 - _dot(middle, middle)
    return torch.where(room > 0, -torch.sqrt(room.clamp_min(0) / squared), MISS)


def _box(middle: Vector, ray: Vector) -> Tensor:
    """Inside a cube is inside three slabs: after the last entry and before the first exit."""
    inverse = [1 / torch.where(along.abs() < 1e-9, 1e-9, along) for along in ray]
    centre = [-at * one for at, one in zip(middle, inverse, strict=True)]
    entries = [at - one.abs() for at, one in zip(centre, inverse, strict=True)]
    exits = [at + one.abs() for at, one in zip(centre, inverse, strict=True)]
    entry = torch.maximum(torch.maximum(entries[0], entries[1]), entries[2])
    exit_ = torch.minimum(torch.minimum(exits[0], exits[1]), exits[2])
    return torch.where(entry < exit_, entry, MISS)


def _frustum(middle: Vector, ray: Vector, taper: Tensor) -> Tensor:
    (x, y, z), (dx, dy, dz) = middle, ray
    mean, slope = (1 + taper) / 2, (taper - 1) / 2  # the radius is mean + slope * z
    radius, shrink = mean + slope * z, slope * dz
    a = dx * dx + dy * dy - shrink * shrink
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    b = x * dx + y * dy - radius * shrink
    room = b * b - a * (x * x + y * y - radius * radius)
    root = torch.sqrt(room.clamp_min(0))
    best = torch.full_like(root, MISS)
    for t in ((-b - root) / a, (-b + root) / a):
        best = torch.where((room > 0) & ((z + t * dz).abs() <= INSIDE) & (t < best), t, best)
    rise = 1 / torch.where(dz.abs() < 1e-9, 1e-9, dz)
    for end, rim in ((-1, 1.0), (1, taper)):
        t = (end - z) * rise
        px, py = x + t * dx, y + t * dy
        best = torch.where((px * px + py * py <= rim * rim) & (t < best), t, best)
    return best


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _at(origin: Vector, ray: Vector, t: Tensor) -> Vector:
    return origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2]
