"""What else could have been true: other trajectories made from the true one, put into the same words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from training.questions.cues import FloatArray
from training.questions.templates import KINDS
from training.questions.verbalise import Statements, comparisons

REVERSED = "time reversed"
MIRRORS = ("front/behind", "left/right", "up/down")


def counterfactuals(kind: str, values: FloatArray) -> dict[Statements, str]:
    """Answers of changed trajectories that differ from the true one's, with what was changed.

    Mirrored in every axis and combination of axes, reversed in time, or both; lengths that rise where they fell; the
    speeds of two things exchanged. Of two changes with one answer the smaller one is named.
    """
    verbalise = KINDS[kind].say
    truth = verbalise(values)
    answers: dict[Statements, str] = {}
    for change, changed in sorted(_changed(kind, values), key=lambda pair: pair[0].count(",")):
        answer = verbalise(changed)
        if answer != truth:
            answers.setdefault(answer, change)
    return answers


def step_change(truth: Statements, other: Statements) -> str | None:
    """What was done to the steps of `truth` to get `other`, which has as many; None if it was more than one thing."""
    places = [n for n, (a, b) in enumerate(zip(truth, other, strict=True)) if a != b]
    if len(places) == 2 and [truth[n] for n in places] == [other[n] for n in reversed(places)]:
        return "two steps swapped"
    if len(places) == 1:
        return "a step replaced" if len(truth) > 1 else None
    removed = {truth[:n] + truth[n + 1 :] for n in range(len(truth))}
    added = {other[:n] + other[n + 1 :] for n in range(len(other))}
    # One statement less on each side leaves nothing to compare when there were two.
    return "a step removed, one added" if len(truth) > 2 and removed & added else None


def _changed(kind: str, values: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    if KINDS[kind].say is comparisons:
        variants = [("", values), ("speeds exchanged", values[:, ::-1])]
    elif values.ndim == 1:
        variants = [("", values), ("rising where it fell", values.min() + values.max() - values)]
    else:
        variants = [_mirrored(values, signs) for signs in product((1, -1), repeat=3)]
    for change, changed in variants:
        if change:
            yield change, changed
        yield ", ".join(filter(None, (change, REVERSED))), _reversed(kind, changed)


def _mirrored(vectors: FloatArray, signs: tuple[int, ...]) -> tuple[str, FloatArray]:
    axes = [axis for axis, sign in zip(MIRRORS, signs, strict=True) if sign < 0]
    return ", ".join(f"mirrored {axis}" for axis in axes), vectors * np.array(signs)


def _reversed(kind: str, values: FloatArray) -> FloatArray:
    """A displacement that is run backwards points the other way."""
    return -values if KINDS[kind].foretells else values[::-1]
