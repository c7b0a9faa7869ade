"""Rotations in 3D, as matrices and as quaternions w, x, y, z."""

from __future__ import annotations

import numpy as np

from training.questions.cues import FloatArray


def level(up: FloatArray) -> FloatArray:
    """[3, 3] the smallest rotation that makes `up` the z axis."""
    axis = np.array([0.0, 0.0, 1.0])
    if np.allclose(up, axis, atol=1e-12):
        return np.eye(3)
    if up[2] < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.cross(up, axis)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + up[2])


def quaternion_of(rotation: FloatArray) -> FloatArray:
    """[3, 3] -> [4] w, x, y, z: the largest eigenvector of Bar-Itzhack's matrix, which has no special cases."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array([
        [a + e + i, h - f, c - g, d - b],
        [h - f, a - e - i, b + d, c + g],
        [c - g, b + d, e - a - i, f + h],
        [d - b, c + g, f + h, i - a - e],
    ])  # fmt: skip
    return np.linalg.eigh(matrix)[1][:, -1]


def rotation_of(quaternion: FloatArray) -> FloatArray:
    """[4] of any length but zero -> [3, 3]."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
