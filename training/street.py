"""The scene of the sample clip: what stands on a small square, and what moves there.

A red car drives away, turns left and comes half back while a blue ball rolls up and stops; the camera slowly slides to
the right. World axes: x forward, y left, z up, in metres. `t` is in seconds since the clip's first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from training.raycast import Array, Camera, Ellipsoid, Paint, Scene, Shape, Solid, box, turn_y, turn_z

SIZE = (448, 252)  # width, height in pixels
SECONDS = 6.0
FOCAL = 400.0
CAR_SPEED = 2.25
CAR_START = (8.3, -2.75)
BALL_RADIUS = 0.62
BALL_START, BALL_STOP = (13.0, 4.6), (6.4, 1.35)


def smooth(t: float | Array, start: float, end: float) -> Array:
    """0 until `start`, 1 from `end`, with no jump in speed."""
    x = np.clip((np.asarray(t) - start) / (end - start), 0, 1)
    return x * x * (3 - 2 * x)


def heading(t: float | Array) -> Array:
    """The car's yaw in radians: ahead, then to the left, then half back."""
    return np.radians(4 + 136 * smooth(t, 0.9, 5.3))


@cache
def _car_path() -> tuple[Array, Array]:
    t = np.arange(0, SECONDS + 0.01, 0.001)
    steps = CAR_SPEED * 0.001 * np.stack([np.cos(heading(t)), np.sin(heading(t))], axis=-1)
    return t, np.cumsum(steps, axis=0) + CAR_START


def car_at(t: float) -> Array:
    """[3] the point of the ground below the car's middle: it drives where it points, at a constant speed."""
    times, path = _car_path()
    return np.array([np.interp(t, times, path[:, 0]), np.interp(t, times, path[:, 1]), 0], np.float32)


def ball_at(t: float) -> Array:
    """[3] the ball's centre: it rolls nearer, ever slower, and stops at 4.4 s."""
    left = np.clip(1 - t / 4.4, 0, 1) ** 2
    x, y = (stop + left * (start - stop) for start, stop in zip(BALL_START, BALL_STOP, strict=True))
    return np.array([x, y, BALL_RADIUS], np.float32)


def camera_at(t: float) -> Camera:
    along = float(smooth(t, -1.0, SECONDS + 1))
    position = np.array([0.0, 0.5 - 1.1 * along, 2.0], np.float32)
    return Camera(position, np.radians(-2.6 + 6.6 * along), np.radians(-7.0), FOCAL, SIZE)


RED = np.array([0.70, 0.03, 0.025], np.float32)
BLUE = np.array([0.03, 0.12, 0.62], np.float32)
WHITE = np.array([0.85, 0.85, 0.82], np.float32)
DARK = np.array([0.03, 0.03, 0.035], np.float32)
LAMP = np.array([1.30, 1.20, 0.85], np.float32)
CAR_HALF = (1.75, 0.78, 0.30)


def scene_at(t: float) -> Scene:
    """Everything at one moment. The solids of the car come first, then the ball's: see `CAR` and `BALL`."""
    return Scene([*_car(t), _ball(t), *_surroundings()], _ground)


CAR = range(1, 7)  # what `raycast.things` says where the car is seen
BALL = 7


def _car(t: float) -> list[Solid]:
    place, axes = car_at(t), turn_z(float(heading(t)))

    def part(shape: Shape, offset: Sequence[float], paint: Paint, gloss: float) -> Solid:
        return Solid(shape, place + axes @ np.array(offset, np.float32), axes, paint, gloss)

    wheel = Ellipsoid(np.array([0.34, 0.14, 0.34], np.float32))
    return [
        part(box(CAR_HALF, front=0.25, rear=0.15, side=0.08), (0, 0, 0.60), _body, 0.5),
        part(box((1.02, 0.70, 0.27), front=0.9, rear=0.5, side=0.28), (-0.25, 0, 1.16), _cabin, 0.7),
        *(part(wheel, (x, y, 0.34), _tyre, 0.1) for x in (-1.08, 1.08) for y in (-0.72, 0.72)),
    ]


def _body(points: Array, normals: Array) -> Array:
    """Red, with two bright lamps and a dark grille at the front, dark bumpers and a white plate at the rear."""
    _, y, z = points.T
    front, rear = normals[:, 0] > 0.5, normals[:, 0] < -0.5
    lamp = front & (np.abs(np.abs(y) - 0.55) < 0.15) & (np.abs(z - 0.06) < 0.09)
    grille = front & (np.abs(y) < 0.34) & (np.abs(z - 0.03) < 0.10)
    bumper = (z < -0.19) & (normals[:, 2] < 0.5)
    tail = rear & (np.abs(np.abs(y) - 0.58) < 0.13) & (np.abs(z - 0.10) < 0.06)
    plate = rear & (np.abs(y) < 0.26) & (np.abs(z) < 0.08)
    colours = np.tile(RED, (len(points), 1))
    colours[bumper | grille] = DARK
    colours[lamp] = LAMP
    colours[tail] = (0.22, 0.0, 0.0)
    colours[plate] = WHITE
    return colours


