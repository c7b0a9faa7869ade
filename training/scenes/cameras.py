"""How the camera moves: it looks at the stage from outside, and stands, pans, orbits, dollies, tracks or rises.

World axes: right-handed, z up, metres. Camera axes: OpenCV, x right, y down, z forward.

Legend: F frames.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from training.questions.cues import FloatArray
from training.scenes.config import SceneConfig

DISTANCES = (5.5, 8.5)  # metres from the middle of the stage, on the ground
HEIGHTS = (1.3, 4.5)
LEAST_HEIGHT = 0.8


def camera_path(rng: Generator, move: str, config: SceneConfig) -> FloatArray:
    """[F, 4, 4] camera to world. The camera has no roll."""
    done = _progress(rng, config.frames)
    azimuth, distance, height = rng.uniform(-np.pi, np.pi), rng.uniform(*DISTANCES), rng.uniform(*HEIGHTS)
    target = np.append(rng.uniform(-1.0, 1.0, 2), rng.uniform(0.4, 1.1))
    start = _around(target, azimuth, distance, height)
    side = rng.choice([-1, 1])
    eyes, targets = np.tile(start, (config.frames, 1)), np.tile(target, (config.frames, 1))
    if move == "pan":
        swing = (done - 0.5) * side * np.radians(rng.uniform(15, 45))
        targets = _around(start, azimuth + np.pi + swing, distance, target[2])
    elif move == "orbit":
        sweep = done * side * np.radians(rng.uniform(30, 130))
        eyes = _around(target, azimuth + sweep, distance, height)
    elif move == "dolly":
        far, near = distance + rng.uniform(0, 2.5), distance - rng.uniform(1.0, 2.5)
        eyes = _around(target, azimuth, far + (done if side > 0 else 1 - done) * (near - far), height)
    elif move == "track":
        along = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0]) * side * rng.uniform(2.0, 5.0)
        eyes = eyes + (done[:, None] - 0.5) * along
        targets = targets + (done[:, None] - 0.5) * along * rng.uniform(0.3, 1.0)
    elif move == "crane":
        eyes = eyes + (done[:, None] - 0.5) * np.array([0.0, 0.0, side * rng.uniform(1.5, 4.0)])
    eyes[:, 2] = np.maximum(eyes[:, 2], LEAST_HEIGHT)
    return look_at(eyes, targets)


def look_at(eyes: FloatArray, targets: FloatArray) -> FloatArray:
    """[F, 3] positions and what is in the middle of the picture -> [F, 4, 4] camera to world, upright."""
    forward = targets - eyes
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(eyes), 1, 1))
    poses[:, :3] = np.stack([right, np.cross(forward, right), forward, eyes], axis=2)
    return poses


def _around(centre: FloatArray, azimuth: FloatArray | float, distance: FloatArray | float, height: float) -> FloatArray:
    """[..., 3] points at `height`, at a distance on the ground from `centre`."""
    flat = np.stack(np.broadcast_arrays(np.cos(azimuth), np.sin(azimuth)), axis=-1) * np.asarray(distance)[..., None]
    return np.concatenate([centre[:2] + flat, np.full((*flat.shape[:-1], 1), height)], axis=-1)


def _progress(rng: Generator, frames: int) -> FloatArray:
    """[F] from 0 to 1, never back: even, or with changes of speed and stops, smoothed over four frames."""
    if rng.random() < 0.35:
        return np.linspace(0.0, 1.0, frames)
    speeds = rng.choice([0.0, 0.3, 1.0, 2.0], 3, p=[0.2, 0.2, 0.4, 0.2]) + 1e-3
    ends = np.sort(rng.uniform(0, frames - 1, 2))
    speed = speeds[(np.arange(frames - 1)[:, None] >= ends).sum(axis=1)]
    speed = np.convolve(np.pad(speed, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    done = np.append(0.0, np.cumsum(speed))
    return done / done[-1]
