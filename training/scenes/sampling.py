"""From a seed to a scene: the camera, then one object after another where it is seen and meets no other.

Legend: F frames, K candidate paths, J objects that are there already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from training.questions.cues import FloatArray
from training.scenes import motion
from training.scenes.cameras import camera_path
from training.scenes.catalogue import COLOURS, KINDS, Kind
from training.scenes.config import SceneConfig
from training.scenes.looks import sample_look
from training.scenes.motion import MOVES, Paths
from training.scenes.scene import Body, Scene, project

CANDIDATES = 48
TRIES = 5
RESTARTS = 50
NEAREST, FARTHEST = 1.5, 13.0  # metres from the camera: to what is around a large object, and to its middle
SEEN_SHARE = 0.8  # of the frames in which the middle of an object is inside the picture
SLOWER = 0.85  # times the speed after every try that found no room
GAP = 0.1  # metres between the circles around two objects
NEAR_ANOTHER = 0.4  # how often a path is put near an object that is there already
LONGEST = 0.4  # how often the longest of the paths that fit is taken
SCALES = (0.88, 1.18)


@dataclass(frozen=True)
class _Placed:
    body: Body
    radius: float
    height: float


def sample_scene(seed: int, config: SceneConfig = SceneConfig()) -> Scene:
    """The same scene for the same seed and config. Names, kinds and colours of its objects are all different.

    At least one object is an agent that need not stay where it is. RuntimeError when they find no room, which only
    a far too small stage can cause.
    """
    rng = np.random.default_rng(seed)
    times = _times(rng, config)
    move = str(rng.choice(config.camera_moves))
    poses = camera_path(rng, move, config)
    view = rng.uniform(*config.field_of_view)
    focal = max(config.size) / 2 / np.tan(np.radians(view) / 2)
    scene = Scene(seed, config, times, poses, float(focal), (), sample_look(rng), move)
    for _ in range(RESTARTS):
        bodies = _bodies(rng, scene)
        if len(bodies) >= config.objects[0]:
            return replace(scene, bodies=bodies)
    raise RuntimeError(f"scene {seed}: no room for {config.objects[0]} objects on a stage of {config.stage} m")


def _bodies(rng: Generator, scene: Scene) -> tuple[Body, ...]:
    """As many of a new cast as find room beside those before them; none without the first, which is an agent."""
    placed: list[_Placed] = []
    for kind, colour, stays in _cast(rng, scene.config):
        one = _place(rng, kind, colour, stays, scene, placed)
        if one is not None:
            placed.append(one)
        elif not placed:
            break
    return tuple(one.body for one in placed)


def _times(rng: Generator, config: SceneConfig) -> FloatArray:
    """[F] seconds. The interval is a whole number of milliseconds, so that a video file can state it exactly."""
    intervals = config.frames - 1
    least = int(np.ceil(1000 * config.seconds[0] / intervals))
    most = max(least, int(1000 * config.seconds[1] / intervals))
    return np.arange(config.frames) * int(rng.integers(least, most + 1)) / 1000


def _cast(rng: Generator, config: SceneConfig) -> list[tuple[Kind, str, bool]]:
    """Kind, colour and whether it stays where it is. The first is an agent that need not stay."""
    count = int(rng.integers(config.objects[0], config.objects[1] + 1))
    agents = [kind for kind in KINDS if kind.is_agent]
    first = agents[rng.integers(len(agents))]
    others = [kind for kind in KINDS if kind is not first]
    kinds = [first, *(others[index] for index in rng.permutation(len(others))[: count - 1])]
    colours = rng.permutation(list(COLOURS))[:count]
    stays = rng.random(count) < config.still_share * np.where([kind.is_agent for kind in kinds], 0.7, 1.3)
    stays[0] = False
    return [(kind, str(colour), bool(stay)) for kind, colour, stay in zip(kinds, colours, stays, strict=True)]


def _place(rng: Generator, kind: Kind, colour: str, stays: bool, scene: Scene, placed: list[_Placed]) -> _Placed | None:
    """One of many candidate paths that is in sight, on the stage, and clear of the camera and of the others."""
    scale = rng.uniform(*SCALES)
    radius, height = kind.radius * scale, kind.height * scale
    for attempt in range(TRIES):
        if stays:
            paths = motion.still(rng, kind.habit, CANDIDATES, scene.config)
        else:
            paths = motion.moving(rng, kind.habit, CANDIDATES, scene.config, SLOWER**attempt)
        centres = _somewhere(rng, paths.feet, scene, placed)
        centres[..., 2] += height / 2
        fits = _in_sight(scene, centres, radius) & _clear(centres, radius, height, placed)
        fits &= np.hypot(centres[..., 0], centres[..., 1]).max(axis=1) < scene.config.stage
        if fits.any():
            chosen = _chosen(rng, paths, fits)
            axes = _axes(rng, kind, paths, chosen, radius)
            moves = tuple(dict.fromkeys(MOVES[index] for index in paths.moves[chosen]))
            body = Body(
                kind.name, colour, kind.is_agent, kind.parts(COLOURS[colour], scale), centres[chosen], axes, moves
            )
            return _Placed(body, radius, height)
    return None


def _chosen(rng: Generator, paths: Paths, fits: np.ndarray) -> int:
    """Slow paths fit more often, so that now and then the longest one is taken instead of the first."""
    if rng.random() < LONGEST:
        return int(np.where(fits, np.abs(np.diff(paths.travelled, axis=1)).sum(axis=1), -1.0).argmax())
    return int(fits.argmax())


def _somewhere(rng: Generator, feet: FloatArray, scene: Scene, placed: list[_Placed]) -> FloatArray:
    """[K, F, 3] the paths, moved on the ground: around a point of the stage, or around that of another object."""
    count = len(feet)
    radius, angle = scene.config.stage * np.sqrt(rng.random(count)), rng.uniform(-np.pi, np.pi, count)
    middle = 0.8 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    if placed and rng.random() < NEAR_ANOTHER:
        other = placed[rng.integers(len(placed))].body.centres
        middle = other[rng.integers(len(other), size=count), :2] + rng.normal(0, 1.2, (count, 2))
    moved = feet.copy()
    moved[..., :2] += (middle - (feet[..., :2].min(axis=1) + feet[..., :2].max(axis=1)) / 2)[:, None]
    return moved


def _in_sight(scene: Scene, centres: FloatArray, radius: float) -> np.ndarray:
    """[K] bool: most of the time in the picture, and never too near nor too far."""
    column, row, depth = np.moveaxis(project(scene, centres), -1, 0)
    width, height = scene.config.size
    inside = (depth > 0) & (column > 0) & (column < width) & (row > 0) & (row < height)
    eyes = scene.camera_to_world[:, :3, 3]
    apart = np.linalg.norm(centres - eyes, axis=-1)
    seen = inside.mean(axis=1) >= SEEN_SHARE
    return seen & (apart.min(axis=1) > NEAREST + 1.6 * radius) & (apart.max(axis=1) < FARTHEST)


def _clear(centres: FloatArray, radius: float, height: float, placed: list[_Placed]) -> np.ndarray:
    """[K] bool: upright cylinders around the objects never meet."""
    clear = np.ones(len(centres), bool)
    for other in placed:
        offset = centres - other.body.centres
        beside = np.hypot(offset[..., 0], offset[..., 1]) > radius + other.radius + GAP
        above = np.abs(offset[..., 2]) > (height + other.height) / 2 + GAP
        clear &= (beside | above).all(axis=1)
    return clear


def _axes(rng: Generator, kind: Kind, paths: Paths, chosen: int, radius: float) -> FloatArray:
    """[F, 3, 3] columns forward, left, up. A ball rolls; what has neither front nor wheels keeps its side or spins."""
    yaw, pitch = paths.yaw[chosen], paths.pitch[chosen]
    if kind.habit == "ball":
        pitch = -paths.travelled[chosen] / radius + rng.uniform(0, 2 * np.pi)
    elif not kind.is_agent and rng.random() < 0.5:
        yaw = np.full_like(yaw, yaw[0])
    nothing = np.zeros_like(yaw)
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=1)
    left = np.stack([-np.sin(yaw), np.cos(yaw), nothing], axis=1)
    return np.stack([forward, left, np.cross(forward, left)], axis=2)
