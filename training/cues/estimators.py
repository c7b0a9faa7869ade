"""What estimates what: small interfaces, so that published models, untrained ones and a rendered scene can stand in.

Axes of a camera as in OpenCV: x right, y down, z forward. Pixels are those of the frames that the estimators see.

Legend: F frames, H, W sides of a frame, N things, K frames in which things are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.video import Sampling, read
from training.cues.settings import Settings
from training.questions.cues import BoolArray, FloatArray

Facts = Mapping[str, Any]
"""Where an estimator's numbers come from, as JSON: what it is, its directory, sha256 of its weights."""

PATCH = 14


@dataclass(frozen=True)
class Footage:
    """One video. `frames` uint8 [F, H, W, 3]; `times` [F] seconds; `size` (width, height) of the video itself."""

    path: Path
    frames: NDArray[np.uint8]
    times: FloatArray
    size: tuple[int, int]

    @property
    def name(self) -> str:
        return self.path.stem

    @classmethod
    def open(cls, path: Path, settings: Settings) -> Footage:
        """InputError when the video cannot be read."""
        sampling = Sampling(settings.frames, None, PATCH**2, settings.max_pixels, PATCH, 1)
        clip = read(path, sampling)
        return cls(path, clip.frames, clip.times, (clip.facts.width, clip.facts.height))


@dataclass(frozen=True)
class Geometry:
    """`poses` [F, 4, 4] camera to world; `points` float32 [F, H, W, 3] in the axes of each camera; `confidence`
    float32 [F, H, W] in [0, 1]. `metric`: lengths are metres; otherwise their unit is free. `up` [3]: the world's
    vertical, None where nobody knows it."""

    poses: FloatArray
    points: NDArray[np.float32]
    confidence: NDArray[np.float32]
    metric: bool = False
    up: FloatArray | None = None


@dataclass(frozen=True)
class Names:
    """What to look for. Agents have a front: people, animals, vehicles."""

    agents: tuple[str, ...]
    objects: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.agents, *self.objects)))


@dataclass(frozen=True)
class Boxes:
    """Of one frame. `boxes` [N, 4] left, top, right, bottom; `scores` [N] in [0, 1]; a name for each."""

    boxes: FloatArray
    scores: FloatArray
    names: tuple[str, ...]

    def __getitem__(self, kept: Sequence[int]) -> Boxes:
        chosen = np.array(kept, np.int64)
        return Boxes(self.boxes[chosen], self.scores[chosen], tuple(self.names[n] for n in kept))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Masks:
    """`masks` [N, F, H, W]; `present` [N, F]: the probability that the thing is there, in [0, 1]."""

    masks: BoolArray
    present: FloatArray


@dataclass(frozen=True)
class Orientations:
    """`forward`, `up` [N, F, 3]: unit vectors in the axes of each camera, NaN where unknown. `confidence` [N, F]."""

    forward: FloatArray
    up: FloatArray
    confidence: FloatArray


class Namer(Protocol):
    @property
    def facts(self) -> Facts: ...

    def __call__(self, footage: Footage) -> Names: ...


class Geometer(Protocol):
    @property
    def facts(self) -> Facts: ...

    def __call__(self, footage: Footage) -> Geometry: ...


class Detector(Protocol):
    @property
    def facts(self) -> Facts: ...

    def __call__(self, footage: Footage, frames: Sequence[int], names: Names) -> list[Boxes]:
        """[K], every box that the model holds for possible: thresholds come later."""
        ...


class Tracker(Protocol):
    @property
    def facts(self) -> Facts: ...

    def __call__(self, footage: Footage, frame: int, boxes: FloatArray) -> Masks:
        """Follows what is in `boxes` [N, 4] at `frame`, forwards and backwards."""
        ...


class Orienter(Protocol):
    @property
    def facts(self) -> Facts: ...

    def __call__(self, footage: Footage, masks: BoolArray, rays: FloatArray) -> Orientations:
        """Of the things in `masks` [N, F, H, W], which their camera sees along `rays` [N, F, 3], NaN where unknown."""
        ...


@dataclass(frozen=True)
class Estimators:
    namer: Namer
    geometer: Geometer
    detector: Detector
    tracker: Tracker
    orienter: Orienter

    @property
    def facts(self) -> dict[str, Facts]:
        return {name: getattr(self, name).facts for name in self.__dataclass_fields__}
