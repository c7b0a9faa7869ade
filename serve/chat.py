"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them, on the way of every answer."""

from __future__ import annotations

import asyncio
import binascii
import io
import re
import secrets
import time
import uuid
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

import pydantic
from fastapi import Request

from models.config import ModelConfig
from models.errors import NotAVideo, Undecodable
from models.video import Sampling
from serve import metrics, tracing
from serve.answers import AdmittingBackend, Events, as_answer
from serve.chat_schemas import (
    AssistantMessage,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChunkChoice,
    CompletionChoice,
    CompletionUsage,
    Delta,
    Logprobs,
    Model,
    ModelList,
    OpenAIError,
    OpenAIErrorBody,
    TokenLogprob,
    TopLogprob,
)
from serve.clock import Clock
from serve.errors import Malformed, NotSupported, UnknownVideo
from serve.keys import ClipKey, is_video_id
from serve.media.fetch import Fetcher
from serve.messages import Ask, Likely, Reply, Said
from serve.problems import describe
from serve.schemas import Problem, refusal
from serve.sse import Event, EventStream
from serve.trace import Made
from serve.videos import Videos, caller_of

DEFAULT_MAX_TOKENS = 64
DONE = Event("[DONE]")
_DATA = re.compile(r"data:(?P<type>[\w.+/-]*)(?P<parameters>(?:;[\w.+=-]+)*),", re.ASCII)
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Chat:
    def __init__(
        self,
        backend: AdmittingBackend,
        videos: Videos,
        fetcher: Fetcher,
        model: ModelConfig,
        deadline_seconds: float,
    ) -> None:
        self._backend = backend
        self._videos = videos
        self._fetcher = fetcher
        self._model = model
        self._deadline_seconds = deadline_seconds
        self._created = int(time.time())

    async def models(self) -> ModelList:
        """The one model that is served."""
        return ModelList(data=[Model(id=self._model.name, created=self._created)])

    async def complete(self, request: Request) -> Any:
        """OpenAI's chat completions about one video, a `video_url` part: a data: URL, `dsr://` and an uploaded id, or,
        where the service allows it, an https URL."""
        self._backend.knock(caller_of(request).name or "")
        clock = Clock(self._deadline_seconds)
        body = await request.body()
        asked = await asyncio.to_thread(_parsed, body)
        ask = await clock.within(self._ask(asked, request, clock.deadline))
        head = _Head(self._model.name, asked)
        items = self._backend.stream(ask)
        try:
            async with self._videos.discarding(ask.clip.video, request, NotAVideo, Undecodable):
                if not asked.stream:
                    made = await clock.within(_last(items))
                    head.observe(request, ask, made, clock)
                    return head.whole(made)
                first = await clock.within(anext(items))
        except BaseException:
            await items.aclose()
            raise
        return EventStream(_events(request, head, ask, first, items, clock))

    async def _ask(self, asked: ChatRequest, request: Request, deadline: float) -> Ask:
        drawn = (asked.temperature or 0) > 0 and asked.seed is None
        if "geometry" in asked.model_fields_set and asked.geometry == "gsm" and self._model.selector is None:
            raise NotSupported(f"{self._model.name} has no geometry selector", field="geometry", value="gsm")
        turns, video = asked.turns(), await self._video(asked.video(), request)
        return Ask(
            clip=ClipKey(video, Sampling.of(self._model.frames, count=asked.frames).key()),
            turns=turns,
            options=(),
            geometry=asked.geometry == "gsm",
            max_tokens=asked.max_completion_tokens or asked.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=asked.temperature or 0.0,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            stop=asked.stops,
            seed=secrets.randbits(63) if drawn else asked.seed,
            logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
            caller=caller_of(request).name or "",
            deadline=deadline,
        )

    async def _video(self, url: str, request: Request) -> str:
        """The id of the video behind a URL, which is stored by then."""
        if url.startswith("data:"):
            data = await asyncio.to_thread(data_of, url)
            return await self._videos.keep(io.BytesIO(data), request)
        video = url.removeprefix("dsr://")
        if is_video_id(video):
            await self._videos.check(video, request)
            return video
        if ":" in url and not url.startswith("dsr://"):
            video = await self._fetcher.keep(url, "video_url")
            await self._videos.claim(video, request)
            return video
        raise UnknownVideo("no video of this id is held; upload it first", field="video_url", value=video)


