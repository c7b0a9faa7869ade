"""`POST /v1/answers`: from a request's body to a question for the decoder, and from its reply to the answer."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

import pydantic
from fastapi import Request
from starlette.datastructures import UploadFile

from models.config import ModelConfig
from models.errors import NotAVideo, Undecodable
from models.prompt import asking
from models.video import Sampling
from serve import metrics, tracing
from serve.errors import Deadline, Malformed, NotSupported, UnknownVideo
from serve.keys import ClipKey, is_video_id
from serve.media.fetch import Fetcher
from serve.messages import Ask, Reply, Said
from serve.problems import describe
from serve.schemas import (
    Answer,
    AnswerParameters,
    AnswerRequest,
    Choice,
    Explanation,
    Span,
    Usage,
    parameters_from_form,
    refusal,
)
from serve.sse import Event, EventStream
from serve.trace import Made
from serve.videos import MAX_FORM_FIELDS, Videos, caller_of, described

T = TypeVar("T")
Events = AsyncGenerator[Said | Made[Reply], None]


class AnswerBackend(Protocol):
    """What this route needs of the stages."""

    async def answer(self, ask: Ask) -> Made[Reply]: ...

    def stream(self, ask: Ask) -> Events:
        """The text as it is written, then what `answer` returns. Closing it ends the work."""
        ...


class AdmittingBackend(AnswerBackend, Protocol):
    def knock(self, caller: str) -> None:
        """Before a body is read. Busy: there is no place for another question."""
        ...


class Answers:
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

    async def answer(self, request: Request) -> Any:
        """Answers a question about a video: the probabilities of the options, or text.

        JSON or `multipart/form-data` with the same names; in a form, `options` and `stop` may repeat.
        With `stream`, the response is `text/event-stream`: `token` events with the next part of the text, then the
        `answer`, or an `error` with a problem.
        """
        self._backend.knock(caller_of(request).name or "")
        clock = Clock(self._deadline_seconds)
        parameters, video = await clock.within(self._read(request, clock))
        clock.limit(parameters.timeout)
        ask = self.ask(parameters, video, caller_of(request).name, clock.deadline)
        if parameters.stream:
            return await self._stream(request, ask, clock)
        async with self._videos.discarding(video, request, NotAVideo, Undecodable):
            made = await clock.within(self._backend.answer(ask))
        return self._answer(request, ask, made, clock)

    async def _stream(self, request: Request, ask: Ask, clock: Clock) -> EventStream:
        """What fails before the first word is an ordinary problem, with its own status."""
        items = self._backend.stream(ask)
        try:
            async with self._videos.discarding(ask.clip.video, request, NotAVideo, Undecodable):
                first = await clock.within(anext(items))
        except BaseException:
            await items.aclose()
            raise
        return EventStream(self._events(request, ask, first, items, clock))

    async def _events(
        self, request: Request, ask: Ask, first: Said | Made[Reply], items: Events, clock: Clock
    ) -> AsyncGenerator[Event, None]:
        async with aclosing(items):
            item = first
            try:
                while isinstance(item, Said):
                    yield Event(json.dumps({"text": item.text}), "token")
                    item = await clock.within(anext(items))
                yield Event(self._answer(request, ask, item, clock).model_dump_json(), "answer")
            except Exception as error:
                problem = describe(error, request.state.request_id)
                request.state.problem_code = problem.code
                yield Event(problem.model_dump_json(), "error")

    def ask(self, parameters: AnswerParameters, video: str, caller: str | None, deadline: float) -> Ask:
        """
        Raises:
            UnknownVideo: `video` is no id.
            NotSupported: the model has no geometry to answer with, or to explain.
        """
        if not is_video_id(video):
            raise UnknownVideo("no video of this id is held; upload it first", field="video.id", value=video)
        self._refuse_no_geometry(parameters)
        # A drawn answer has a seed, so that another decoder can go on with it when one is lost.
        drawn = parameters.temperature > 0 and parameters.seed is None
        return Ask(
            clip=ClipKey(video, Sampling.of(self._model.frames, count=parameters.frames).key()),
            turns=asking(parameters.question, parameters.options),
            options=parameters.options,
            geometry=parameters.geometry == "gsm",
            max_tokens=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            stop=parameters.stop,
            seed=secrets.randbits(63) if drawn else parameters.seed,
            explain=parameters.explain,
            caller=caller or "",
            deadline=deadline,
        )

    async def _read(self, request: Request, clock: Clock) -> tuple[AnswerParameters, str]:
        """The parameters and the id of the video, which is stored by then."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self._read_json(request, clock)
        if kind == "multipart/form-data":
            return await self._read_form(request)
        raise Malformed("send application/json or multipart/form-data", field="content-type", value=kind)

    async def _read_json(self, request: Request, clock: Clock) -> tuple[AnswerParameters, str]:
        body = await request.body()
        with _refusing():
            # In a thread: decoding 100 MB of base64 would hold up every other request for a quarter of a second.
            asked = await asyncio.to_thread(AnswerRequest.model_validate_json, body)
        if asked.video.id is not None:
            await self._videos.check(asked.video.id, request)
            return asked, asked.video.id
        self._refuse_no_geometry(asked)
        if asked.video.url is not None:
            clock.limit(asked.timeout)
            video = await clock.within(self._fetcher.keep(asked.video.url, "video.url"))
            await self._videos.claim(video, request)
            return asked, video
        return asked, await self._videos.keep(io.BytesIO(asked.video.data or b""), request)

    async def _read_form(self, request: Request) -> tuple[AnswerParameters, str]:
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            with _refusing():
                parameters = parameters_from_form(fields)
            self._refuse_no_geometry(parameters)
            file = form.get("video")
            if not isinstance(file, UploadFile):
                raise Malformed("the form has no file named video", field="video")
            return parameters, await self._videos.keep(file.file, request)

    def _refuse_no_geometry(self, parameters: AnswerParameters) -> None:
        if self._model.selector is not None:
            return
        if parameters.explain:
            raise NotSupported(f"{self._model.name} has no geometry selector to explain", field="explain", value=True)
        if "geometry" in parameters.model_fields_set and parameters.geometry == "gsm":
            raise NotSupported(f"{self._model.name} has no geometry selector", field="geometry", value="gsm")

    def _answer(self, request: Request, ask: Ask, made: Any, clock: Clock) -> Answer:
        answer = as_answer(self._model.name, ask, made, clock.arrived)
        metrics.observe_answer(answer)
        tracing.note(request, made.trace)
        return answer


