"""The question types: what each measures, how it is asked, and how its answer is put into words.

A type is a scope, absolute or relative, and one of `KINDS`: a new kind is a row there and its words in `WORDING`.

Legend: F frames of the video, N frames of the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np

from training import vocabulary
from training.questions.cues import Cues, FloatArray
from training.questions.verbalise import Statements, comparisons, directions, trends
from training.questions.viewpoints import Body, View

HIDDEN = 2  # frames after the last visible one over which a prediction is made
LEAST_APART = 4  # frames between the two timestamps of an interval

# A prediction names its interval too, because the boxes are those of the interval's first frame.
WORDING = vocabulary.QUESTIONS | {
    "dir_pred": (
        "predict the moving direction of {x}, seen {when}, after {end}.",
        "in which direction will {x}, seen {when}, move after {end}?",
    )
}


@dataclass(frozen=True)
class Ask:
    """A question before it is worded. Bodies are numbered as `viewpoints.bodies` numbers them, 0 is the camera.

    `start` and `end` are the interval's first and last frame, `at` the frame of an absolute viewpoint (None: relative).
    """

    kind: str
    viewer: int
    targets: tuple[int, ...]
    start: int
    end: int
    at: int | None = None

    @property
    def type(self) -> str:
        return f"{'rel' if self.at is None else 'abs'}_{self.kind}"

    @property
    def frames(self) -> slice:
        """The frames that the answer is about. Those of a prediction start at the last visible one."""
        if KINDS[self.kind].foretells:
            return slice(self.end, self.end + HIDDEN + 1)
        return slice(self.start, self.end + 1)

    @property
    def named(self) -> tuple[int, ...]:
        """Every body that the question speaks of, each once."""
        return tuple(dict.fromkeys((self.viewer, *self.targets)))


def quantity(around: tuple[Body, ...], ask: Ask) -> FloatArray:
    """What `say` of the question's kind reads; NaN where a position or an orientation is unknown."""
    viewer = around[ask.viewer]
    view = View.moving(viewer, ask.frames) if ask.at is None else View.fixed(viewer, ask.at)
    return KINDS[ask.kind].quantity(view, [around[target] for target in ask.targets], ask.frames)


def question(cues: Cues, around: tuple[Body, ...], ask: Ask, random: Random) -> str:
    """The question in words. The wording is drawn, and so knows nothing of the answer."""
    start, end = cues.times[ask.start], cues.times[ask.end]
    unit = random.choice(("s", "s", "s", "seconds"))
    view = random.choice(vocabulary.MOVING_VIEWS if ask.at is None else vocabulary.FIXED_VIEWS)
    names = [mention(around[target], ask.start) for target in ask.targets]
    when = random.choice(("between {} and {}", "from {} to {}"))
    return view.format(
        viewer=mention(around[ask.viewer], ask.start), time=_time(cues.times[ask.at or 0], unit)
    ) + random.choice(WORDING[ask.kind]).format(
        x=names[0], y=names[-1], when=when.format(_time(start, unit), _time(end, unit)), end=_time(end, unit)
    )


def mention(body: Body, frame: int) -> str:
    """`the red car [12, 40, 88, 120]`, with its box at `frame` in whole pixels."""
    if body.track is None:
        return body.name
    return f"{body.name} [{', '.join(str(round(float(side))) for side in body.track.boxes[frame])}]"


def _time(seconds: float, unit: str) -> str:
    return f"{seconds:.1f} {unit}"


def _distance(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[N] The same from every viewpoint; a view that is unknown still makes the question one without an answer."""
    x, y = (view.points(target.origin[frames]) for target in targets)
    return np.linalg.norm(x - y, axis=1)


def _direction(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[N, 3] from the second target to the first."""
    x, y = (target.origin[frames] for target in targets)
    return view.vectors(x - y)


def _orientation(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[N, 3] forward axes."""
    axes = targets[0].axes
    if axes is None:
        raise ValueError("what has no front has no orientation")
    return view.vectors(axes[frames, 0])


def _steps(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[N - 1, targets]"""
    paths = np.stack([view.points(target.origin[frames]) for target in targets], axis=1)
    return np.linalg.norm(np.diff(paths, axis=0), axis=2)


def _speed(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[N - 1]"""
    return _steps(view, targets, frames)[:, 0]


def _displacement(view: View, targets: list[Body], frames: slice) -> FloatArray:
    """[1, 3] from the first frame to the last."""
    path = view.points(targets[0].origin[frames])
    return path[-1:] - path[:1]


@dataclass(frozen=True)
class Kind:
    """What a kind of question measures. Everything that tells kinds apart is here.

    `quantity` of a view, the targets and the frames, one sample a row; `say` puts it into words. `targets`: how many it
    has; `between`: it is about how they lie to each other; `ordered`: the second one is what the first is related to.
    `front`: only what has one can be asked about. `steps`: a sample lies between two frames, so that there is one less.
    `foretells`: it is about `HIDDEN` frames that nobody who answers may see.
    """

    quantity: Callable[[View, list[Body], slice], FloatArray]
    say: Callable[[FloatArray], Statements]
    targets: int = 1
    between: bool = False
    ordered: bool = False
    front: bool = False
    steps: bool = False
    foretells: bool = False


KINDS: dict[str, Kind] = {
    "dis": Kind(_distance, trends, targets=2, between=True),
    "dir": Kind(_direction, directions, targets=2, between=True, ordered=True),
    "ori": Kind(_orientation, directions, front=True),
    "spd": Kind(_speed, trends, steps=True),
    "spd_comp": Kind(_steps, comparisons, targets=2, steps=True),
    "dir_pred": Kind(_displacement, directions, foretells=True),
}
if KINDS.keys() != WORDING.keys():
    raise ValueError(f"KINDS has {sorted(KINDS)}, words are there for {sorted(WORDING)}")
TYPES = tuple(f"{scope}_{kind}" for scope, kind in product(("abs", "rel"), KINDS))
FORETELLING = tuple(kind for kind, made in KINDS.items() if made.foretells)
"""Ends of the types whose videos must be shortened for whoever answers: see `training.data.seen`."""