def data_of(url: str) -> bytes:
    """The bytes of a data: URL (RFC 2397).

    Raises:
        Malformed: it is none.
    """
    head = _DATA.match(url[:200])
    if head is None:
        raise Malformed("not a data: URL of the form data:video/mp4;base64,…", field="video_url")
    body = url[head.end() :]
    if not head["parameters"].endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"not valid base64: {error}", field="video_url") from None


def _parsed(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise refusal(error.errors()) from None


async def _last(items: Events) -> Made[Reply]:
    """Streamed inside even if the client wants it whole: it can go on at another decoder when one is lost."""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Made):
                return item
    raise RuntimeError("a stream of the decoder ended without a reply")


class _Head:
    """What all parts of one completion have in common."""

    def __init__(self, model: str, asked: ChatRequest) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model
        self.logprobs = bool(asked.logprobs)
        self.include_usage = asked.stream_options is not None and asked.stream_options.include_usage

    def observe(self, request: Request, ask: Ask, made: Made[Reply], clock: Clock) -> None:
        """Counts the answer as one of `POST /v1/answers` is counted."""
        metrics.observe_answer(as_answer(self.model, ask, made, clock.arrived))
        tracing.note(request, made.trace)

    def whole(self, made: Made[Reply]) -> ChatCompletion:
        reply = made.value
        choice = CompletionChoice(
            message=AssistantMessage(content=reply.text),
            logprobs=_logprobs(reply.tokens) if self.logprobs else None,
            finish_reason=reply.finish,
        )
        return ChatCompletion(id=self.id, created=self.created, model=self.model, choices=[choice], usage=_usage(reply))

    def event(self, *choices: ChunkChoice, usage: CompletionUsage | None = None) -> Event:
        chunk = ChatChunk(id=self.id, created=self.created, model=self.model, choices=list(choices), usage=usage)
        return Event(chunk.model_dump_json(exclude_none=True))


async def _events(
    request: Request, head: _Head, ask: Ask, first: Said | Made[Reply], items: Events, clock: Clock
) -> AsyncGenerator[Event, None]:
    async with aclosing(items):
        item = first
        try:
            yield head.event(ChunkChoice(delta=Delta(role="assistant", content="")))
            while isinstance(item, Said):
                logprobs = _logprobs(item.tokens) if head.logprobs else None
                yield head.event(ChunkChoice(delta=Delta(content=item.text), logprobs=logprobs))
                item = await clock.within(anext(items))
            head.observe(request, ask, item, clock)
            yield head.event(ChunkChoice(delta=Delta(), finish_reason=item.value.finish))
            if head.include_usage:
                yield head.event(usage=_usage(item.value))
            yield DONE
        except Exception as error:
            problem = describe(error, request.state.request_id)
            request.state.problem_code = problem.code
            yield Event(as_openai(problem).model_dump_json())


def as_openai(problem: Problem) -> OpenAIError:
    """A problem in OpenAI's form; its request id stands in the header alone, and its limit in the message."""
    kind = _ERROR_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return OpenAIError(error=OpenAIErrorBody(message=problem.detail, type=kind, param=problem.field, code=problem.code))


def _usage(reply: Reply) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        total_tokens=reply.prompt_tokens + reply.completion_tokens,
    )


def _logprobs(tokens: Sequence[Likely]) -> Logprobs:
    def top(raw: bytes, logprob: float) -> TopLogprob:
        return TopLogprob(token=raw.decode(errors="replace"), logprob=logprob, bytes=list(raw))

    return Logprobs(
        content=[
            TokenLogprob(**top(token.raw, token.logprob).model_dump(), top_logprobs=[top(*one) for one in token.top])
            for token in tokens
        ]
    )
