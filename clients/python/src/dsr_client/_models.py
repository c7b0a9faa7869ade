"""What the service answers, as frozen dataclasses.

A field that this version does not know is ignored, and stands in `raw`, which is the JSON as it came. A known one that
is missing or has another type is BrokenResponse, with its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._errors import BrokenResponse
from ._explanation import Explanation
from ._json import Json, mapping, number, optional, text, whole

__all__ = ["Answer", "Choice", "Health", "Span", "Token", "Usage", "Video", "numbers", "spans"]


@dataclass(frozen=True)
class Video:
    """A video that the service holds. `frames`: those in the file; in an answer, those that the model saw."""

    id: str
    duration: float  # seconds
    fps: float  # frames per second, on average
    width: int  # pixels, as displayed
    height: int
    frames: int
    bytes: int | None = None  # size of the file; an answer does not tell it
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json) -> Video:
        return cls(
            id=text(raw, "id"),
            duration=number(raw, "duration"),
            fps=number(raw, "fps"),
            width=whole(raw, "width"),
            height=whole(raw, "height"),
            frames=whole(raw, "frames"),
            bytes=optional(whole, raw, "bytes"),
            raw=raw,
        )


@dataclass(frozen=True)
class Choice:
    letter: str  # "A", "B", …
    text: str
    probability: float

    @classmethod
    def of(cls, raw: Json) -> Choice:
        return cls(text(raw, "letter"), text(raw, "text"), number(raw, "probability"))


@dataclass(frozen=True)
class Usage:
    """Tokens. `prompt_tokens` counts all of the prompt, the video's and the geometry's with it."""

    video_tokens: int
    geometry_tokens: int
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, raw: Json) -> Usage:
        names = ("video_tokens", "geometry_tokens", "prompt_tokens", "completion_tokens")
        return cls(*(whole(raw, name) for name in names))


@dataclass(frozen=True)
class Span:
    """When a stage worked: seconds since the request reached the service."""

    start: float
    end: float


@dataclass(frozen=True)
class Answer:
    """`text` is the letter of the likeliest option, or the free answer; `choice` has the option's own text."""

    id: str
    model: str
    text: str
    choice: Choice | None
    probabilities: Mapping[str, float]  # by letter; empty without options
    usage: Usage
    timings: Mapping[str, float]  # seconds of work by stage
    cache: Mapping[str, str]  # "hit" or "miss" by stage
    spans: Mapping[str, Span]  # by stage; empty from a service that does not tell them
    video: Video
    explanation: Explanation | None = field(default=None, repr=False)
    request_id: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json, request_id: str | None = None) -> Answer:
        explanation = optional(mapping, raw, "explanation")
        choice = optional(mapping, raw, "choice")
        return cls(
            id=text(raw, "id"),
            model=text(raw, "model"),
            text=text(raw, "text"),
            choice=None if choice is None else Choice.of(choice),
            probabilities=numbers(raw, "probabilities"),
            usage=Usage.of(mapping(raw, "usage")),
            timings=numbers(raw, "timings"),
            cache={stage: text(mapping(raw, "cache"), stage) for stage in mapping(raw, "cache")},
            spans=spans(raw),
            video=Video.of(mapping(raw, "video")),
            explanation=None if explanation is None else Explanation.of(explanation),
            request_id=request_id,
            raw=raw,
        )


@dataclass(frozen=True)
class Token:
    """A piece of a free answer, as soon as it is there."""

    text: str
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json) -> Token:
        return cls(text(raw, "text"), raw)


@dataclass(frozen=True)
class Health:
    """`ready`: every stage has loaded and tested itself. `detail` says what is missing when it is not."""

    ready: bool
    model: str | None = None
    stages: Sequence[str] = ()
    detail: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json) -> Health:
        stages = raw.get("stages", ())
        if not (isinstance(stages, Sequence) and all(isinstance(stage, str) for stage in stages)):
            raise BrokenResponse(f"stages: expected a list of names, got {stages!r:.80}")
        return cls(text(raw, "status") == "ready", optional(text, raw, "model"), tuple(stages), raw=raw)


def numbers(raw: Json, name: str) -> dict[str, float]:
    found = mapping(raw, name)
    return {key: number(found, key) for key in found}


def spans(raw: Json) -> dict[str, Span]:
    """None of a service that does not tell them."""
    found = optional(mapping, raw, "spans") or {}
    return {
        stage: Span(number(mapping(found, stage), "start"), number(mapping(found, stage), "end")) for stage in found
    }
