"""Where a question's things are to be seen: what each of the selector's heads should look at for each of its tokens.

Token k is about the k-th of 32 even moments of the interval (`training.lessons.samples`). Its first head should look at
the first thing that the question names, the second at the last one, the third at the one between, or at one of the two.
Three things are more than that:

* a speed is a step from a frame to the next, too short to be seen by where a thing is at both ends: where one thing
  moves, the second head looks at it `REACH` frames after the step, another one as many before it;
* a viewer that is itself asked about, from where it stood at a moment: the first head looks at it then, the others at
  what it does in the interval;
* from the camera where it stood at a moment: the third head looks anywhere at that moment. How the camera has turned
  since is told by the light, which `training.lessons.patches` teaches the encoder to see.

Legend: F frames, Q geometry tokens; things: 3 of them, in the order of the heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from training.lessons.samples import SAMPLES
from training.questions.cues import Cues, FloatArray
from training.questions.templates import Ask
from training.questions.viewpoints import Body
from training.scenes.catalogue import COLOURS, KINDS

THINGS = 3
STEPS = ("spd", "spd_comp", "dir_pred")  # kinds whose samples are steps from a frame to the next
PLACE = 6  # numbers that say where one is: (x/z, y/z, log z) of its middle, and its forward axis, in the camera's axes
NEAREST = 0.3  # metres before the camera
REACH = 2  # frames before and after a step
COVERED = 0.35  # of what the best covered cell has: cells with less do not count
UNKNOWN = -100
CELL = 28  # pixels: a merged token is so wide
FRAMES_PER_TIME = 2

KIND = {kind.name: index for index, kind in enumerate(KINDS)}
COLOUR = {name: index for index, name in enumerate(COLOURS)}


@dataclass(frozen=True)
class Spots:
    """`who` [3, 2] kind and colour, or -100. `times` [3, Q]: grid time to look at; `cells` [3, Q, rows * columns] bool:
    where the thing is then, nowhere if it is not seen. `places` [Q, 3 * 6]. `moments` [Q, 3]: start and end of the
    interval and the moment itself, in seconds."""

    who: NDArray[np.int64]
    times: NDArray[np.int64]
    cells: NDArray[np.bool_]
    places: FloatArray
    moments: FloatArray


def spots(cues: Cues, around: tuple[Body, ...], ask: Ask) -> Spots:
    width, height = cues.size
    frames = np.round(np.linspace(ask.start, ask.end, SAMPLES)).astype(int)
    who = np.full((THINGS, 2), UNKNOWN)
    times = np.zeros((THINGS, SAMPLES), np.int64)
    cells = np.zeros((THINGS, SAMPLES, (height // CELL) * (width // CELL)), bool)
    places = np.zeros((SAMPLES, THINGS, PLACE))
    for place, number in enumerate(things(ask)):
        track = around[number].track
        if track is None:
            if number == ask.viewer and ask.at is not None:
                times[place], cells[place] = ask.at // FRAMES_PER_TIME, True
            continue
        colour, _, kind = track.name.partition(" ")
        who[place] = KIND.get(kind, UNKNOWN), COLOUR.get(colour, UNKNOWN)
        at = _when(ask, place, number, frames)
        times[place] = at // FRAMES_PER_TIME
        first = FRAMES_PER_TIME * times[place]
        covered = _covered(track.boxes, width, height)
        cells[place] = covered[first] | covered[np.minimum(first + 1, len(covered) - 1)]
        places[:, place] = _places(cues, around[number])[at]
    dt = float(cues.times[-1]) / (len(cues.times) - 1)
    moments = np.stack(
        [np.full(SAMPLES, ask.start), np.full(SAMPLES, ask.end), np.linspace(ask.start, ask.end, SAMPLES)]
    )
    return Spots(who, times, cells, places.reshape(SAMPLES, -1), dt * moments.T)


def things(ask: Ask) -> tuple[int, ...]:
    """The three bodies that the heads look at: the first one named, the last one, the one between.

    Where the camera stands still as the viewer, it is the third.
    """
    named = [number for number in ask.named if number]
    if not named:
        return ()
    if ask.viewer == 0 and ask.at is not None:
        return named[0], named[-1], 0
    between = named[1] if len(named) == THINGS else named[-1] if ask.viewer else named[0]
    return named[0], named[-1], between


def _when(ask: Ask, place: int, number: int, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Q] the frames at which the head of this place looks at a body."""
    if _stays(ask, place, number):
        return np.full_like(frames, ask.at)
    if ask.kind not in STEPS:
        return frames
    begin = np.floor(np.linspace(ask.start, ask.end - 1, SAMPLES)).astype(int)
    if len(ask.targets) > 1:
        return begin  # one head for each of them
    span = min(1 + 2 * REACH, ask.end - ask.start)  # the same for every token, also at the interval's ends
    return np.clip(begin - REACH, ask.start, ask.end - span) + span * int(place == 1)


def _stays(ask: Ask, place: int, number: int) -> bool:
    """Whether a head looks at the viewer where it stood: the first alone does where the viewer is what is asked about,
    none where its speed is compared, which is the same from everywhere."""
    if number != ask.viewer or ask.at is None:
        return False
    return number not in ask.targets or (place == 0 and len(ask.targets) == 1)


def _covered(boxes: FloatArray, width: int, height: int) -> NDArray[np.bool_]:
    """[F, rows * columns] which cells of the grid each of boxes [F, 4] covers most; none where a box is not known."""
    across, down = (_overlap(boxes[:, axis::2], side // CELL) for axis, side in ((0, width), (1, height)))
    area = rearrange(down[:, :, None] * across[:, None, :], "f rows columns -> f (rows columns)")
    with np.errstate(invalid="ignore"):
        return area >= COVERED * area.max(1, keepdims=True)


def _overlap(spans: FloatArray, count: int) -> FloatArray:
    """[F, count] how much of each cell of a side lies in spans [F, 2], in pixels."""
    edges = CELL * np.arange(count + 1.0)
    return np.maximum(np.minimum(spans[:, 1:], edges[1:]) - np.maximum(spans[:, :1], edges[:-1]), 0)


def _places(cues: Cues, body: Body) -> FloatArray:
    """[F, 6]"""
    rotation, eye = cues.camera_to_world[:, :3, :3], cues.camera_to_world[:, :3, 3]
    middle = np.einsum("fji,fj->fi", rotation, body.origin - eye)
    depth = np.maximum(middle[:, 2:], NEAREST)
    forward = np.zeros_like(middle)
    if body.track is not None and body.track.forward is not None:
        forward = np.einsum("fji,fj->fi", rotation, body.track.forward)
    return np.concatenate([middle[:, :2] / depth, np.log(depth), forward], axis=1)
