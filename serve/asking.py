"""From a question to the decoder's reply, whole or as it is written: all that the routes that answer have in common."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request

from models.config import ModelConfig
from models.errors import NotAVideo, Undecodable
from models.video import Sampling
from serve import metrics
from serve.access.edge import caller_of
from serve.clock import Clock
from serve.custody import Custody
from serve.errors import NotSupported
from serve.keys import ClipKey
from serve.measured import note
from serve.messages import Ask, Reply, Said
from serve.problems import describe
from serve.schemas import Problem
from serve.sse import Event, EventStream
from serve.trace import Made

Items = AsyncGenerator[Said | Made[Reply], None]


class AnswerBackend(Protocol):
    """What these routes need of the stages."""

    async def answer(self, ask: Ask) -> Made[Reply]: ...

    def stream(self, ask: Ask) -> Items:
        """The text as it is written, then what `answer` returns. Closing it ends the work."""
        ...


class AdmittingBackend(AnswerBackend, Protocol):
    def knock(self, caller: str) -> None:
        """Before a body is read. Busy: there is no place for another question."""
        ...


class Wording(Protocol):
    """How a route says what comes of a question, in events."""

    def begun(self) -> Iterable[Event]: ...

    def said(self, said: Said) -> Event: ...

    def ended(self, made: Made[Reply]) -> Iterable[Event]: ...

    def failed(self, problem: Problem) -> Event: ...


class Asking:
    def __init__(
        self, backend: AdmittingBackend, custody: Custody, model: ModelConfig, deadline_seconds: float
    ) -> None:
        self.model = model
        self._backend = backend
        self._custody = custody
        self._deadline_seconds = deadline_seconds

    def begin(self, request: Request) -> Clock:
        """Before the body is read.

        Raises:
            Busy: there is no place for another question.
        """
        self._backend.knock(caller_of(request).name or "")
        return Clock(self._deadline_seconds)

    def refuse_without_geometry(self, parameters: Any, explain: bool = False) -> None:
        """Geometry that is asked for in so many words is not left out in silence.

        Raises:
            NotSupported: the model has none.
        """
        if self.model.selector is not None:
            return
        if explain:
            raise NotSupported(f"{self.model.name} has no geometry selector to explain", field="explain", value=True)
        if "geometry" in parameters.model_fields_set and parameters.geometry == "gsm":
            raise NotSupported(f"{self.model.name} has no geometry selector", field="geometry", value="gsm")

    def ask(
        self,
        request: Request,
        clock: Clock,
        video: str,
        frames: int | None,
        *,
        temperature: float,
        seed: int | None,
        **parameters: Any,
    ) -> Ask:
        """What the decoder is asked; `parameters` are its other fields."""
        # A drawn answer has a seed, so that another decoder can go on with it when one is lost.
        drawn = temperature > 0 and seed is None
        return Ask(
            clip=ClipKey(video, Sampling.of(self.model.frames, count=frames).key()),
            temperature=temperature,
            seed=secrets.randbits(63) if drawn else seed,
            caller=caller_of(request).name or "",
            deadline=clock.deadline,
            **parameters,
        )

    async def whole(self, request: Request, ask: Ask, clock: Clock) -> Made[Reply]:
        async with self._custody.discarding(ask.clip.video, caller_of(request), NotAVideo, Undecodable):
            made = await clock.within(self._backend.answer(ask))
        _count(request, made)
        return made

    async def streamed(self, request: Request, ask: Ask, clock: Clock, wording: Wording) -> EventStream:
        """What fails before the first word is an ordinary problem, with its own status."""
        items = self._backend.stream(ask)
        try:
            async with self._custody.discarding(ask.clip.video, caller_of(request), NotAVideo, Undecodable):
                first = await clock.within(anext(items))
        except BaseException:
            await items.aclose()
            raise
        return EventStream(_events(request, first, items, clock, wording))


async def _events(
    request: Request, first: Said | Made[Reply], items: Items, clock: Clock, wording: Wording
) -> AsyncGenerator[Event, None]:
    async with aclosing(items):
        item = first
        try:
            for event in wording.begun():
                yield event
            while isinstance(item, Said):
                yield wording.said(item)
                item = await clock.within(anext(items))
            _count(request, item)
            for event in wording.ended(item):
                yield event
        except Exception as error:
            problem = describe(error, request.state.request_id)
            request.state.problem_code = problem.code
            yield wording.failed(problem)


def _count(request: Request, made: Made[Reply]) -> None:
    note(request, made.trace)
    metrics.observe_tokens(made.value)
