"""Questions that one scene can be asked, each with its true answer; what cannot be asked is counted by its reason.

Legend: N samples of a quantity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from training.questions.cues import Cues, FloatArray
from training.questions.templates import HIDDEN, KINDS, LEAST_APART, Ask, quantity
from training.questions.verbalise import SMALL, Statements, directions
from training.questions.viewpoints import Body, bodies

MOST_STATEMENTS = 15
LEAST_SEEN = 0.75  # share of the interval's frames in which everything named must be seen
FROM_THE_CAMERA = 0.6  # share of the questions; the others look from an agent
FROM_THE_START = 1 / 3  # share of the absolute viewpoints that are taken at the interval's first frame
TOO_CLOSE = 1e-6  # two centres this close have no direction to each other


@dataclass(frozen=True)
class Candidate:
    """A question with its answer. `values` is what the answer puts into words, as `templates.quantity` gives it."""

    cues: Cues
    around: tuple[Body, ...]
    ask: Ask
    values: FloatArray
    statements: Statements


class Refused(Exception):
    """Why a question is not asked."""


def candidates(cues: Cues, type_: str, count: int, random: Random, dropped: Counter[str]) -> Iterator[Candidate]:
    """Up to `count` different ones of one type. `dropped` counts the others by reason."""
    around = bodies(cues)
    seen: set[Ask] = set()
    for _ in range(count):
        try:
            ask = draw(around, type_, len(cues.times), random)
            found = candidate(cues, around, ask)
            if found.ask in seen:
                raise Refused("asked before")
        except Refused as reason:
            dropped[str(reason)] += 1
            continue
        seen.add(found.ask)
        yield found


def draw(around: tuple[Body, ...], type_: str, frames: int, random: Random) -> Ask:
    """Raises Refused when the scene has nothing of which this type can be asked."""
    scope, kind = type_.split("_", 1)
    relative, usable = scope == "rel", frames - HIDDEN
    if usable <= LEAST_APART:
        raise Refused("the video has too few frames")
    agents = [number for number, body in enumerate(around) if body.kind == "agent"]
    viewer = 0 if not agents or random.random() < FROM_THE_CAMERA else random.choice(agents)
    targets = _targets(around, kind, viewer, relative, random)
    start, end = _interval(usable, random)
    if relative:
        return Ask(kind, viewer, targets, start, end)
    # What a prediction is asked for must be visible, the viewpoint's frame too.
    last = end if KINDS[kind].foretells else usable - 1
    at = start if random.random() < FROM_THE_START else random.randint(0, last)
    return Ask(kind, viewer, targets, start, end, at)


def candidate(cues: Cues, around: tuple[Body, ...], ask: Ask) -> Candidate:
    """The question's answer. The interval ends early where something becomes unknown.

    Raises:
        Refused: it cannot be asked or answered; the reason is short and one of a few.
    """
    named = [around[number] for number in ask.named]
    _check_boxes(named, ask.start)
    values = quantity(around, ask)
    unknown = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if unknown.any():
        ask, values = _cut(ask, values, int(unknown.argmax()))
    _check_seen(named, slice(ask.start, ask.end + 1))
    if ask.at is not None and not around[ask.viewer].seen(ask.at):
        raise Refused("the viewer is out of sight at its time")
    if cues.times[ask.start] == cues.times[ask.end]:
        raise Refused("both timestamps print alike")
    kind = KINDS[ask.kind]
    if kind.say is directions:
        _check_length(kind.foretells, float(np.linalg.norm(values, axis=1).min()))
    statements = kind.say(values)
    if len(statements) > MOST_STATEMENTS:
        raise Refused(f"over {MOST_STATEMENTS} statements")
    return Candidate(cues, around, ask, values, statements)


def _interval(usable: int, random: Random) -> tuple[int, int]:
    """Every pair of frames that are far enough apart is equally likely."""
    while True:
        start, end = sorted((random.randrange(usable), random.randrange(usable)))
        if end - start >= LEAST_APART:
            return start, end


def _targets(around: tuple[Body, ...], kind: str, viewer: int, relative: bool, random: Random) -> tuple[int, ...]:
    """For itself, a moving viewer neither moves nor turns: it is a target only where the other one makes the change.

    What is near or left of a viewer that stands still, where it stands or where it goes? So it is no target of these.
    """
    asked = KINDS[kind]
    allowed = [n for n, body in enumerate(around) if not asked.front or body.axes is not None]
    others = [n for n in allowed if n != viewer or not (relative or asked.between)]
    first = random.choice(others) if others else None
    rest = [n for n in (allowed if relative and asked.between else others) if n != first]
    if first is None or (asked.targets == 2 and not rest):
        raise Refused("the scene has nothing to ask about")
    if asked.targets == 1:
        return (first,)
    pair = [first, random.choice(rest)]
    if not asked.ordered:
        random.shuffle(pair)
    return tuple(pair)


def _check_boxes(named: list[Body], frame: int) -> None:
    for body in named:
        if body.track is None:
            continue
        box = body.track.boxes[frame]
        if not body.seen(frame) or not (np.isfinite(box).all() and (box[2:] - box[:2] >= 1).all()):
            raise Refused("not seen at the interval's first frame")


def _check_seen(named: list[Body], frames: slice) -> None:
    if any(body.track is not None and _share(body.track.visible[frames]) < LEAST_SEEN for body in named):
        raise Refused("out of sight for too long")


def _share(seen: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(seen)) / len(seen)  # a mean of so few takes six times as long


def _check_length(foretold: bool, shortest: float) -> None:
    if foretold and shortest < SMALL:
        raise Refused("does not move while hidden")
    if shortest < TOO_CLOSE:
        raise Refused("two things at one place")


def _cut(ask: Ask, values: FloatArray, known: int) -> tuple[Ask, FloatArray]:
    """The part of the interval before the first unknown of its samples, of which `known` come first."""
    kind = KINDS[ask.kind]
    frames = known + int(kind.steps)
    if kind.foretells or frames <= LEAST_APART:
        raise Refused("a position or an orientation is unknown")
    return replace(ask, end=ask.start + frames - 1), values[:known]
