"""Scenes without pictures: things that drive, walk, roll, stop and turn before a moving camera.

`scenes` gives as many as a test wants. What a class of things is called goes with how it moves, as in real videos, and
nearer things are larger in the picture: whoever reads only the question has something to guess from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TypedDict

import numpy as np

from training.questions.cues import BoolArray, Cues, FloatArray, Track

FRAMES = 32
SIZE = (640, 360)
FOCAL = 420.0
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
MIRROR = np.diag([1.0, -1.0, 1.0])


class Motion(TypedDict):
    """Metres per frame, chance per frame of new ones, height of the centre in metres, length, width and height."""

    speed: float
    restless: float
    agent: bool
    height: float
    sides: tuple[float, float, float]


MOTIONS: dict[str, Motion] = {
    "car": {"speed": 0.6, "restless": 0.08, "agent": True, "height": 0.7, "sides": (4.2, 1.8, 1.5)},
    "person": {"speed": 0.25, "restless": 0.15, "agent": True, "height": 0.9, "sides": (0.4, 0.6, 1.7)},
    "dog": {"speed": 0.35, "restless": 0.25, "agent": True, "height": 0.3, "sides": (0.8, 0.3, 0.6)},
    "bird": {"speed": 0.5, "restless": 0.3, "agent": True, "height": 2.5, "sides": (0.5, 0.7, 0.2)},
    "ball": {"speed": 0.4, "restless": 0.1, "agent": False, "height": 0.2, "sides": (0.4, 0.4, 0.4)},
    "box": {"speed": 0.0, "restless": 0.0, "agent": False, "height": 0.4, "sides": (0.8, 0.8, 0.8)},
}


@dataclass(frozen=True)
class Path:
    """`centres` [F, 3] and `forward` [F, 3] in world axes."""

    centres: FloatArray
    forward: FloatArray


def scenes(count: int, seed: int = 0, frames: int = FRAMES) -> list[Cues]:
    return [scene(np.random.default_rng([seed, index]), f"clip-{index:04}", frames) for index in range(count)]


def scene(random: np.random.Generator, video: str, frames: int = FRAMES) -> Cues:
    """Three to six things near the origin; a camera that looks at them, still, panning or driving."""
    poses = _camera(random, frames)
    classes = random.choice(list(MOTIONS), size=random.integers(3, 7), p=[0.25, 0.3, 0.13, 0.1, 0.12, 0.1])
    tracks = []
    for number, noun in enumerate(classes):
        colour = COLOURS[(number + int(random.integers(6))) % 6]
        tracks.append(track(f"{colour} {noun}", MOTIONS[str(noun)], _path(random, MOTIONS[str(noun)], frames), poses))
    return Cues.of(video, np.arange(frames) * random.choice([0.1, 0.2, 0.3]), poses, SIZE, *tracks)


def track(name: str, motion: Motion, path: Path, poses: FloatArray) -> Track:
    """What the camera sees of a box around the path."""
    boxes, visible = project(path, motion["sides"], poses)
    forward = path.forward if motion["agent"] else None
    return Track(name, path.centres, boxes, visible, np.ones(len(poses)), forward)


def project(path: Path, sides: tuple[float, float, float], poses: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Boxes [F, 4] in pixels, cut at the picture's border, and whether a good part of each is in the picture."""
    ahead, up = path.forward, np.broadcast_to([0.0, 0, 1], path.forward.shape)
    axes = np.stack([ahead, np.cross(up, ahead), up], axis=1)
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * sides
    world = path.centres[:, None] + corners @ axes - poses[:, None, :3, 3]
    x, y, z = np.moveaxis(np.einsum("fji,fcj->fci", poses[:, :3, :3], world), 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns, rows = SIZE[0] / 2 + FOCAL * x / z, SIZE[1] / 2 + FOCAL * y / z
    whole = np.stack([columns.min(1), rows.min(1), columns.max(1), rows.max(1)], axis=1)
    cut = np.clip(whole, 0, [*SIZE, *SIZE])
    area, seen = (whole[:, 2:] - whole[:, :2]).prod(1), (cut[:, 2:] - cut[:, :2]).prod(1)
    visible = (z.min(1) > 0.3) & (seen > 0.4 * area)
    return np.where(visible[:, None], cut, np.nan), visible


def mirrored(cues: Cues) -> Cues:
    """The same scene in a mirror that swaps the world's left and right, and so the picture's."""
    poses = cues.camera_to_world.copy()
    poses[:, :3, :3] = MIRROR @ poses[:, :3, :3] @ np.diag([-1.0, 1.0, 1.0])
    poses[:, :3, 3] = poses[:, :3, 3] @ MIRROR
    tracks = []
    for item in cues.tracks:
        forward = None if item.forward is None else item.forward @ MIRROR
        boxes = np.array([cues.size[0], 0, cues.size[0], 0]) + item.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
        tracks.append(replace(item, centres=item.centres @ MIRROR, boxes=boxes, forward=forward))
    return replace(cues, camera_to_world=poses, tracks=tuple(tracks))


def moved(cues: Cues, rotation: FloatArray, shift: FloatArray, scale: float = 1.0) -> Cues:
    """The same scene in other world coordinates. The pictures stay as they are."""
    poses = cues.camera_to_world.copy()
    poses[:, :3, :3] = rotation @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + shift
    tracks = tuple(
        replace(
            item,
            centres=scale * item.centres @ rotation.T + shift,
            forward=None if item.forward is None else item.forward @ rotation.T,
        )
        for item in cues.tracks
    )
    return replace(cues, camera_to_world=poses, tracks=tracks)


def backwards(cues: Cues) -> Cues:
    """The same scene played backwards, with the same clock."""
    tracks = tuple(
        Track(
            t.name,
            t.centres[::-1],
            t.boxes[::-1],
            t.visible[::-1],
            t.confidence[::-1],
            None if t.forward is None else t.forward[::-1],
        )
        for t in cues.tracks
    )
    return replace(cues, camera_to_world=cues.camera_to_world[::-1], tracks=tracks)


def looking(position: FloatArray, target: FloatArray) -> FloatArray:
    """[F, 4, 4] camera-to-world poses at `position` [F, 3] that look at `target` [F, 3], level."""
    forward = target - position
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.stack([forward[:, 1], -forward[:, 0], np.zeros(len(forward))], axis=1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(position), 1, 1))
    poses[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=2)
    poses[:, :3, 3] = position
    return poses


