"""`POST /v1/answers`: from a request's body to a question for the decoder, and from its reply to the answer."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request

from models.config import ModelConfig
from models.errors import NotAVideo, Undecodable
from models.prompt import asking
from models.video import Sampling
from serve import metrics, tracing
from serve.clock import Clock
from serve.errors import NotSupported
from serve.intake import Intake
from serve.keys import ClipKey
from serve.media.fetch import Fetcher
from serve.messages import Ask, Reply, Said
from serve.problems import describe
from serve.schemas import REPEATED, Answer, AnswerParameters, AnswerRequest, Choice, Explanation, Span, Usage
from serve.sse import Event, EventStream
from serve.trace import Made, Trace
from serve.videos import Videos, caller_of, described

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
        self._intake = Intake(
            videos, fetcher, AnswerParameters, AnswerRequest, self._refuse_no_geometry, lists=REPEATED
        )
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
        parameters, video = await clock.within(self._intake.read(request, clock))
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
        """What the decoder is asked."""
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
        **worked(made.trace, arrived),
        video=described(ask.clip.video, reply.seen.facts, len(reply.seen.times)),
        explanation=_explanation(reply),
    )


def worked(trace: Trace, arrived: float) -> dict[str, Any]:
    """What a response tells of the stages' work. `arrived`: when its request came, in seconds since 1970."""
    spans = {stage: work.span for stage, work in trace.items() if work.span is not None}
    return {
        "timings": {stage: work.seconds for stage, work in trace.items()},
        "cache": {stage: work.cache for stage, work in trace.items()},
        # Clocks of different machines may differ by more than a request takes: no span begins before its request.
        "spans": {
            stage: Span(start=max(0.0, began - arrived), end=max(0.0, ended - arrived))
            for stage, (began, ended) in spans.items()
        },
    }


def _explanation(reply: Reply) -> Explanation | None:
    found = reply.explanation
    if found is None:
        return None
    return Explanation(times=found.times.tolist(), grid=list(found.attention.shape), attention=found.attention.tolist())
