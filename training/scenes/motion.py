"""How things move: many candidate paths at once, from segments of driving, turning, stopping, spinning, reversing.

Speeds and rates are piecewise constant, then smoothed, so that a path has no jump in speed. Time is counted in frames.

Legend: K candidate paths, S segments, N fine steps, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from training.questions.cues import FloatArray
from training.scenes.config import SceneConfig

FINE = 4  # steps of the integration from a frame to the next
SEGMENTS = 4
MOVES = ("cruise", "turn", "stop", "spin", "reverse", "sidestep")
# How often each move is drawn, by habit.
HABITS: dict[str, tuple[float, ...]] = {
    "vehicle": (0.42, 0.34, 0.14, 0.00, 0.10, 0.00),
    "walker": (0.34, 0.26, 0.12, 0.13, 0.08, 0.07),
    "bird": (0.40, 0.40, 0.08, 0.06, 0.00, 0.06),
    "ball": (0.50, 0.22, 0.16, 0.00, 0.12, 0.00),
    "thing": (0.42, 0.22, 0.20, 0.08, 0.08, 0.00),
    "balloon": (0.45, 0.35, 0.12, 0.00, 0.08, 0.00),
}
FLIES = {"bird": 1.0, "balloon": 1.0, "ball": 0.12, "thing": 0.15}  # how often a body of this habit leaves the ground
BOUNCES = 0.3  # how often a ball that does not fly bounces
HEIGHTS = (0.5, 3.4)  # metres between a flying body's foot and the ground
STEEPEST = np.radians(50)


@dataclass(frozen=True)
class Paths:
    """`feet` [K, F, 3] metres around the world's origin; `yaw`, `pitch` [K, F] radians, to the left and upwards.

    `travelled` [K, F] metres along the path, less where it went backwards. `moves` [K, S] indices into `MOVES`, and
    `ends` [K, S] the frame at which each ends.
    """

    feet: FloatArray
    yaw: FloatArray
    pitch: FloatArray
    travelled: FloatArray
    moves: np.ndarray
    ends: FloatArray


def still(rng: Generator, habit: str, count: int, config: SceneConfig) -> Paths:
    """Paths that stay where they are. What flies hangs in the air."""
    feet = np.zeros((count, config.frames, 3))
    if rng.random() < FLIES.get(habit, 0):
        feet[..., 2] = rng.uniform(*HEIGHTS, (count, 1))
    yaw = np.broadcast_to(rng.uniform(-np.pi, np.pi, (count, 1)), (count, config.frames))
    nothing, stop = np.zeros((count, config.frames)), np.full((count, SEGMENTS), MOVES.index("stop"))
    return Paths(feet, yaw, nothing, nothing, stop, np.full((count, SEGMENTS), config.frames - 1.0))


def moving(rng: Generator, habit: str, count: int, config: SceneConfig, pace: float = 1.0) -> Paths:
    """`count` paths of one habit from the world's origin to anywhere, with `pace` times the speeds of the config."""
    frames, fine = config.frames, (config.frames - 1) * FINE
    ends = np.sort(rng.uniform(0, frames - 1, (count, SEGMENTS)), axis=1)
    ends[:, -1] = frames - 1
    moves = rng.choice(len(MOVES), (count, SEGMENTS), p=HABITS[habit])
    speeds, turns, slips = _segments(rng, moves, config)
    flies = rng.random() < FLIES.get(habit, 0)
    climbs = rng.choice([-1, 0, 1], moves.shape) * rng.uniform(0.05, 0.25, moves.shape) * flies
    clock = (np.arange(fine) + 0.5) / FINE
    segment = (clock[None, :, None] >= ends[:, None, :-1]).sum(axis=2)
    speed, turn, slip, climb = _smoothed(rng, np.stack([pace * speeds, turns, slips, climbs]), segment)
    yaw = _summed(turn) + rng.uniform(-np.pi, np.pi, (count, 1))
    course = (yaw[:, 1:] + yaw[:, :-1]) / 2 + slip
    feet = np.stack([_summed(speed * np.cos(course)), _summed(speed * np.sin(course)), _summed(climb)], axis=2)
    feet, yaw = feet[:, ::FINE], yaw[:, ::FINE]
    pitch = np.zeros_like(yaw)
    if flies:
        feet[..., 2] += rng.uniform(*HEIGHTS, (count, 1)) - feet[..., 2].mean(axis=1, keepdims=True)
        feet[..., 2] = _folded(feet[..., 2], *HEIGHTS)
    elif habit == "ball" and rng.random() < BOUNCES:
        feet[..., 2] = _bounces(rng, count, frames)
    if habit == "bird":
        pitch = _pitch(feet)
    return Paths(feet, yaw, pitch, _summed(speed)[:, ::FINE], moves, ends)


