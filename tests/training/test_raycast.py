"""The ray caster: perspective, occlusion and shadows as geometry demands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from training.raycast import (
    GROUND,
    SKY,
    SUN,
    Array,
    Camera,
    Ellipsoid,
    Scene,
    Solid,
    box,
    picture,
    things,
    turn_z,
)

CAMERA = Camera(np.array([0.0, 0.0, 2.0], np.float32), np.radians(10.0), np.radians(-8.0), 200.0, (160, 120))


def grey(points: Array, other: Array) -> Array:
    return np.full_like(points, 0.5)


def ball(centre: Sequence[float], radius: float = 1.0) -> Solid:
    shape = Ellipsoid(np.full(3, radius, np.float32))
    return Solid(shape, np.array(centre, np.float32), turn_z(0), grey)


def crate(centre: Sequence[float], half: Sequence[float], yaw: float) -> Solid:
    return Solid(box(half), np.array(centre, np.float32), turn_z(yaw), grey)


def middle(mask: np.ndarray) -> Array:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


@pytest.mark.parametrize("centre", [(10.0, 1.0, 1.0), (14.0, 4.0, 2.5), (9.0, 0.0, 0.8)])
def test_a_small_ball_is_seen_where_the_pinhole_projects_its_centre(centre: tuple[float, float, float]) -> None:
    seen = things(Scene([ball(centre, 0.4)], grey), CAMERA) == GROUND + 1
    projected = CAMERA.project(np.array([centre], np.float32))[0]
    # A ball's image reaches out a little further on the side away from the picture's middle; the rest is pixel size.
    np.testing.assert_allclose(middle(seen), projected, atol=0.3)


def test_twice_as_far_is_a_quarter_of_the_area() -> None:
    straight = Camera(np.array([0, 0, 2], np.float32), 0.0, 0.0, 200.0, (160, 120))
    areas = [(things(Scene([ball((x, 0, 2))], grey), straight) == GROUND + 1).sum() for x in (8.0, 16.0)]
    # sin² of the angular radius makes the near one 1.2 % larger than 4; pixels at the rim add about 2 %.
    assert areas[0] / areas[1] == pytest.approx(4, rel=0.04)


def test_corners_of_a_box_bound_its_image() -> None:
    half, yaw, centre = np.array([1.5, 0.7, 0.5]), 0.6, np.array([9.0, 1.5, 0.5])
    seen = things(Scene([crate(centre.tolist(), half.tolist(), yaw)], grey), CAMERA) == GROUND + 1
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    corners = CAMERA.project((signs * half) @ turn_z(yaw).T + centre)
    rows, columns = np.nonzero(seen)
    box_seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # Ray casting samples pixel centres, so each side is right to a pixel.
    np.testing.assert_allclose(box_seen, [*corners.min(axis=0), *corners.max(axis=0)], atol=1.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_solid_hides_the_farther_in_any_order(order: tuple[int, int]) -> None:
    solids = [ball((8, 1.4, 1)), crate((12, 2.1, 1), (1, 1, 1), 0.3)]
    scene = Scene([solids[i] for i in order], grey)
    column, row = CAMERA.project(solids[0].centre[None])[0].astype(int)
    assert things(scene, CAMERA)[row, column] == GROUND + 1 + order.index(0)


def test_horizon_divides_sky_from_ground() -> None:
    level = Camera(np.array([0, 0, 2], np.float32), 0.3, 0.0, 200.0, (20, 40))
    seen = things(Scene([ball((-50, 0, 1))], grey), level)
    assert (seen[:20] == SKY).all()
    assert (seen[20:] == GROUND).all()


def test_leaning_walls_shrink_the_top_and_keep_the_foot() -> None:
    hull = box((1.0, 1.0, 0.5), front=0.4, side=0.2)
    origin = np.array([[5, 0, -0.499], [5, 0, 0.499], [-5, 0, 0.499]], np.float32)
    towards = np.array([[-1, 0, 0], [-1, 0, 0], [1, 0, 0]], np.float32)
    distance, _ = hull.hit(origin, towards)
    np.testing.assert_allclose(distance, [4.0, 4.4, 4.0], atol=1e-3)


def test_a_ball_shades_the_ground_where_the_sun_says() -> None:
    high = np.array([10.0, 1.5, 4.0], np.float32)
    scene, empty = Scene([ball(high.tolist(), 0.6)], grey), Scene([ball((-50, 0, 1))], grey)
    foot = high - SUN * (high[2] / SUN[2])
    column, row = CAMERA.project(foot[None])[0].astype(int)
    assert things(scene, CAMERA)[row, column] == GROUND
    lit, shaded = picture(empty, CAMERA), picture(scene, CAMERA)
    assert shaded[row, column].max() < 0.7 * lit[row, column].max()
    # Everything that is neither the ball nor its shadow looks the same.
    assert (lit == shaded).all(axis=-1).mean() > 0.9


def test_pictures_are_the_same_every_time() -> None:
    scene = Scene([ball((8, 1, 1)), crate((10, 2, 1), (1, 1, 1), 0.3)], grey)
    assert (picture(scene, CAMERA) == picture(scene, CAMERA)).all()


def test_edges_are_smoothed() -> None:
    def black(points: Array, other: Array) -> Array:
        return np.zeros_like(points)

    scene = Scene([Solid(box((0.05, 3, 3)), np.array([8, 1.4, 0], np.float32), turn_z(0.2), black)], grey)
    above_horizon = picture(scene, CAMERA)[:28].max(axis=-1)
    # In the haze the black board is at most 16, hills and sky are at least 140: what lies between is a mixture.
    assert (above_horizon <= 16).sum() > 100
    assert ((above_horizon > 30) & (above_horizon < 130)).sum() > 10
