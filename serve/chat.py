"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them, on the way of every answer."""

from __future__ import annotations

import asyncio
import binascii
import re
import time
import uuid
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request

from serve.access.edge import caller_of
from serve.access.keyring import Caller
from serve.asking import Asking
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
from serve.errors import Malformed
from serve.intake import Intake, parsed
from serve.messages import Ask, Likely, Reply, Said
from serve.schemas import Problem
from serve.sse import Event
from serve.trace import Made

DEFAULT_MAX_TOKENS = 64
DONE = Event("[DONE]")
_DATA = re.compile(r"data:(?P<type>[\w.+/-]*)(?P<parameters>(?:;[\w.+=-]+)*),", re.ASCII)
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Chat:
    def __init__(self, asking: Asking, intake: Intake) -> None:
        self._asking = asking
        self._intake = intake
        self._created = int(time.time())

    async def models(self) -> ModelList:
        """The one model that is served."""
        return ModelList(data=[Model(id=self._asking.model.name, created=self._created)])

    async def complete(self, request: Request) -> Any:
        """OpenAI's chat completions about one video, a `video_url` part: a data: URL, `dsr://` and an uploaded id, or,
        where the service allows it, an https URL."""
        clock = self._asking.begin(request)
        asked = await parsed(ChatRequest, await request.body())
        ask = await clock.within(self._ask(asked, request, clock))
        wording = _Wording(self._asking.model.name, asked)
        if asked.stream:
            return await self._asking.streamed(request, ask, clock, wording)
        return wording.whole(await self._asking.whole(request, ask, clock))

    async def _ask(self, asked: ChatRequest, request: Request, clock: Clock) -> Ask:
        self._asking.refuse_without_geometry(asked)
        turns = asked.turns()
        video = await self._video(asked.video(), caller_of(request))
        return self._asking.ask(
            request,
            clock,
            video,
            asked.frames,
            turns=turns,
            options=(),
            geometry=asked.geometry == "gsm",
            max_tokens=asked.max_completion_tokens or asked.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=asked.temperature or 0.0,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            stop=asked.stops,
            seed=asked.seed,
            logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        )

    async def _video(self, url: str, caller: Caller) -> str:
        """The id of the video behind a URL, which is stored by then."""
        if url.startswith("data:"):
            return await self._intake.sent(await asyncio.to_thread(data_of, url), caller)
        if ":" in url and not url.startswith("dsr://"):
            return await self._intake.fetched(url, caller, "video_url")
        return await self._intake.held(url.removeprefix("dsr://"), caller, "video_url")


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


class _Wording:
    """What all parts of one completion have in common, and the parts."""

    def __init__(self, model: str, asked: ChatRequest) -> None:
        self._common: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._with_logprobs = bool(asked.logprobs)
        self._with_usage = asked.stream_options is not None and asked.stream_options.include_usage

    def whole(self, made: Made[Reply]) -> ChatCompletion:
        reply = made.value
        choice = CompletionChoice(
            message=AssistantMessage(content=reply.text),
            logprobs=self._logprobs(reply.tokens),
            finish_reason=reply.finish,
        )
        return ChatCompletion(**self._common, choices=[choice], usage=_usage(reply))

    def begun(self) -> Iterable[Event]:
        yield self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")))

    def said(self, said: Said) -> Event:
        return self._chunk(ChunkChoice(delta=Delta(content=said.text), logprobs=self._logprobs(said.tokens)))

    def ended(self, made: Made[Reply]) -> Iterable[Event]:
        yield self._chunk(ChunkChoice(delta=Delta(), finish_reason=made.value.finish))
        if self._with_usage:
            yield self._chunk(usage=_usage(made.value))
        yield DONE

    def failed(self, problem: Problem) -> Event:
        return Event(as_openai(problem).model_dump_json())

    def _chunk(self, *choices: ChunkChoice, usage: CompletionUsage | None = None) -> Event:
        chunk = ChatChunk(**self._common, choices=list(choices), usage=usage)
        return Event(chunk.model_dump_json(exclude_none=True))

    def _logprobs(self, tokens: Sequence[Likely]) -> Logprobs | None:
        return _logprobs(tokens) if self._with_logprobs else None


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