class Clock:
    """When a request came, and until when it must be answered. A request may ask for less time than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.arrived = time.time()
        self._start = time.monotonic()
        self._seconds = seconds

    def limit(self, seconds: float | None) -> None:
        self._seconds = min(self._seconds, seconds or self._seconds)

    @property
    def deadline(self) -> float:
        """In seconds since 1970."""
        return self.arrived + self._seconds

    async def within(self, work: Awaitable[T]) -> T:
        """
        Raises:
            Deadline: the request's time is over before `work` is; it is cancelled then.
        """
        rest = self._start + self._seconds - time.monotonic()
        try:
            async with asyncio.timeout(rest):
                return await work
        except TimeoutError:
            raise Deadline(f"no answer within {self._seconds} s", limit=self._seconds) from None


@contextmanager
def _refusing() -> Iterator[None]:
    """What pydantic finds wrong, as the service's own error."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise refusal(error.errors()) from None


def as_answer(model: str, ask: Ask, made: Made[Reply], arrived: float) -> Answer:
    """`arrived`: when the request came, in seconds since 1970."""
    reply = made.value
    choice = None
    if reply.probabilities is not None:
        index = list(reply.probabilities).index(reply.text)
        choice = Choice(letter=reply.text, text=ask.options[index], probability=reply.probabilities[reply.text])
    return Answer(
        id=f"ans_{uuid.uuid4().hex}",
        model=model,
        text=reply.text,
        choice=choice,
        probabilities=reply.probabilities or {},
        usage=Usage(
            video_tokens=reply.video_tokens,
            geometry_tokens=reply.geometry_tokens,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        ),
        timings={stage: work.seconds for stage, work in made.trace.items()},
        spans=_spans(made, arrived),
        cache={stage: work.cache for stage, work in made.trace.items()},
        video=described(ask.clip.video, reply.seen.facts, len(reply.seen.times)),
        explanation=_explanation(reply),
    )


def _spans(made: Made[Reply], arrived: float) -> dict[str, Span]:
    """Clocks of different machines may differ by more than a request takes: no span begins before its request."""
    spans = {stage: work.span for stage, work in made.trace.items() if work.span is not None}
    return {
        stage: Span(start=max(0.0, began - arrived), end=max(0.0, ended - arrived))
        for stage, (began, ended) in spans.items()
    }


def _explanation(reply: Reply) -> Explanation | None:
    found = reply.explanation
    if found is None:
        return None
    return Explanation(times=found.times.tolist(), grid=list(found.attention.shape), attention=found.attention.tolist())
