"""Paths over time: how noisy they are, which frames are wrong, and the path behind them.

A frame without a value is NaN. Legend: F frames, D coordinates, H bandwidths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.questions.cues import BoolArray, FloatArray

MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
THIRD = np.sqrt(20.0)  # standard deviation of a third difference of independent noise of 1: 1² + 3² + 3² + 1²
TINY = 1e-12


@dataclass(frozen=True)
class Smoothed:
    """`path` [F, D]; `noise`: the estimated standard deviation of a coordinate before smoothing, 0 where there are too
    few frames to tell; `outliers` [F]; `bandwidth` in frames, 0 where nothing was smoothed."""

    path: FloatArray
    noise: float
    outliers: BoolArray
    bandwidth: float


def noise_of(path: FloatArray) -> float:
    """Standard deviation of a coordinate's independent noise, from third differences: a parabola has none.

    Robust: half of the frames may be anything. Noise that drifts slowly is not seen.
    """
    third = np.diff(path, 3, axis=0)
    third = third[np.isfinite(third).all(axis=1)]
    return float(MAD * np.median(np.abs(third)) / THIRD) if len(third) >= 4 else 0.0


def spikes(path: FloatArray, noise: float, errors: float, least: float) -> BoolArray:
    """[F] frames that neither side foretells: `errors` standard errors and `least` away from all three guesses.

    The guesses are the line through the two frames before, that through the two after, and the middle of both
    neighbours. Where something bounces, one of the sides is right; where a detector slips, none is.
    """
    before, after = _shifted(path, 1), _shifted(path, -1)
    guesses = [
        (2 * before - _shifted(path, 2), 6.0),  # variance of the difference to it, for independent noise of 1
        (2 * after - _shifted(path, -2), 6.0),
        ((before + after) / 2, 1.5),
    ]
    away = np.ones(len(path), bool)
    known = np.zeros(len(path), bool)
    for guess, variance in guesses:
        distance = np.linalg.norm(path - guess, axis=1)
        told = np.isfinite(distance)
        border = max(least, errors * noise * np.sqrt(variance))
        away &= ~told | (np.nan_to_num(distance) > border)
        known |= told
    # Beside an outlier the guesses are wrong too: of neighbours only the worst one is.
    found = away & known & np.isfinite(path).all(axis=1)
    worst = np.where(found, np.nan_to_num(np.linalg.norm(path - guesses[2][0], axis=1), nan=0.0), 0.0)
    for frame in np.flatnonzero(found):
        near = worst[max(frame - 1, 0) : frame + 2]
        found[frame] = worst[frame] >= near.max() - TINY
    return found


def smoothed(
    path: FloatArray,
    bandwidths: Sequence[float],
    least_noise: float,
    gap: int,
    spike: tuple[float, float],
    weights: FloatArray | None = None,
) -> Smoothed:
    """A local parabola under a Gaussian window through what is known. Gaps of at most `gap` frames are filled.

    `weights` [F]: how far each frame is trusted. `spike`: `errors` and `least` of `spikes`. Below `least_noise` known
    frames stay as they are.
    """
    noise = noise_of(path)
    outliers = spikes(path, noise, *spike)
    kept = np.where(outliers[:, None], np.nan, path)
    trust = np.isfinite(kept).all(axis=1) * (np.ones(len(path)) if weights is None else np.nan_to_num(weights))
    wanted = _within(trust > 0, gap)
    bandwidth = 0.0
    found = _filled(kept, trust > 0)
    if noise >= least_noise and (trust > 0).sum() > 4:
        fits = [(0.0, np.eye(len(path))), *((width, _matrix(trust, width)) for width in bandwidths)]
        bandwidth, matrix = min(fits, key=lambda fit: _risk(kept, trust, fit[1], noise))
        found = matrix @ np.nan_to_num(kept) if bandwidth else found
    return Smoothed(np.where(wanted[:, None], found, np.nan), noise, outliers, bandwidth)


def _shifted(path: FloatArray, by: int) -> FloatArray:
    """The value `by` frames before; NaN where there is no such frame."""
    out = np.full_like(path, np.nan)
    if by > 0:
        out[by:] = path[:-by]
    else:
        out[:by] = path[-by:]
    return out


def _within(known: BoolArray, gap: int) -> BoolArray:
    """Known frames, and those between two known ones that are at most `gap` frames apart from each other."""
    wanted = known.copy()
    places = np.flatnonzero(known)
    for start, end in pairwise(places.tolist()):
        if end - start - 1 <= gap:
            wanted[start:end] = True
    return wanted


def _filled(path: FloatArray, known: BoolArray) -> FloatArray:
    """Straight lines over the unknown frames; known ones stay exactly as they are."""
    if not known.any():
        return np.full_like(path, np.nan)
    frames = np.arange(len(path))
    lines = [np.interp(frames, frames[known], column[known]) for column in path.T]
    return np.where(known[:, None], path, np.stack(lines, axis=1))


def _matrix(trust: FloatArray, width: float) -> FloatArray:
    """[F, F] what makes the fitted path of the given one: a weighted local parabola, or less where few frames are."""
    frames = np.arange(len(trust), dtype=float)
    rows = []
    for frame in frames:
        away = (frames - frame) / width
        weight = trust * np.exp(-0.5 * away**2)
        basis = np.stack([away**power for power in range(3)])
        normal = (basis * weight) @ basis.T
        # A trace of ridge on slope and bend: with two frames under the window they stay near zero.
        normal += np.diag([TINY, 1e-6, 1e-6])
        rows.append(np.linalg.solve(normal, basis * weight)[0])
    return np.stack(rows)


def _risk(path: FloatArray, trust: FloatArray, matrix: FloatArray, noise: float) -> float:
    """Mallows' Cp of one coordinate: the fit's squared error as far as the data tell it."""
    known = trust > 0
    left = (path - matrix @ np.nan_to_num(path))[known]
    return float((left**2).sum() + 2 * noise**2 * path.shape[1] * np.trace(matrix[np.ix_(known, known)]))
