"""A small ray caster in numpy: convex solids and ellipsoids on a ground plane, one sun, hard shadows, true occlusion.

World axes: x forward, y left, z up, in metres; the ground is z = 0. Directions are unit vectors, colours
linear in [0, 1].
Legend: N rays, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 wherever there are many
Picture = NDArray[np.uint8]
Paint = Callable[[Array, Array], Array]
"""Points and outward normals in the solid's own axes, each [N, 3], to colours [N, 3]."""
GroundPaint = Callable[[Array, Array], Array]
"""Points [N, 3] and the width of a pixel on the ground there [N], in metres, to colours [N, 3]."""

SKY, GROUND = -1, 0  # what a ray meets; solid i is GROUND + 1 + i
UP = np.array([0, 0, 1], np.float32)
SUN = np.array([-0.46, -0.52, 0.72], np.float32) / np.float32(1.0005)
SUNLIGHT = np.array([1.50, 1.36, 1.10], np.float32)
SKYLIGHT = np.array([0.24, 0.29, 0.38], np.float32)
HAZE = np.array([0.62, 0.74, 0.86], np.float32)
ZENITH = np.array([0.09, 0.27, 0.66], np.float32)
HILLS = np.array([0.23, 0.37, 0.34], np.float32)
CLEAR_METRES = 120.0
# Offsets (column, row) of the rays through a pixel on an edge; no two share a column or a row.
OFFSETS = np.array([[-0.4, -0.2], [-0.2, 0.4], [0, 0], [0.2, -0.4], [0.4, 0.2]], np.float32)
EDGE = 0.06  # a pixel lies on an edge when a neighbour differs by more than this in a channel