def _segments(rng: Generator, moves: np.ndarray, config: SceneConfig) -> tuple[FloatArray, FloatArray, FloatArray]:
    """[K, S] speed along the course in metres a frame, turn in radians a frame, slip between front and course."""
    cruise, turn, stop, spin, reverse, sidestep = (moves == index for index in range(len(MOVES)))
    least, most = config.steps
    speeds = np.exp(rng.uniform(np.log(least), np.log(most), moves.shape))
    speeds = np.where(stop | spin, 0.0, np.where(reverse, -0.7 * speeds, speeds))
    side = rng.choice([-1, 1], moves.shape)
    turns = np.where(turn, side * rng.uniform(0.08, 0.24, moves.shape), 0.0)
    turns = np.where(spin, side * rng.uniform(0.12, 0.35, moves.shape), turns)
    turns = np.where(cruise, side * rng.uniform(0.0, 0.03, moves.shape), turns)
    return speeds, turns, np.where(sidestep, side * np.pi / 2, 0.0)


def _smoothed(rng: Generator, values: FloatArray, segment: np.ndarray) -> FloatArray:
    """[V, K, S] values of segments to [V, K, N] along the fine steps, averaged over 1.5 to 6 frames."""
    width = int(rng.uniform(1.5, 6) * FINE)
    stepped = np.take_along_axis(values, np.broadcast_to(segment, (len(values), *segment.shape)), axis=2)
    padded = np.pad(stepped, ((0, 0), (0, 0), (width // 2 + 1, width - width // 2 - 1)), mode="edge")
    sums = np.concatenate([np.zeros_like(padded[..., :1]), np.cumsum(padded, axis=2)], axis=2)
    return (sums[..., width:] - sums[..., :-width])[..., : segment.shape[1]] / width


def _summed(steps: FloatArray) -> FloatArray:
    """[K, N] rates a frame to [K, N + 1] their integral, from 0."""
    return np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1) / FINE


def _folded(heights: FloatArray, low: float, high: float) -> FloatArray:
    """Turns what would leave [low, high] back into it, gently: a sine of the excess instead of a mirror."""
    middle, reach = (low + high) / 2, (high - low) / 2
    return middle + reach * np.sin(np.clip((heights - middle) / reach, -2.5, 2.5))


def _bounces(rng: Generator, count: int, frames: int) -> FloatArray:
    """[K, F] heights of parabolas, each lower than the one before it."""
    period = rng.uniform(7, 14, (count, 1))
    phase = np.arange(frames) / period + rng.uniform(0, 1, (count, 1))
    high = rng.uniform(0.5, 1.6, (count, 1)) * 0.7 ** np.floor(phase)
    part = phase % 1
    return high * 4 * part * (1 - part)


def _pitch(feet: FloatArray) -> FloatArray:
    """[K, F] a bird points where it flies; when it hovers, ahead."""
    steps = np.gradient(feet, axis=1)
    along = np.maximum(np.hypot(steps[..., 0], steps[..., 1]), 0.12)
    return np.clip(np.arctan2(steps[..., 2], along), -STEEPEST, STEEPEST)
