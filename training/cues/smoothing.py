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
ORDER = 4  # of the differences that show noise: those of a smooth turn are smaller with each order
FOURTH = np.sqrt(70.0)  # standard deviation of such a difference of independent noise of 1: 1² + 4² + 6² + 4² + 1²
LEAST = 4  # differences, to say anything of noise
TINY = 1e-12


@dataclass(frozen=True)
class Smoothed:
    """`path` [F, D]; `noise`: the estimated standard deviation of a coordinate before smoothing (root mean square over
    the coordinates), 0 where there are too few frames to tell; `outliers` [F]; `bandwidth` in frames, the widest of all
    axes, 0 where nothing was smoothed."""

    path: FloatArray
    noise: float
    outliers: BoolArray
    bandwidth: float


def noise_of(path: FloatArray) -> FloatArray:
    """[D] standard deviation of each coordinate's independent noise, from fourth differences: a cubic has none.

    Robust: half of the frames may be anything. Noise that drifts slowly is not seen.
    """
    found = _differences(path)
    if len(found) < LEAST:
        return np.zeros(path.shape[1])
    return MAD * np.median(np.abs(found), axis=0) / FOURTH


def noise_axes(path: FloatArray) -> FloatArray:
    """[D, D] orthonormal columns: the directions of the noise, by the signs of differences, which no outlier
    outweighs (their lengths do not count)."""
    found = _differences(path)
    lengths = np.linalg.norm(found, axis=1)
    found, lengths = found[lengths > TINY], lengths[lengths > TINY]
    if len(found) < LEAST:
        return np.eye(path.shape[1])
    signs = found / lengths[:, None]
    return np.asarray(np.linalg.eigh(signs.T @ signs)[1], np.float64)


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
    together: bool = False,
) -> Smoothed:
    """A local parabola under a Gaussian window through what is known. Gaps of at most `gap` frames are filled.

    Each axis of the noise has its own window: that of a depth lies along the ray, and what is seen across it, which is
    known far better, stays sharp; an axis with less noise than `least_noise` stays as it is. With `together` all
    coordinates have one window or none, because their noise is alike. `weights` [F]: how far each frame is trusted.
    `spike`: `errors` and `least` of `spikes`.
    """
    axes = np.eye(path.shape[1]) if together else noise_axes(path)
    own = noise_of(path @ axes)
    noise = float(np.sqrt((own**2).mean()))
    outliers = spikes(path, noise if together else float(own.max()), *spike)
    kept = np.where(outliers[:, None], np.nan, path)
    trust = np.isfinite(kept).all(axis=1) * (np.ones(len(path)) if weights is None else np.nan_to_num(weights))
    found, bandwidth = _filled(kept, trust > 0), 0.0
    if (noise if together else own.max()) >= least_noise and (trust > 0).sum() > LEAST:
        windows = [Window.of(trust, width) for width in bandwidths]
        if together:
            parts = [(found, _least_risk(found, trust > 0, windows, noise))]
        else:
            columns = zip((found @ axes).T[:, :, None], own, strict=True)
            parts = [(part, _least_gcv(part, trust > 0, windows) if size >= least_noise else None)
                     for part, size in columns]  # fmt: skip
        bandwidth = max(window.width if window else 0.0 for _, window in parts)
        if bandwidth:
            done = [window.matrix @ part if window else part for part, window in parts]
            found = np.concatenate(done, axis=1) @ axes.T
    wanted = _within(trust > 0, gap)
    return Smoothed(np.where(wanted[:, None], found, np.nan), noise, outliers, bandwidth)


@dataclass(frozen=True)
class Window:
    """`matrix` [F, F] makes the fitted path of the given one. `width` in frames."""

    width: float
    matrix: FloatArray

    @classmethod
    def of(cls, trust: FloatArray, width: float) -> Window:
        return cls(width, _matrix(trust, width))

    def left(self, part: FloatArray, known: BoolArray) -> tuple[float, float]:
        """Sum of squares of what the fit of [F, D] leaves of known frames, and the fit's degrees of freedom."""
        residuals = (part - self.matrix @ part)[known]
        return float((residuals**2).sum()), float(np.trace(self.matrix[np.ix_(known, known)]))


def _least_risk(part: FloatArray, known: BoolArray, windows: Sequence[Window], noise: float) -> Window | None:
    """By Mallows' Cp, none among them: with the noise of many coordinates alike it is known well enough."""

    def risk(window: Window) -> float:
        square, freedom = window.left(part, known)
        return square + 2 * noise**2 * part.shape[1] * freedom

    best = min(windows, key=risk)
    none = 2 * noise**2 * part.shape[1] * int(known.sum())
    return best if risk(best) < none else None


def _least_gcv(part: FloatArray, known: BoolArray, windows: Sequence[Window]) -> Window:
    """By generalised cross-validation, which needs no estimate of the noise: that of a single axis is a poor one."""

    def score(window: Window) -> float:
        square, freedom = window.left(part, known)
        return square / max(float(known.sum()) - freedom, TINY) ** 2

    return min(windows, key=score)


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


def _differences(path: FloatArray) -> FloatArray:
    found = np.diff(path, ORDER, axis=0)
    return found[np.isfinite(found).all(axis=1)]