class Shape(Protocol):
    """A convex body around the origin of its own axes."""

    @property
    def radius(self) -> float:
        """Of a sphere around the origin that holds the whole body."""

    def hit(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Distance [N] along each ray [N, 3], infinite for a miss, and the outward normal there [N, 3]."""


@dataclass(frozen=True)
class Ellipsoid:
    radii: Array

    @property
    def radius(self) -> float:
        return float(self.radii.max())

    def hit(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        o, d = origins / self.radii, directions / self.radii
        a, b, c = _dot(d, d), _dot(o, d), _dot(o, o) - 1
        root = b * b - a * c
        distance = (-b - np.sqrt(np.maximum(root, 0))) / a
        distance[(root <= 0) | (distance <= 0)] = np.inf
        normals = (o + np.where(np.isfinite(distance), distance, 0)[:, None] * d) / self.radii
        return distance, _unit(normals)


@dataclass(frozen=True)
class Hull:
    """The points p with `normals @ p <= offsets`; `normals` are unit vectors."""

    normals: Array
    offsets: Array
    radius: float

    def hit(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        speeds = self.normals @ directions.T  # [faces, N]; a face is entered where its speed is negative
        crossings = (self.offsets[:, None] - self.normals @ origins.T) / np.where(np.abs(speeds) < 1e-9, 1e-9, speeds)
        entries = np.where(speeds < 0, crossings, -np.inf)
        exits = np.where(speeds < 0, np.inf, crossings).min(axis=0)
        face, distance = entries.argmax(axis=0), entries.max(axis=0)
        distance[(distance > exits) | (distance <= 0)] = np.inf
        return distance, self.normals[face]


def box(half: Sequence[float], front: float = 0, rear: float = 0, side: float = 0) -> Hull:
    """A box with half sizes (x, y, z) whose walls lean inwards by `front`, `rear` and `side` metres per metre."""
    x, y, z = half
    walls = np.array([[1, 0, front], [-1, 0, rear], [0, 1, side], [0, -1, side], [0, 0, 1], [0, 0, -1]], np.float32)
    length = np.linalg.norm(walls, axis=1)
    # A leaning wall still passes through the lower edge of the upright box.
    offsets = np.array([x - front * z, x - rear * z, y - side * z, y - side * z, z, z], np.float32)
    return Hull(walls / length[:, None], offsets / length, float(np.linalg.norm(half)))


@dataclass(frozen=True)
class Solid:
    """A shape in the world. The columns of `axes` [3, 3] are its own axes; `gloss` in [0, 1] mirrors sun and sky."""

    shape: Shape
    centre: Array
    axes: Array
    paint: Paint
    gloss: float = 0.0


@dataclass(frozen=True)
class Scene:
    solids: Sequence[Solid]
    ground: GroundPaint


@dataclass(frozen=True)
class Camera:
    """A pinhole. `yaw` turns left, `pitch` turns up, in radians; `focal` and `size` (width, height) in pixels."""

    position: Array
    yaw: float
    pitch: float
    focal: float
    size: tuple[int, int]

    @property
    def axes(self) -> Array:
        """[3, 3]: the columns are the camera's forward, left and up in the world."""
        return turn_z(self.yaw) @ turn_y(-self.pitch)

    def rays(self, columns: Array, rows: Array) -> Array:
        """[N, 3] directions through image points; the centre of the first pixel is (0.5, 0.5)."""
        width, height = self.size
        local = np.stack([np.full_like(columns, self.focal), width / 2 - columns, height / 2 - rows], axis=-1)
        return (_unit(local) @ self.axes.T).astype(np.float32)

    def project(self, points: Array) -> Array:
        """[N, 2] image points (column, row) of world points [N, 3] in front of the camera."""
        forward, left, up = ((points - self.position) @ self.axes).T
        width, height = self.size
        return np.stack([width / 2 - self.focal * left / forward, height / 2 - self.focal * up / forward], axis=-1)


def turn_z(angle: float) -> Array:
    """[3, 3] rotation of x towards y: to the left."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def turn_y(angle: float) -> Array:
    """[3, 3] rotation of z towards x: a ball that rolls forward, a camera that looks down."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)


def picture(scene: Scene, camera: Camera) -> Picture:
    """uint8 sRGB [H, W, 3], one ray a pixel, and five where neighbouring pixels differ."""
    width, height = camera.size
    rows, columns = (np.float32(0.5) + np.indices((height, width), np.float32)).reshape(2, -1)
    colours = _colours(scene, camera, columns, rows)
    edges = np.flatnonzero(_edges(colours.reshape(height, width, 3)))
    fine = [_colours(scene, camera, columns[edges] + x, rows[edges] + y) for x, y in OFFSETS]
    colours[edges] = np.mean(fine, axis=0)
    return (255 * colours.reshape(height, width, 3) + 0.5).astype(np.uint8)


def things(scene: Scene, camera: Camera) -> NDArray[np.int64]:
    """[H, W]: what the ray through each pixel's centre meets: `SKY`, `GROUND`, or 1 + the index of a solid."""
    width, height = camera.size
    rows, columns = (np.float32(0.5) + np.indices((height, width), np.float32)).reshape(2, -1)
    directions = camera.rays(columns, rows)
    return _trace(scene.solids, camera.position[None], directions)[1].reshape(height, width)


def _colours(scene: Scene, camera: Camera, columns: Array, rows: Array) -> Array:
    """[N, 3] sRGB in [0, 1] seen at image points."""
    directions = camera.rays(columns, rows)
    distance, thing, normals = _trace(scene.solids, camera.position[None], directions)
    colours = np.empty_like(directions)
    colours[thing == SKY] = _sky(directions[thing == SKY])
    met = np.flatnonzero(thing != SKY)
    far = distance[met, None]
    points = camera.position + far * directions[met]
    light = _shade(scene, points, directions[met], normals[met], thing[met], distance[met] / camera.focal)
    # What is far takes the colour of the hills at the foot of the sky.
    clear = np.exp(-((far / CLEAR_METRES) ** 2))
    colours[met] = clear * light + (1 - clear) * HILLS
    return np.clip(colours, 0, 1) ** np.float32(1 / 2.2)


def _trace(solids: Sequence[Solid], origin: Array, directions: Array) -> tuple[Array, NDArray[np.int64], Array]:
    """From one origin [1, 3]: distance [N] to the first thing on each ray, which thing [N], its normal [N, 3]."""
    falling = directions[:, 2] < -1e-6
    distance = np.where(falling, -origin[0, 2] / np.where(falling, directions[:, 2], -1), np.inf).astype(np.float32)
    thing = np.where(falling, GROUND, SKY)
    normals = np.tile(UP, (len(directions), 1))
    for index, (solid, near) in enumerate(zip(solids, _near(solids, origin, directions), strict=True)):
        local = (origin - solid.centre) @ solid.axes
        hit, normal = solid.shape.hit(local, directions[near] @ solid.axes)
        closer = hit < distance[near]
        near = near[closer]
        distance[near], thing[near] = hit[closer], GROUND + 1 + index
        normals[near] = normal[closer] @ solid.axes.T
    return distance, thing, normals


def _sees_sun(solids: Sequence[Solid], points: Array) -> NDArray[np.bool_]:
    lit = np.ones(len(points), bool)
    for solid, near in zip(solids, _near(solids, points, SUN[None]), strict=True):
        hit, _ = solid.shape.hit((points[near] - solid.centre) @ solid.axes, SUN[None] @ solid.axes)
        lit[near[np.isfinite(hit)]] = False
    return lit


def _near(solids: Sequence[Solid], origins: Array, directions: Array) -> list[NDArray[np.int64]]:
    """For each solid the indices of the rays that pass its bounding sphere. One origin or direction may do for all."""
    centres = np.stack([solid.centre for solid in solids])
    radii = np.array([[1.01 * solid.shape.radius] for solid in solids], np.float32)
    along = centres @ directions.T - _dot(origins, directions)
    apart = (centres**2).sum(1, keepdims=True) - 2 * centres @ origins.T + (origins**2).sum(1)
    return [np.flatnonzero(row) for row in (apart - along**2 < radii**2) & (along > -radii)]


def _shade(
    scene: Scene, points: Array, directions: Array, normals: Array, thing: NDArray[np.int64], footprint: Array
) -> Array:
    """[N, 3] light that leaves the points towards the camera. `footprint`: width of a pixel there, in metres."""
    colours = np.empty_like(points)
    flat = thing == GROUND
    colours[flat] = scene.ground(points[flat], footprint[flat] / np.maximum(-directions[flat, 2], 0.01))
    for index, solid in enumerate(scene.solids):
        mine = np.flatnonzero(thing == GROUND + 1 + index)
        if mine.size:
            colours[mine] = solid.paint((points[mine] - solid.centre) @ solid.axes, normals[mine] @ solid.axes)
    sunny = np.maximum(normals @ SUN, 0) * _sees_sun(scene.solids, points + np.float32(1e-3) * normals)
    light = colours * ((0.65 + 0.35 * normals[:, 2:]) * SKYLIGHT + sunny[:, None] * SUNLIGHT)
    gloss = np.array([0.0, *(solid.gloss for solid in scene.solids)], np.float32)[thing]
    shiny = np.flatnonzero(gloss)
    light[shiny] += gloss[shiny, None] * _mirrored(directions[shiny], normals[shiny], sunny[shiny] > 0)
    return light


def _mirrored(directions: Array, normals: Array, sunny: NDArray[np.bool_]) -> Array:
    """[N, 3] sky and sun as a polished surface shows them, more of it at grazing angles (Schlick 1994)."""
    facing = _dot(directions, normals)
    mirrored = directions - 2 * facing[:, None] * normals
    strength = 0.04 + 0.5 * (1 + facing).clip(0, 1) ** 5
    glint = 0.9 * np.maximum(mirrored @ SUN, 0) ** 90 * sunny
    return strength[:, None] * _sky(mirrored) + glint[:, None]


def _sky(directions: Array) -> Array:
    """[N, 3]: pale at the horizon, deep blue above, with two ranges of hills."""
    height = directions[:, 2:]
    colours = HAZE + (ZENITH - HAZE) * np.clip(height * 1.6, 0, 1) ** 0.6
    azimuth = np.arctan2(directions[:, 1:2], directions[:, :1])
    back = 0.055 + 0.018 * np.sin(5.3 * azimuth + 1) + 0.010 * np.sin(13.7 * azimuth) + 0.003 * np.sin(41 * azimuth)
    front = 0.026 + 0.012 * np.sin(7.1 * azimuth + 4) + 0.006 * np.sin(19.3 * azimuth + 2)
    colours = np.where(height < back, np.array([0.30, 0.44, 0.58], np.float32), colours)
    return np.where(height < front, HILLS, colours)


def _edges(colours: Array) -> NDArray[np.bool_]:
    """[H, W] from [H, W, 3]: a pixel and its right or lower neighbour are both on an edge when they differ."""
    edges = np.zeros(colours.shape[:2], bool)
    beside = (np.abs(np.diff(colours, axis=1)) > EDGE).any(-1)
    below = (np.abs(np.diff(colours, axis=0)) > EDGE).any(-1)
    edges[:, :-1] |= beside
    edges[:, 1:] |= beside
    edges[:-1] |= below
    edges[1:] |= below
    return edges


def _dot(a: Array, b: Array) -> Array:
    """[N] from [N, 3] and [N, 3], or one of them [1, 3]."""
    return np.einsum("nc,nc->n", *np.broadcast_arrays(a, b))


def _unit(vectors: Array) -> Array:
    return vectors / np.sqrt(_dot(vectors, vectors))[:, None]
