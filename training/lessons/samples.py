"""What the geometry tokens of a question should tell: its own quantity, sampled evenly over its own interval.

A question asks how something changes between two times. If token k of 32 knows that something at the k-th of 32 even
moments of the interval, as seen by the question's viewer, then answering is putting samples into words.
"""

from __future__ import annotations

import numpy as np

from training.questions.cues import FloatArray
from training.questions.templates import KINDS, Ask, quantity
from training.questions.viewpoints import Body, View

SAMPLES = 32
WIDTH = 5  # a direction (3) and two logarithms of lengths
SHORTEST = 0.03  # metres: logarithms of less would be all that a loss sees

# Which of the five a kind of question is about, and how much: the length of a direction hardly matters.
WEIGHTS = {
    "dis": (0.0, 0.0, 0.0, 1.0, 0.0),
    "dir": (1.0, 1.0, 1.0, 0.1, 0.0),
    "ori": (1.0, 1.0, 1.0, 0.0, 0.0),
    "spd": (0.0, 0.0, 0.0, 1.0, 0.0),
    "spd_comp": (0.0, 0.0, 0.0, 1.0, 1.0),
    "dir_pred": (1.0, 1.0, 1.0, 0.1, 0.0),
}
if set(WEIGHTS) != set(KINDS):
    raise ValueError(f"WEIGHTS has {sorted(WEIGHTS)}, the kinds of questions are {sorted(KINDS)}")


def samples(around: tuple[Body, ...], ask: Ask, count: int = SAMPLES) -> FloatArray:
    """[count, 5]: a unit vector (forward, left, up of the viewer) and logarithms of lengths; zero where there is none.

    A prediction is about frames that nobody may see: its samples are the steps before them, over the interval.
    """
    values = _steps_before(around, ask) if ask.kind == "dir_pred" else quantity(around, ask)
    values = values.reshape(len(values), -1)
    rows = np.zeros((len(values), WIDTH))
    if values.shape[1] == 3:
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        rows[:, :3] = values / np.maximum(lengths, 1e-6)
        values = lengths
    rows[:, 3 : 3 + values.shape[1]] = np.log(np.maximum(values, SHORTEST))
    return _resampled(np.nan_to_num(rows), count)


def _steps_before(around: tuple[Body, ...], ask: Ask) -> FloatArray:
    frames = slice(ask.start, ask.end + 1)
    viewer = around[ask.viewer]
    view = View.moving(viewer, frames) if ask.at is None else View.fixed(viewer, ask.at)
    return np.diff(view.points(around[ask.targets[0]].origin[frames]), axis=0)


def _resampled(rows: FloatArray, count: int) -> FloatArray:
    """[N, C] -> [count, C] at even places from the first row to the last, linear between two."""
    place = np.linspace(0, len(rows) - 1, count)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(rows) - 1)
    share = (place - before)[:, None]
    return rows[before] * (1 - share) + rows[after] * share
