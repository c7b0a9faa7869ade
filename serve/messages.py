"""What the ingress and the stages say to each other: plain data, picklable, without torch, frames and features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from models.prompt import Turn
from models.video import VideoFacts
from serve.cache import CacheStats
from serve.keys import ClipKey


@dataclass(frozen=True)
class Ask:
    """A conversation about one clip, as the decoder gets it. With `options`, which stand in its last turn, the answer
    is one of their letters. `geometry` False: the base model's answer. `logprobs`: how many likely alternatives beside
    each token of a free answer; None: no log-probabilities. `caller`: whose question it is, "" where nobody needs a
    key; `deadline`: until when somebody waits for the answer, in seconds since 1970."""

    clip: ClipKey
    turns: tuple[Turn, ...]
    options: tuple[str, ...]
    geometry: bool
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    explain: bool = False
    logprobs: int | None = None
    caller: str = ""
    deadline: float = math.inf


@dataclass(frozen=True)
class Likely:
    """A token of an answer, with its log-probability, and the likeliest ones in its place, itself perhaps among them.

    `raw`: its bytes, which may end within a character.
    """

    raw: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Said:
    """The next part of a free answer that is streamed. `tokens`: where log-probabilities are asked for."""

    text: str
    tokens: tuple[Likely, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Where the selector looked for this question: `attention` float32 [T, R, C] over temporal patches (of which each
    has its middle at one of `times` [T], in seconds), rows and columns of the frame; it sums to 1."""

    attention: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class Seen:
    """Facts of the clip that an answer is about. `times`: seconds of each sampled frame."""

    facts: VideoFacts
    times: np.ndarray


@dataclass(frozen=True)
class Reply:
    """The decoder's answer. `probabilities`: by letter, when there are options."""

    text: str
    probabilities: dict[str, float] | None
    seen: Seen
    video_tokens: int
    geometry_tokens: int
    prompt_tokens: int
    completion_tokens: int
    finish: Literal["stop", "length"] = "stop"
    tokens: tuple[Likely, ...] = ()
    explanation: Explanation | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip in 3D: F cameras and K points, in the world of the first camera (OpenCV's axes, the scale is free)."""

    seen: Seen
    size: tuple[int, int]
    """Width and height of the frames that it is made of, in pixels."""
    poses: np.ndarray
    """float32 [F, 4, 4] camera to world."""
    confidence: np.ndarray
    """float32 [F]: mean over a frame's pixels of the probability that their points are good."""
    positions: np.ndarray
    """float32 [K, 3]."""
    colors: np.ndarray
    """uint8 [K, 3] RGB."""
    frames: np.ndarray
    """uint16 [K]: the camera that saw a point."""
    certainty: np.ndarray
    """uint8 [K]: the probability that a point is good, times 255."""
    good: int
    """Pixels with a good point, of which K are here."""

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.poses, self.positions, self.colors, self.frames, self.certainty))

    def sample(self, most: int) -> Scene:
        """The first `most` points, by frame. Of points in an even order: an even sample."""
        kept = np.argsort(self.frames[:most], kind="stable")
        names = ("positions", "colors", "frames", "certainty")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


@dataclass(frozen=True)
class Report:
    """Of one replica of a stage, now: its caches by name, and how many requests wait in it and are computed.

    `work`: see `serve.scaling`; `full`: share of the memory for keys and values that is held. Since the replica's
    start: `passes` through its network and `items` in them; `refused`: videos that it could not or would not decode, by
    why. `device_bytes`: that torch has taken of a GPU.
    """

    caches: dict[str, CacheStats]
    waiting: int
    running: int
    work: float = 0.0
    full: float = 0.0
    passes: int = 0
    items: int = 0
    device_bytes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
