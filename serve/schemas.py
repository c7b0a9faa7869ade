"""The HTTP contract as types. An unknown field and a wrong type are errors, in requests and in our own answers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, EncodedBytes, EncoderProtocol, Field, ValidationError
from pydantic.functional_validators import BeforeValidator, model_validator
from pydantic_core import PydanticCustomError

from models.errors import InputError, OutOfLimits
from models.prompt import LETTERS, question_text
from serve.errors import Malformed, ServiceError
from serve.media.urls import MAX_URL_CHARS

MAX_QUESTION_CHARS = 2000
MAX_OPTION_CHARS = 500
MAX_FRAMES = 256
MAX_TOKENS = 4096
MAX_STOPS, MAX_STOP_CHARS = 16, 200
REPEATED = ("options", "stop")  # fields of a question that may stand in a form several times
_BOUNDS = ("le", "lt", "ge", "gt", "max_length", "min_length")
_PLACES = ("body", "query", "path", "header", "cookie")  # where FastAPI says that a field stands
_ONE_SOURCE: list[Any] = [
    {"required": [name], "properties": {name: {"type": "string"}}} for name in ("id", "data", "url")
]
_ID = "vid_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


P = TypeVar("P", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Base64(EncoderProtocol):
    """RFC 4648 with padding; anything outside the alphabet, line breaks too, is an error."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise PydanticCustomError("base64_invalid", "not valid base64: {reason}", {"reason": str(error)}) from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64"]:
        return "base64"


_BASE64 = {"contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}
# Not strict: strictly, text is no bytes.
Base64 = Annotated[bytes, Field(strict=False, json_schema_extra=_BASE64), EncodedBytes(encoder=_Base64)]
# 32.0 is an integer in JSON, and many languages write it so.
WHOLE = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
Option = Annotated[str, Field(max_length=MAX_OPTION_CHARS, json_schema_extra={"minLength": 1})]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, description="seconds")]


class VideoSource(Strict):
    """Where the video is: exactly one of the three."""

    model_config = ConfigDict(json_schema_extra={"oneOf": _ONE_SOURCE})

    id: Annotated[
        str | None, Field(min_length=1, max_length=128, examples=[_ID], description="of an uploaded video")
    ] = None
    data: Annotated[Base64 | None, Field(description="the file itself, in base64")] = None
    url: Annotated[
        str | None, Field(min_length=1, max_length=MAX_URL_CHARS, description="where to fetch it, by https; if allowed")
    ] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("id", "data", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise PydanticCustomError(
                "one_source", "give exactly one of id, data and url; given: {said}", {"said": said}
            )
        return self


class AnswerParameters(Strict):
    """A question and how to answer it: everything in a request for an answer but the video."""

    question: Annotated[
        str,
        Field(
            max_length=MAX_QUESTION_CHARS,
            json_schema_extra={"minLength": 1},
            description="what to ask about the video",
            examples=["How does the distance between the red car and the camera change?"],
        ),
    ]
    options: Annotated[
        tuple[Option, ...],
        Field(
            strict=False,  # JSON has lists, and a strict tuple takes none from Python
            json_schema_extra={"maxItems": len(LETTERS), "uniqueItems": True},
            description="none for a free answer, or 2 to 26 distinct ones: A, B, …",
            examples=[["It becomes larger.", "It becomes smaller."]],
        ),
    ] = ()
    frames: Annotated[
        int | None,
        Field(ge=1, le=MAX_FRAMES, description="frames sampled from the video; by default the model's own"),
        WHOLE,
    ] = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS, description="longest free answer, in tokens"), WHOLE] = 64
    temperature: Annotated[float, Field(ge=0, le=2, description="of a free answer; 0: always the likeliest token")] = (
        0.0
    )
    top_p: Annotated[
        float, Field(gt=0, le=1, description="only the likeliest tokens that together reach this probability are drawn")
    ] = 1.0
    stop: Annotated[
        tuple[StopString, ...],
        Field(
            strict=False,
            json_schema_extra={"maxItems": MAX_STOPS},
            description="a free answer ends before any of these",
        ),
    ] = ()
    seed: Annotated[
        int | None, Field(ge=-(2**63), lt=2**63, description="the same seed draws the same answer"), WHOLE
    ] = None
    geometry: Annotated[
        Literal["gsm", "off"], Field(description="'gsm': with the geometry tokens; 'off': the base model alone")
    ] = "gsm"
    explain: Annotated[bool, Field(description="also where and when the geometry selector looked")] = False
    stream: Annotated[bool, Field(description="answer with server-sent events: token, …, then answer or error")] = False
    timeout: Annotated[
        float | None, Field(gt=0, le=3600, description="seconds; at most, and by default, the service's own deadline")
    ] = None

    @model_validator(mode="after")
    def _question_makes_sense(self) -> Self:
        question_text(self.question, self.options)  # the model's own rules for a question, in the one place they have
        if len(self.stop) > MAX_STOPS:
            message = f"stop has {len(self.stop)} strings; at most {MAX_STOPS}"
            raise OutOfLimits(message, field="stop", value=len(self.stop), limit=MAX_STOPS)
        return self


class AnswerRequest(AnswerParameters):
    """The JSON body of `POST /v1/answers`."""

    video: VideoSource


