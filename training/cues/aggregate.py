"""From frames to paths: one unit of length, the vertical, steady cameras, smooth centres and fronts.

π³ has no scale and no vertical; its errors differ from frame to frame, and a question about speed reads differences of
frames. Cameras are smoothed first, then centres in the world of the smoothed cameras: so the error of a pose leaves
what the camera sees of a thing as it is.

Legend: F frames, N things.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cues.measure import Measured
from training.cues.rotations import level, quaternion_of, rotation_of
from training.cues.settings import Settings
from training.cues.smoothing import Smoothed, smoothed
from training.questions.cues import BoolArray, Cues, FloatArray, Track
from training.questions.viewpoints import SURE

LEVEL = 0.05  # weight of "cameras are held upright" beside "their x axis is level", which a camera that turns shows


@dataclass(frozen=True)
class PathNoise:
    """What a video's own paths show of their noise before smoothing, standard deviations.

    `turn` degrees and `move` units of the camera; `centre` units, and `front` degrees, each of the median thing;
    0 where nothing tells. What drifts slowly is not seen.
    """

    turn: float
    move: float
    centre: float
    front: float

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Aggregated:
    """Things are in the order of the cues' tracks. `outliers` [N]: frames of each that were thrown away; `bandwidths`
    [N] frames; `scale`: what lengths were multiplied by; `travel` [N]: how far each thing gets from where it starts;
    `noises` [N] of the centres."""

    cues: Cues
    noise: PathNoise
    scale: float
    outliers: list[int]
    bandwidths: list[float]
    travel: FloatArray
    noises: FloatArray

    def facts(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "noise": self.noise.as_json(),
            "outliers": self.outliers,
            "bandwidths": self.bandwidths,
            "travel": np.round(self.travel, 4).tolist(),
        }


def aggregate(video: str, measured: Measured, settings: Settings) -> Aggregated:
    scale = scale_of(measured, settings)
    upright = level(vertical(measured))
    poses = measured.poses.copy()
    poses[:, :3, 3] *= scale
    poses[:, :3] = upright @ poses[:, :3]
    poses, turn, move = _steady(poses, settings)
    rotations = poses[:, :3, :3]
    world = np.einsum("fij,nfj->nfi", rotations, measured.centres * scale) + poses[None, :, :3, 3]
    usable = visible(measured, settings)
    paths = [_path(centres, seen, settings) for centres, seen in zip(world, measured.present, strict=True)]
    fronts = np.einsum("fij,nfj->nfi", rotations, measured.forward)
    tracks, turned = [], []
    for number, path in enumerate(paths):
        forward, confidence = None, np.minimum(measured.present[number], measured.score[number])
        if measured.agent[number]:
            front, confidence = facing(fronts[number], measured.sure[number], settings)
            forward = front.path
            turned.append(np.degrees(front.noise))
        known = usable[number] & np.isfinite(path.path).all(axis=1)
        name = str(measured.names[number])
        tracks.append(Track(name, path.path, measured.boxes[number], known, confidence, forward))
    width, height = (int(side) for side in measured.size)
    order = sorted(range(len(tracks)), key=lambda number: tracks[number].name)  # that of the cues
    paths = [paths[number] for number in order]
    noises = np.array([path.noise for path in paths])
    noise = PathNoise(np.degrees(turn), move, _middle(noises), _middle(np.array(turned)))
    return Aggregated(
        cues=Cues.of(video, measured.times, poses, (width, height), *tracks),
        noise=noise,
        scale=scale,
        outliers=[int(path.outliers.sum()) for path in paths],
        bandwidths=[path.bandwidth for path in paths],
        travel=np.array([_travel(path.path) for path in paths]),
        noises=noises,
    )


def scale_of(measured: Measured, settings: Settings) -> float:
    """What makes the median depth of all valid points `median_depth`; 1 where lengths are metres or nothing is valid.

    The median over all frames and pixels: neither a thing that comes near nor the sky's wild points move it.
    """
    if measured.metric or not np.isfinite(measured.depth) or measured.depth <= 0:
        return 1.0
    return settings.median_depth / float(measured.depth)


def vertical(measured: Measured) -> FloatArray:
    """[3] the world's up: as the geometry states it, or as agents stand, or as cameras are held.

    Things that stand show it better than a camera that looks down. Of cameras: their x axes are level, which fixes it
    when they turn; where they do not, their mean up is taken.
    """
    if np.isfinite(measured.up).all():
        return measured.up
    own = np.einsum("fij,nfj->nfi", measured.poses[:, :3, :3], measured.up_axis)
    sure = np.isfinite(own).all(axis=2) & (measured.sure >= SURE)
    if sure.sum() >= len(measured.poses) // 2:
        return _unit(np.median(own[sure], axis=0))
    across, mean = measured.poses[:, :3, 0], _unit(-measured.poses[:, :3, 1].mean(axis=0))
    return _unit(np.linalg.solve(across.T @ across / len(across) + LEVEL * np.eye(3), LEVEL * mean))


def visible(measured: Measured, settings: Settings) -> BoolArray:
    """[N, F] enough of it is seen to ask about it."""
    return (measured.present >= settings.least_present) & (measured.area > settings.least_area)


def facing(fronts: FloatArray, sure: FloatArray, settings: Settings) -> tuple[Smoothed, FloatArray]:
    """The front [F, 3] over time as unit vectors, and its confidence [F].

    A front that flips for a frame, as estimators of single pictures do, is an outlier: it takes what its neighbours
    say, and their confidence. `noise` is in radians.
    """
    found = smoothed(fronts, settings.bandwidths, np.radians(settings.least_turn), settings.gap,
                     (settings.spike, 2 * np.sin(np.radians(45))), sure)  # fmt: skip
    lengths = np.linalg.norm(found.path, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        path = np.where(lengths > 0.2, found.path / lengths, np.nan)
    filled = np.isfinite(path).all(axis=1) & (found.outliers | ~np.isfinite(fronts).all(axis=1))
    kept = np.flatnonzero(np.isfinite(fronts).all(axis=1) & ~found.outliers)
    confidence = np.nan_to_num(sure).copy()
    if len(kept):
        confidence[filled] = np.interp(np.flatnonzero(filled), kept, confidence[kept])
    return replace(found, path=path), confidence


def _path(centres: FloatArray, present: FloatArray, settings: Settings) -> Smoothed:
    there = np.where(np.asarray(present >= settings.least_present)[:, None], centres, np.nan)
    found = _smoothed(there, settings)
    # Where it is hidden the masks' scraps still tell something: better than nothing for what lies in between.
    alone = np.asarray(~np.isfinite(found.path).all(axis=1) & np.isfinite(centres).all(axis=1))
    return replace(found, path=np.where(alone[:, None], centres, found.path))


def _smoothed(path: FloatArray, settings: Settings) -> Smoothed:
    spike = (settings.spike, settings.least_spike)
    return smoothed(path, settings.bandwidths, settings.least_noise, settings.gap, spike)


def _steady(poses: FloatArray, settings: Settings) -> tuple[FloatArray, float, float]:
    """The cameras' path, and its noise: radians about an axis, and units.

    Rotations are smoothed as quaternions, whose signs follow each other: so a camera may turn as far as it likes.
    """
    spike = (settings.spike, settings.least_spike)
    places = smoothed(
        poses[:, :3, 3], settings.bandwidths, settings.least_camera_move, settings.gap, spike, together=True
    )
    turns = np.stack([quaternion_of(rotation) for rotation in poses[:, :3, :3]])
    for frame in range(1, len(turns)):
        turns[frame] *= np.sign(turns[frame] @ turns[frame - 1]) or 1.0
    # A quaternion has half the angle, and the noise of three axes in four numbers.
    spike = (settings.spike, np.radians(settings.camera_spike) / 2)
    least = np.radians(settings.least_camera_turn) / 2 * np.sqrt(3 / 4)
    found = smoothed(turns, settings.bandwidths, least, settings.gap, spike, together=True)
    steady = poses.copy()
    if np.isfinite(places.path).all():  # a long gap of outliers leaves the poses as they are
        steady[:, :3, 3] = places.path
    if (found.bandwidth or found.outliers.any()) and np.isfinite(found.path).all():
        steady[:, :3, :3] = np.stack([rotation_of(turn) for turn in found.path])
    return steady, 2 * found.noise * float(np.sqrt(4 / 3)), places.noise


def _travel(path: FloatArray) -> float:
    known = path[np.isfinite(path).all(axis=1)]
    return float(np.linalg.norm(known - known[0], axis=1).max()) if len(known) else 0.0


def _middle(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _unit(vector: NDArray[np.floating[Any]]) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), np.float64)