def _cabin(points: Array, normals: Array) -> Array:
    """A red roof and red pillars around dark glass."""
    x, y, z = points.T
    across = np.abs(normals[:, 1]) > 0.5
    pillar = np.where(across, np.abs(x + 0.1) < 0.05, np.abs(y) > 0.60 - 0.28 * (z + 0.27))
    return np.where(((normals[:, 2] > 0.9) | pillar | (z > 0.23) | (z < -0.24))[:, None], RED, DARK)


def _tyre(points: Array, normals: Array) -> Array:
    hub = np.hypot(points[:, 0], points[:, 2]) < 0.19
    return np.where(hub[:, None], np.float32(0.45), DARK)


def _ball(t: float) -> Solid:
    """The ball turns as far as it rolls."""
    rolled = float(np.linalg.norm(ball_at(t) - ball_at(0)))
    way = np.arctan2(BALL_STOP[1] - BALL_START[1], BALL_STOP[0] - BALL_START[0])
    axes = turn_z(float(way)) @ turn_y(rolled / BALL_RADIUS)
    return Solid(Ellipsoid(np.full(3, BALL_RADIUS, np.float32)), ball_at(t), axes, _panels, 0.6)


def _panels(points: Array, normals: Array) -> Array:
    """Six panels, blue and paler blue, with white caps."""
    x, y, z = points.T
    turn = np.floor(6 * (np.arctan2(z, x) / (2 * np.pi) + 0.5)) % 2
    colours = np.where(turn[:, None] > 0, BLUE, BLUE + np.float32(0.10))
    return np.where((np.abs(y) > 0.86 * BALL_RADIUS)[:, None], WHITE, colours)


@cache
def _surroundings() -> tuple[Solid, ...]:
    """What stands still: three crates, four trees and two houses; they make the camera's motion visible."""

    def solid(shape: Shape, centre: Sequence[float], paint: Paint, yaw: float = 0) -> Solid:
        return Solid(shape, np.array(centre, np.float32), turn_z(yaw), paint)

    crates = [(13.0, -4.9, 0.5, 0.4), (14.8, -6.5, 0.65, 0.9), (19.5, 1.2, 0.55, 0.2)]
    trees = [(23, 9.2), (27, 4.6), (25, -5.4), (29, -11.5)]
    houses = [(38, 12.5, 3.4, 0.3), (46, -3.4, 3.4, -0.2)]
    crown, trunk = Ellipsoid(np.array([1.7, 1.7, 1.9], np.float32)), box((0.18, 0.18, 1.0))
    return (
        *(solid(box((h, h, h)), (x, y, h), _planks, yaw) for x, y, h, yaw in crates),
        *(solid(trunk, (x, y, 1.0), _bark) for x, y in trees),
        *(solid(crown, (x, y, 3.2), _leaves) for x, y in trees),
        *(solid(box((3, 5.4, h)), (x, y, h), _facade, yaw) for x, y, h, yaw in houses),
    )


def _planks(points: Array, normals: Array) -> Array:
    gap = np.abs(points[:, 2:] / 0.22 % 1 - 0.5) > 0.44
    return np.where(gap, np.float32(0.5), np.float32(1)) * np.array([0.50, 0.31, 0.14], np.float32)


def _bark(points: Array, normals: Array) -> Array:
    return np.tile(np.array([0.20, 0.12, 0.07], np.float32), (len(points), 1))


def _leaves(points: Array, normals: Array) -> Array:
    x, y, z = points.T
    light = 1 + 0.25 * np.sin(6 * y + 2 * np.sin(5 * z)) * np.sin(7 * z + 3 * x) + 0.15 * np.sin(11 * y - 9 * z)
    return light[:, None] * np.array([0.07, 0.23, 0.05], np.float32)


def _facade(points: Array, normals: Array) -> Array:
    """A pale wall with rows of dark windows."""
    _, y, z = points.T
    window = (np.abs(y / 1.8 % 1 - 0.5) < 0.24) & (np.abs(z / 1.7 % 1 - 0.5) < 0.27)
    return np.where(window[:, None], np.array([0.10, 0.14, 0.19], np.float32), np.array([0.66, 0.52, 0.38], np.float32))


def _ground(points: Array, footprint: Array) -> Array:
    """Paving of 2 m slabs with dark joints; what is finer than a pixel fades, so that nothing flickers."""
    x, y = points[:, 0], points[:, 1]
    fine = np.clip(0.5 / footprint - 0.2, 0, 1)
    stain = np.sin(1.9 * x + 1.1 * y) + np.sin(2.3 * y - 0.9 * x + 1) + np.sin(0.53 * x - 0.71 * y)
    grain = np.sin(17 * x + 5 * y) * np.sin(13 * y - 7 * x)
    slab = np.sign(np.sin(np.pi / 2 * x) * np.sin(np.pi / 2 * y))
    shade = 0.36 + 0.012 * stain + fine * (0.012 * grain * np.clip(0.05 / footprint, 0, 1) + 0.03 * slab)
    joint = np.minimum(np.abs((x + 1) % 2 - 1), np.abs((y + 1) % 2 - 1))
    width = 0.05
    cover = np.clip(0.5 + (width / 2 - joint) / footprint, 0, 1) * np.minimum(1, width / footprint)
    paving = (shade * (1 - 0.5 * cover))[:, None] * np.array([1.0, 0.96, 0.88], np.float32)
    lawn = (1 + 0.05 * stain)[:, None] * np.array([0.16, 0.27, 0.09], np.float32)
    return np.where((x > 21)[:, None], lawn, paving)