def from_form(kind: type[P], fields: Iterable[tuple[str, str]], repeated: Sequence[str] = ()) -> P:
    """The parameters from a multipart form's text fields, of which those in `repeated` may repeat, the others not.

    A number or a boolean may be written as text. Raises what `refusal` makes, and Malformed for a repeated field.
    """
    given: dict[str, Any] = {}
    lists: dict[str, list[str]] = {name: [] for name in repeated}
    for name, text in fields:
        if name in lists:
            lists[name].append(text)
        elif name in given:
            raise Malformed(f"the field {name} stands in the form twice", field=name)
        else:
            given[name] = text
    try:
        return kind.model_validate({**given, **lists}, strict=False)
    except ValidationError as error:
        raise refusal(error.errors()) from None


def refusal(errors: Sequence[Mapping[str, Any]]) -> InputError | ServiceError:
    """The error that says what a validation found first.

    Our own error as it was raised; else OutOfLimits when a bound is broken, InputError for a value that is none of the
    allowed ones, and Malformed when the shape is wrong. The value of an unknown field is not repeated: nobody can tell
    what it is.
    """
    first, more = errors[0], len(errors) - 1
    kind, context, value = first["type"], first.get("ctx", {}), first.get("input")
    raised = context.get("error")
    if isinstance(raised, InputError | ServiceError):
        return raised
    if kind == "json_invalid":
        return Malformed(f"the body is not JSON: {raised}")
    place = first["loc"]
    place = place[1:] if place and place[0] in _PLACES else place
    field = ".".join(map(str, place)) or None
    message = f"{field or 'the body'}: {first['msg']}" + (f" (and {more} more)" if more else "")
    if kind.endswith(("_too_long", "_too_short")) and isinstance(value, Sized):
        value = len(value)
    if kind == "extra_forbidden" or not isinstance(value, str | int | float):
        value = None
    limit = next((context[name] for name in _BOUNDS if name in context), None)
    if limit is not None:
        return OutOfLimits(message, field=field, value=value, limit=limit)
    if kind == "literal_error":
        return InputError(message, field=field, value=value, limit=context["expected"])
    return Malformed(message, field=field, value=value)


class VideoInfo(Strict):
    """What was learnt of a video from its file."""

    id: Annotated[str, Field(examples=[_ID])]
    duration: Seconds
    fps: Annotated[float, Field(ge=0, description="frames per second, on average")]
    width: Annotated[int, Field(ge=1, description="pixels, as displayed")]
    height: Annotated[int, Field(ge=1, description="pixels, as displayed")]
    frames: Annotated[int, Field(ge=0, description="in an answer: those that the model saw; else those in the file")]


class Video(VideoInfo):
    """The resource at `/v1/videos/{id}`."""

    bytes: Annotated[int, Field(ge=0, description="size of the file")]


class VideoList(Strict):
    videos: list[Video]
    next: Annotated[str | None, Field(description="`after` of the next page; null on the last one")] = None


class Choice(Strict):
    letter: Annotated[str, Field(pattern="^[A-Z]$")]
    text: str
    probability: Probability


class Usage(Strict):
    """Tokens. `prompt_tokens` counts all of the prompt, the video's and the geometry's with it."""

    video_tokens: Annotated[int, Field(ge=0)]
    geometry_tokens: Annotated[int, Field(ge=0)]
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]


class Span(Strict):
    """When a stage worked for a request, waits included: seconds since the request arrived."""

    start: Seconds
    end: Seconds


class Explanation(Strict):
    """Where the geometry selector looked: the mean attention of the geometry tokens (Q-Former 2, all heads).

    `grid` is [T, R, C]: T moments of two frames each, R rows and C columns of the frame. `attention` is [T][R][C], and
    all of it adds up to 1. `times` [T]: the middles of the moments.
    """

    times: Annotated[list[float], Field(description="seconds in the video")]
    grid: Annotated[list[int], Field(min_length=3, max_length=3)]
    attention: list[list[list[Probability]]]


class Answer(Strict):
    """The response of `POST /v1/answers`."""

    id: Annotated[str, Field(examples=["ans_5f0c"])]
    model: Annotated[str, Field(examples=["dsr-tiny"])]
    text: str
    choice: Annotated[Choice | None, Field(description="the likeliest option; null without options")] = None
    probabilities: Annotated[dict[str, Probability], Field(description="by letter; empty without options")] = {}
    usage: Usage
    timings: Annotated[dict[str, Seconds], Field(description="each stage's own work", examples=[{"decoder": 0.21}])]
    spans: Annotated[dict[str, Span], Field(description="of the stages that worked for this answer")] = {}
    cache: Annotated[dict[str, Literal["hit", "miss"]], Field(examples=[{"encoder": "hit"}])]
    video: VideoInfo
    explanation: Annotated[
        Explanation | None,
        Field(description="only when asked for by `explain`", exclude_if=lambda explanation: explanation is None),
    ] = None


class Problem(BaseModel):
    """`application/problem+json` (RFC 9457). `code` is stable; `title` and `detail` are for people."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(examples=["urn:dsr:problem:out_of_limits"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    code: Annotated[str, Field(examples=["out_of_limits"])]
    detail: str
    request_id: str
    field: Annotated[str | None, Field(description="what is wrong in the request", examples=["frames"])] = None
    value: Annotated[str | int | float | None, Field(description="what it is", examples=[1000])] = None
    limit: Annotated[str | int | float | None, Field(description="what it may be", examples=[256])] = None
