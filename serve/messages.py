"""What ingress and decoder say to each other: plain data, picklable, free of torch. No tensor passes here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.video import VideoFacts
from serve.keys import ClipKey


@dataclass(frozen=True)
class Ask:
    """One question about one clip, as the decoder gets it. `geometry` False: the base model's answer."""

    clip: ClipKey
    question: str
    options: tuple[str, ...]
    geometry: bool
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


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
