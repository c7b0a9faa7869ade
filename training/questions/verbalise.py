"""Numbers to words: directions, trends and comparisons of speed, exactly as the question sets define them.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, product

import numpy as np

from training.questions.cues import FloatArray

LEAST_COMPONENT = 0.3  # of a unit vector: below it an axis is not named
FEW, MANY = 0.8, 1.2  # ratios between which a length counts as unchanged
SMALL = 0.1  # lengths below it are all alike

AXES = (("Front", "Behind"), ("Left", "Right"), ("Above", "Below"))
CONSTANT = "Keep nearly constant"
LARGER, SMALLER = "Become larger", "Become smaller"
THEN_LARGER, THEN_SMALLER = f"{CONSTANT} and then become larger", f"{CONSTANT} and then become smaller"
SAME, FORMER, LATTER = "Nearly the same", "The former is faster", "The latter is faster"

_LABELS = {
    signs: "|".join(words[sign < 0] for words, sign in zip(AXES, signs, strict=True) if sign)
    for signs in product((1.0, 0.0, -1.0), repeat=3)
}

Statements = tuple[str, ...]

# Where a trend or a comparison stands on a scale on which steps to a neighbour are small; and a word on its axis.
_LEVELS = {LARGER: 2, THEN_LARGER: 1, CONSTANT: 0, THEN_SMALLER: -1, SMALLER: -2, FORMER: 1, SAME: 0, LATTER: -1}
_SIGNS = {word: (axis, sign) for axis, words in enumerate(AXES) for word, sign in zip(words, (1, -1), strict=True)}


def directions(vectors: FloatArray) -> Statements:
    """[N, 3] (forward, left, up), of any length but zero -> `Front|Left`, …; equal neighbours are one statement."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("a vector of length zero, or an unknown one, has no direction")
    named = np.sign(vectors) * (np.abs(vectors) > LEAST_COMPONENT * lengths)
    return _merged(_LABELS[x, y, z] for x, y, z in named.tolist())


def trends(values: FloatArray) -> Statements:
    """[N] lengths, not negative -> what they do, from segment to segment."""
    samples: list[float] = values.tolist()
    said, start = [], 0
    while start < len(samples) - 1:
        statement, start = _segment(samples, start)
        said.append(statement)
    return tuple(said)


def comparisons(steps: FloatArray) -> Statements:
    """[N, 2] step lengths of the former and the latter -> who is faster; equal neighbours are one statement."""
    return _merged(_comparison(former, latter) for former, latter in steps.tolist())


def numbered(statements: Sequence[str]) -> str:
    """`(1) Front|Left. (2) Left.`"""
    return " ".join(f"({number}) {text}." for number, text in enumerate(statements, 1))


def place(statement: str) -> FloatArray:
    """[3] what a statement means as a number: a unit vector, or a place on a scale. Unknown words mean nothing."""
    meant = np.zeros(3)
    if statement in _LEVELS:
        meant[0] = _LEVELS[statement]
        return meant
    for word in statement.split("|"):
        axis, sign = _SIGNS.get(word.strip(), (0, 0))
        meant[axis] += sign
    return meant / max(float(np.linalg.norm(meant)), 1.0)


def _merged(labels: Iterable[str]) -> Statements:
    return tuple(label for label, _ in groupby(labels))


def _alike(value: float, start: float) -> bool:
    return FEW * start <= value <= MANY * start or (value < SMALL and start < SMALL)


def _segment(samples: list[float], start: int) -> tuple[str, int]:
    """What happens from sample `start` on, and the sample at which the next segment starts."""
    first, after = samples[start], start + 1
    if _alike(samples[after], first):
        while after < len(samples) and _alike(samples[after], first):
            after += 1
        if after == len(samples):
            return CONSTANT, after
        return (THEN_SMALLER if samples[after] < first else THEN_LARGER), after
    if samples[after] > first:
        return LARGER, _run(samples, start, lambda now, then: then > MANY * now)
    return SMALLER, _run(samples, start, lambda now, then: then < FEW * now)


def _run(samples: list[float], start: int, goes_on: Callable[[float, float], bool]) -> int:
    """The last sample that is reached from `start` by steps that all go on."""
    last = start + 1
    while last + 1 < len(samples) and goes_on(samples[last], samples[last + 1]):
        last += 1
    return last


def _comparison(former: float, latter: float) -> str:
    if former < SMALL and latter < SMALL:
        return SAME
    if former > MANY * latter:
        return FORMER
    return LATTER if latter > MANY * former else SAME
