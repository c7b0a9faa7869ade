"""OpenAI's chat completions as types: what of them this service takes, and what it answers with.

A parameter that we do not have is accepted where its value asks for nothing (`n: 1`), and refused where it does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import InvalidQuestion
from models.prompt import Turn
from serve.errors import Malformed, NotSupported
from serve.schemas import MAX_FRAMES, MAX_STOP_CHARS, MAX_STOPS, MAX_TOKENS, WHOLE

MAX_MESSAGES = 64
MAX_TEXT_CHARS = 8000
MAX_ALTERNATIVES = 20
# What asks for nothing: a parameter of OpenAI's and the values with which it changes no answer of ours.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
}
IGNORED = ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")  # they steer no answer


class VideoUrl(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[str, Field(min_length=1, description="a data: URL, dsr:// and an uploaded id, or https; if allowed")]


class Part(BaseModel):
    """A piece of a message: text or a video."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: Annotated[str | None, Field(max_length=MAX_TEXT_CHARS)] = None
    video_url: VideoUrl | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | list[Part]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if part.text is not None)

    @property
    def videos(self) -> list[str]:
        """Their URLs."""
        parts = [] if isinstance(self.content, str) else self.content
        for part in parts:
            if part.type not in ("text", "video_url"):
                raise NotSupported(f"parts are text or video_url, not {part.type}", field="messages", value=part.type)
            if (part.text is None) != (part.type != "text") or (part.video_url is None) != (part.type != "video_url"):
                raise Malformed(f"a part of type {part.type} has its field {part.type} alone", field="messages")
        return [part.video_url.url for part in parts if part.video_url is not None]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`. `frames` and `geometry` are ours, as in `POST /v1/answers`."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS), WHOLE] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS), WHOLE] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    stop: Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)] | list[str] | None = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63), WHOLE] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_ALTERNATIVES), WHOLE] = None
    frames: Annotated[int | None, Field(ge=1, le=MAX_FRAMES), WHOLE] = None
    geometry: Literal["gsm", "off"] = "gsm"

    @model_validator(mode="after")
    def _asks_for_what_we_have(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in IGNORED or value is None or value in NEUTRAL.get(name, ()):
                continue
            raise NotSupported(f"{name} is not available in this service", field=name)
        if self.top_logprobs is not None and not self.logprobs:
            raise Malformed("top_logprobs needs logprobs: true", field="top_logprobs", value=self.top_logprobs)
        stops = self.stops
        if len(stops) > MAX_STOPS or any(not 1 <= len(stop) <= MAX_STOP_CHARS for stop in stops):
            message = f"stop: at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters"
            raise InvalidQuestion(message, field="stop", value=len(stops), limit=MAX_STOPS)
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def turns(self) -> tuple[Turn, ...]:
        """The conversation. Its videos are where the messages have them."""
        return tuple(
            Turn("system" if message.role == "developer" else message.role, message.text, bool(message.videos))
            for message in self.messages
        )

    def video(self) -> str:
        """The URL of the one video.

        Raises:
            NotSupported: there is none, or more than one.
        """
        urls = [url for message in self.messages for url in message.videos]
        if len(urls) != 1:
            message = f"{len(urls)} videos; this model answers about exactly one, in a video_url part of one message"
            raise NotSupported(message, field="messages", value=len(urls), limit=1)
        return urls[0]


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class CompletionChoice(BaseModel):
    index: int = 0
    message: AssistantMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The response without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int = 0
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "dsr-serve"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """How OpenAI's API words an error; ours in `message`, `param` and `code`."""

    error: OpenAIErrorBody