def turned(angle: float) -> FloatArray:
    """[3, 3] rotation about the vertical, counterclockwise from above."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _camera(random: np.random.Generator, frames: int) -> FloatArray:
    time = np.linspace(0, 1, frames)[:, None]
    angle, radius = random.uniform(0, 2 * np.pi), random.uniform(9, 16)
    start = np.array([radius * np.cos(angle), radius * np.sin(angle), random.uniform(1, 5)])
    travel, pan = random.normal(0, 4, 3) * [1, 1, 0.2], random.normal(0, 4, 3) * [1, 1, 0.3]
    still = random.random(2) < 0.3
    position = start + time * np.where(still[0], 0, travel)
    target = random.normal(0, 1.5, 3) * [1, 1, 0.3] + [0, 0, 1] + time * np.where(still[1], 0, pan)
    return looking(position, np.broadcast_to(target, (frames, 3)).copy())


def _path(random: np.random.Generator, motion: Motion, frames: int) -> Path:
    """Speed and turn keep their value until a new one is drawn; both are smoothed over a few frames."""
    speed, turn, climb = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    now = np.zeros(3)
    for frame in range(frames):
        if frame == 0 or random.random() < motion["restless"]:
            stopped = random.random() < 0.2
            now = random.uniform([0, -0.2, -0.3], [0 if stopped else 2, 0.2, 0.3]) * (1, random.random() < 0.6, 1)
        speed[frame], turn[frame], climb[frame] = now * [motion["speed"], 1, motion["speed"]]
    kernel = np.ones(3) / 3
    speed, turn = (np.convolve(np.pad(a, 1, mode="edge"), kernel, "valid") for a in (speed, turn))
    heading = random.uniform(0, 2 * np.pi) + np.cumsum(turn)
    forward = np.stack([np.cos(heading), np.sin(heading), np.zeros(frames)], axis=1)
    steps = forward * speed[:, None]
    steps[:, 2] = climb if motion["height"] > 2 else 0
    start = np.append(random.normal(0, 3, 2), motion["height"])
    middle = steps[: frames // 2].sum(0) * [1, 1, 0]
    return Path(start - middle + np.cumsum(steps, axis=0), forward)
