"""What a child says, checked as if a stranger said it: whoever takes a decoder over speaks for it.

A claim that an honest child cannot make is a `Lie`. The pixels need no check: every byte is one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import InputError, InvalidQuestion, NotAVideo, OutOfLimits, Scalar, Undecodable
from models.video import Limits, Sampling, VideoFacts, fit
from models.video.container import CODECS
from serve.sandbox.wire import MAX_ANSWER, MAX_TEXT

CONTAINERS = frozenset({"mp4", "webm", "matroska", "avi", "mpegts"})
ROTATIONS = frozenset({0, 90, 180, 270})
REFUSALS = {kind.code: kind for kind in (NotAVideo, Undecodable, OutOfLimits, InvalidQuestion)}
FAILURES = frozenset({"memory", "other"})
ROUNDED = 1e-3  # limits are checked with three decimals


class Lie(Exception):
    """Says which claim cannot be. For the log: what a child made up does not reach the caller."""


@dataclass(frozen=True)
class Failed:
    """The child could not go on: `memory`, that it has no more of it; `what`, the name of its exception."""

    memory: bool
    what: str


@dataclass(frozen=True)
class Frames:
    """All of a clip but its pixels, which are `shape` (F, H, W, 3) bytes."""

    facts: VideoFacts
    shape: tuple[int, int, int, int]
    times: np.ndarray
    sampled: int


def understand(answer: bytes, sampling: Sampling | None, limits: Limits) -> VideoFacts | Frames | InputError | Failed:
    """What a child answered to a job with this sampling. Lie when it cannot be true."""
    if len(answer) > MAX_ANSWER:
        raise Lie(f"an answer of more than {MAX_ANSWER} bytes")
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Lie(f"an answer that is no JSON ({type(error).__name__})") from None
    keys = set(_mapping(said, "answer"))
    if keys == {"refused"}:
        return _refusal(_mapping(said["refused"], "refused"))
    if keys == {"failed", "what"} and said["failed"] in FAILURES:
        return Failed(said["failed"] == "memory", _text(said["what"], "what"))
    if sampling is None and keys == {"facts"}:
        return _facts(said["facts"], limits)
    if sampling is not None and keys == {"facts", "shape", "times", "sampled"}:
        return _frames(said, sampling, limits)
    raise Lie("an answer to another question")


def _frames(said: dict[str, Any], sampling: Sampling, limits: Limits) -> Frames:
    facts = _facts(said["facts"], limits)
    sampled = _integer(said["sampled"], "sampled", 1, min(facts.frames, sampling.count or limits.max_frames))
    if sampling.count is not None and sampled != min(facts.frames, sampling.count):
        raise Lie("sampled")
    padded = sampled + -sampled % sampling.temporal_patch
    width, height = fit(facts.width, facts.height, sampling)
    shape = (padded, height, width, 3)
    if not isinstance(said["shape"], list) or tuple(said["shape"]) != shape:
        raise Lie("shape")
    if not isinstance(said["times"], list) or len(said["times"]) != padded:
        raise Lie("number of times")
    latest = limits.max_seconds * (1 + sampling.temporal_patch)
    times = np.array([_number(time, "times", -limits.max_seconds, latest) for time in said["times"]])
    if (np.diff(times) < 0).any():
        raise Lie("times that do not rise")
    return Frames(facts, shape, times, sampled)


def _facts(said: Any, limits: Limits) -> VideoFacts:
    said = _mapping(said, "facts")
    if set(said) != set(VideoFacts.__dataclass_fields__):
        raise Lie("names of the facts")
    facts = VideoFacts(
        duration=_number(said["duration"], "duration", 0, limits.max_seconds + ROUNDED),
        fps=_number(said["fps"], "fps", 0, limits.max_fps + ROUNDED),
        width=_integer(said["width"], "width", 1, limits.max_side),
        height=_integer(said["height"], "height", 1, limits.max_side),
        frames=_integer(said["frames"], "frames", 1, limits.max_source_frames + 1),
        codec=_one_of(said["codec"], "codec", CODECS),
        container=_one_of(said["container"], "container", CONTAINERS),
        rotation=_integer(said["rotation"], "rotation", 0, max(ROTATIONS)),
    )
    if facts.fps == 0 or facts.rotation not in ROTATIONS or facts.width * facts.height > limits.max_pixels:
        raise Lie("facts")
    return facts


def _refusal(said: dict[str, Any]) -> InputError:
    if set(said) != {"code", "message", "field", "value", "limit"}:
        raise Lie("names of a refusal")
    kind = REFUSALS[_one_of(said["code"], "code", REFUSALS)]
    field = None if said["field"] is None else _text(said["field"], "field")
    message = _text(said["message"], "message")
    return kind(message, field=field, value=_scalar(said["value"], "value"), limit=_scalar(said["limit"], "limit"))


def _mapping(said: Any, name: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise Lie(name)
    return said


def _one_of(said: Any, name: str, known: Any) -> str:
    if not isinstance(said, str) or said not in known:
        raise Lie(name)
    return said


def _text(said: Any, name: str) -> str:
    """Printable, so that it cannot break a line of a log or turn a terminal's colours."""
    if not isinstance(said, str) or len(said) > MAX_TEXT or not said.isprintable():
        raise Lie(name)
    return said


def _scalar(said: Any, name: str) -> Scalar:
    if said is None:
        return None
    if isinstance(said, str):
        return _text(said, name)
    if type(said) is int and abs(said) < 2**63:
        return said
    if type(said) is float and math.isfinite(said):
        return said
    raise Lie(name)


def _integer(said: Any, name: str, least: int, most: int) -> int:
    if type(said) is not int or not least <= said <= most:
        raise Lie(name)
    return said


def _number(said: Any, name: str, least: float, most: float) -> float:
    if type(said) is not float or not least <= said <= most:  # false for what is no number, too
        raise Lie(name)
    return said
