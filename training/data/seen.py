"""What may be seen of a video: all of it, or, for a prediction, the frames before those that it is about.

In memory for training; for evaluation as a shorter file, which the model in this process and a service far away both
get. One rule for all: a token shows two frames, so that an odd last visible frame is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from pathlib import Path

import numpy as np

from models.errors import OutOfLimits
from models.layout import sha256
from models.video import Clip, Sampling, VideoFacts, fit, probe, read
from training.questions.records import Extras, Record
from training.questions.templates import FORETELLING
from training.scenes.clips import encode
from training.whole import replacing

LAST_VISIBLE, FRAMES = 29, 32  # of the frames of a public video, which state no more: the last two are foretold
HALF_TENTH = 0.05 + 1e-6  # seconds: questions print times to a tenth
LARGEST = 1280 * 720  # pixels of a frame in a file made here: more than any model looks at
GREY = 128


@dataclass(frozen=True)
class View:
    """`frames` frames of the file `path`, spread evenly over it."""

    path: Path
    frames: int


def visible(record: Record, frames: int, seconds: float, patch: int = 2) -> int:
    """How many of `frames` even frames, the last of them at `seconds`, may be seen, from the first; whole tokens.

    OutOfLimits when nothing is left.
    """
    if not record.type.endswith(FORETELLING):
        return frames
    if record.extras is None:
        count = floor((frames - 1) * LAST_VISIBLE / (FRAMES - 1) + 1e-9) + 1
    else:
        count = _stated(record.extras, np.linspace(0, seconds, frames))
    count -= count % patch
    if count == 0:
        message = f"{frames} frames in {seconds:.1f} s: none before those that are foretold"
        raise OutOfLimits(message, field="frames", value=frames, limit=patch)
    return count


def _stated(extras: Extras, times: np.ndarray) -> int:
    """As many as the record says, of the frames that it was made from; of other ones those that are surely before."""
    count, end = extras.visible_frames, extras.interval[1]
    if count <= len(times) and abs(times[count - 1] - end) <= HALF_TENTH:
        return count
    return int((times <= end - HALF_TENTH).sum())


def shortened(clip: Clip, record: Record) -> Clip:
    """The clip without what the record foretells."""
    count = visible(record, clip.sampled, float(clip.times[clip.sampled - 1]), clip.sampling.temporal_patch)
    if count == clip.sampled:
        return clip
    return replace(clip, frames=clip.frames[:count], times=clip.times[:count], sampled=count)


class Files:
    """Views of videos, with the files that are made for them in `folder`, named by all that they depend on."""

    def __init__(self, folder: Path, frames: int, patch: int = 2) -> None:
        self.folder, self.frames, self.patch = folder, frames, patch
        self._facts = lru_cache(maxsize=None)(_facts)
        self._digest = lru_cache(maxsize=None)(sha256)

    def of(self, path: Path, record: Record) -> View:
        """What may be seen of a record's video. InputError when it cannot be read or has too few frames."""
        facts = self._facts(path)
        sampled = min(self.frames, facts.frames)
        count = visible(record, sampled, (facts.frames - 1) / facts.fps, self.patch)
        return self.first(path, count) if count < sampled else View(path, self.frames)

    def first(self, path: Path, count: int) -> View:
        """The first `count` of the frames that are sampled of a video; all of it when it has no more."""
        facts = self._facts(path)
        sampled = min(self.frames, facts.frames)
        if count >= sampled:
            return View(path, self.frames)
        made = self.folder / f"{path.stem}-{self._digest(path)[:12]}-{count}-of-{self.frames}.mp4"
        if not made.exists():
            clip = read(path, _small(self.frames))
            _write(made, clip.frames[:count], _interval(facts, sampled))
        return View(made, count)

    def grey(self, view: View) -> View:
        """A file as long and as large as what is seen of `view`, all of whose frames are grey."""
        facts = self._facts(view.path)
        count = min(view.frames, facts.frames)
        width, height = fit(facts.width, facts.height, _small(count))
        interval = _interval(facts, count)
        made = self.folder / f"grey-{width}x{height}-{count}-{interval}ms.mp4"
        if not made.exists():
            _write(made, np.full((count, height, width, 3), GREY, np.uint8), interval)
        return View(made, view.frames)


def _facts(path: Path) -> VideoFacts:
    facts = probe(path)
    if facts.frames < 2:
        raise OutOfLimits(f"{path.name} has one frame; nothing moves in it", field="frames", value=1, limit=2)
    return facts


def _small(count: int) -> Sampling:
    """Frames as they are in the file, where they are not huge; H.264 wants even sides."""
    return Sampling(count=count, min_pixels=1, max_pixels=LARGEST, side_multiple=2, temporal_patch=1)


def _interval(facts: VideoFacts, count: int) -> int:
    """Milliseconds, the clock of the files, between `count` frames spread over a video."""
    return max(1, round(1000 * (facts.frames - 1) / facts.fps / (count - 1)))


def _write(path: Path, frames: np.ndarray, interval: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        encode(unfinished, frames, np.arange(len(frames)) * interval / 1000)
