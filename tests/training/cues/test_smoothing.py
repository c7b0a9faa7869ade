"""Paths: their noise is seen, slips are thrown away, motion is kept."""

from __future__ import annotations

import numpy as np
import pytest

from training.cues.smoothing import Smoothed, noise_of, smoothed, spikes
from training.questions.cues import FloatArray

FRAMES = np.arange(32.0)
WIDTHS = (1.5, 2.5, 4.0)


def curve() -> FloatArray:
    """A walk that turns, half a unit a frame."""
    angle = 0.05 * FRAMES
    return 0.5 * np.stack([np.cumsum(np.cos(angle)), np.cumsum(np.sin(angle)), 0.1 * FRAMES], axis=1)


def noisy(size: float, seed: int = 0) -> FloatArray:
    return curve() + size * np.random.default_rng(seed).standard_normal((32, 3))


def smooth(path: FloatArray, gap: int = 2, least: float = 0.015, weights: FloatArray | None = None) -> Smoothed:
    return smoothed(path, WIDTHS, least, gap, (4.0, 0.3), weights)


def test_noise_is_estimated_and_a_cubic_has_none() -> None:
    found = [noise_of(noisy(0.1, seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(0.1, rel=0.1)
    assert noise_of(np.stack([FRAMES, FRAMES**3 / 100, 0 * FRAMES], axis=1)).max() == pytest.approx(0, abs=1e-10)


def test_noise_along_a_ray_is_smoothed_along_it_alone() -> None:
    ray = np.array([2.0, -1.0, 0.5]) / np.linalg.norm([2.0, -1.0, 0.5])
    along, across, noises = [], [], []
    for seed in range(10):
        found = smooth(curve() + 0.3 * np.random.default_rng(seed).standard_normal((32, 1)) * ray)
        noises.append(found.noise * np.sqrt(3))
        away = (found.path - curve())[np.isfinite(found.path).all(axis=1)]
        along.append((away @ ray).std())
        across.append((away - np.outer(away @ ray, ray)).std())
    assert np.median(noises) == pytest.approx(0.3, rel=0.2)
    assert np.mean(along) < 0.6 * 0.3
    assert np.mean(across) < 0.02


def test_what_has_no_noise_stays_exactly_as_it_is() -> None:
    found = smooth(curve())
    np.testing.assert_array_equal(found.path, curve())
    assert found.bandwidth == 0
    assert not found.outliers.any()


@pytest.mark.parametrize("size", [0.05, 0.2, 0.5])
def test_smoothing_comes_nearer_to_the_truth(size: float) -> None:
    before = [np.sqrt(((noisy(size, seed) - curve()) ** 2).mean()) for seed in range(10)]
    after = [np.sqrt(((smooth(noisy(size, seed)).path - curve()) ** 2).mean()) for seed in range(10)]
    assert np.mean(after) < 0.7 * np.mean(before)


def test_more_noise_takes_a_wider_window() -> None:
    sharp = np.where(FRAMES[:, None] < 16, 0.0, FRAMES[:, None] - 16) * np.ones(3) * 0.5  # stands, then goes
    random = np.random.default_rng(0).standard_normal((32, 3))
    assert smooth(sharp + 0.03 * random).bandwidth < smooth(sharp + 1.0 * random).bandwidth


def test_a_slip_is_thrown_away_and_filled() -> None:
    path = noisy(0.02)
    path[[7, 20]] += [[3.0, 0, 0], [0, -2.0, 1.0]]
    found = smooth(path)
    assert np.flatnonzero(found.outliers).tolist() == [7, 20]
    assert np.abs(found.path - curve()).max() < 0.15


def test_a_slip_at_either_end_is_seen() -> None:
    path = curve()
    path[0] += 2
    path[-1] -= 2
    assert np.flatnonzero(smooth(path).outliers).tolist() == [0, 31]


def test_a_bounce_is_no_slip() -> None:
    phase = (FRAMES / 8) % 1
    path = np.stack([0.3 * FRAMES, 0 * FRAMES, 1.6 * 4 * phase * (1 - phase)], axis=1)
    assert not spikes(path, float(noise_of(path).max()), 4.0, 0.3).any()


def test_short_gaps_are_filled_and_long_ones_stay_unknown() -> None:
    path = curve()
    path[5:7], path[15:18], path[30:] = np.nan, np.nan, np.nan
    known = np.isfinite(smooth(path).path).all(axis=1)
    assert np.flatnonzero(~known).tolist() == [15, 16, 17, 30, 31]
    np.testing.assert_allclose(smooth(path).path[5:7], curve()[5:7], atol=0.05)


def test_frames_that_are_not_trusted_do_not_count() -> None:
    path, weights = noisy(0.02), np.ones(32)
    path[10:12] += 5
    weights[10:12] = 0
    assert np.abs(smooth(path, weights=weights).path[10:12] - curve()[10:12]).max() < 0.2


@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_path_of_hardly_any_frames_stays_what_it_is(known: int) -> None:
    path = np.full((32, 3), np.nan)
    path[:known] = curve()[:known]
    np.testing.assert_array_equal(smooth(path).path, path)
