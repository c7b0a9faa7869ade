"""Rays and unit solids: entry points found by stepping along the ray must be the ones that the formulas give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.scenes.parts import Shape
from training.scenes.solids import Vector, depths, normals

STEP = 0.002


def split(points: Tensor) -> Vector:
    """[N, 3] to three [N]."""
    return points[:, 0], points[:, 1], points[:, 2]


def inside(shape: Shape, point: Vector, taper: Tensor) -> Tensor:
    x, y, z = point
    if shape == Shape.SPHERE:
        return x * x + y * y + z * z <= 1
    if shape == Shape.BOX:
        return torch.stack([x.abs(), y.abs(), z.abs()]).amax(dim=0) <= 1
    radius = 1 + (taper - 1) * (z + 1) / 2
    return (z.abs() <= 1) & (x * x + y * y <= radius * radius)


def random_rays(count: int) -> tuple[Tensor, Tensor]:
    """Eyes 2 to 5 from the middle, rays roughly towards it; a few straight along an axis."""
    generator = torch.Generator().manual_seed(3)
    eyes = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    eyes = eyes * (2 + 3 * torch.rand(count, 1, generator=generator))
    rays = torch.nn.functional.normalize(0.9 * torch.randn(count, 3, generator=generator) - eyes, dim=1)
    eyes[:3], rays[:3] = 3 * torch.eye(3) + 0.1, -torch.eye(3)
    return eyes, rays


@pytest.mark.parametrize("taper", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("shape", list(Shape))
def test_a_ray_enters_a_solid_where_stepping_along_it_first_finds_the_inside(shape: Shape, taper: float) -> None:
    eyes, rays = random_rays(400)
    tapers = torch.full((len(eyes), 1), taper)
    steps = torch.arange(0, 9, STEP)
    points = eyes[:, None] + steps[:, None] * rays[:, None]
    x, y, z = points.unbind(-1)
    within = inside(shape, (x, y, z), tapers)
    stepped = torch.where(within.any(dim=1), steps[within.int().argmax(dim=1)], torch.inf)
    found = depths(shape, split(eyes), split(rays), tapers[:, 0])
    grazed = torch.isfinite(found) & torch.isinf(stepped)
    assert grazed.float().mean() < 0.01  # shorter within the solid than a step
    both = ~grazed
    assert torch.isfinite(stepped[both]).float().mean() > 0.3
    torch.testing.assert_close(found[both], stepped[both], atol=STEP, rtol=0)


@pytest.mark.parametrize("shape", list(Shape))
def test_normals_face_the_ray_and_leave_the_solid(shape: Shape) -> None:
    eyes, rays = random_rays(400)
    taper = torch.full((len(eyes),), 0.4)
    found = depths(shape, split(eyes), split(rays), taper)
    met = torch.isfinite(found)
    points, taper = (eyes + found[:, None] * rays)[met], taper[met]
    outward = torch.stack(normals(torch.full((len(points),), int(shape)), split(points), taper), dim=1)
    outward = torch.nn.functional.normalize(outward, dim=1)
    assert ((outward * rays[met]).sum(dim=1) < 1e-3).all()
    assert not inside(shape, split(points + 0.01 * outward), taper).any()
    # On a rim the way straight inwards from one face may lead out of the other.
    assert inside(shape, split(points - 0.01 * outward), taper).float().mean() > 0.95


def test_the_side_of_a_cone_has_the_normal_of_its_equation() -> None:
    eyes, rays = random_rays(400)
    taper = torch.linspace(0, 1, len(eyes))
    found = depths(Shape.FRUSTUM, split(eyes), split(rays), taper)
    points = eyes + found[:, None] * rays
    side = torch.isfinite(found) & (points[:, 2].abs() < 0.99)
    points, taper = points[side].requires_grad_(), taper[side]
    x, y, z = split(points)
    (x * x + y * y - (1 + (taper - 1) * (z + 1) / 2) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    assert points.grad is not None
    kinds = torch.full((len(points),), int(Shape.FRUSTUM))
    outward = torch.stack(normals(kinds, split(points.detach()), taper), dim=1)
    alike = torch.nn.functional.cosine_similarity(outward, points.grad)
    torch.testing.assert_close(alike, torch.ones(len(points)), atol=1e-5, rtol=0)


def test_nothing_behind_the_eye_is_met() -> None:
    eyes, rays = random_rays(50)
    for shape in Shape:
        assert torch.isinf(depths(shape, split(eyes), split(-rays), torch.ones(50))).all()
