"""`POST /v1/answers`: from a request's parameters to what the decoder is asked, and from its reply to the answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from models.prompt import asking as turns_of
from serve.asking import Asking
from serve.intake import Intake, Shape
from serve.messages import Ask, Reply, Said
from serve.responses import described, worked
from serve.schemas import REPEATED, Answer, AnswerParameters, AnswerRequest, Choice, Explanation, Problem, Usage
from serve.sse import Event
from serve.trace import Made


class Answers:
    def __init__(self, asking: Asking, intake: Intake) -> None:
        self._asking = asking
        self._intake = intake
        self._shape = Shape(AnswerParameters, AnswerRequest, self._refuse_no_geometry, lists=REPEATED)

    async def answer(self, request: Request) -> Any:
        """Answers a question about a video: the probabilities of the options, or text.

        JSON or `multipart/form-data` with the same names; in a form, `options` and `stop` may repeat.
        With `stream`, the response is `text/event-stream`: `token` events with the next part of the text, then the
        `answer`, or an `error` with a problem.
        """
        clock = self._asking.begin(request)
        parameters, video = await clock.within(self._intake.read(request, clock, self._shape))
        clock.limit(parameters.timeout)
        ask = self._asking.ask(
            request,
            clock,
            video,
            parameters.frames,
            turns=turns_of(parameters.question, parameters.options),
            options=parameters.options,
            geometry=parameters.geometry == "gsm",
            max_tokens=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            stop=parameters.stop,
            seed=parameters.seed,
            explain=parameters.explain,
        )
        wording = _Wording(self._asking.model.name, ask, clock.arrived)
        if parameters.stream:
            return await self._asking.streamed(request, ask, clock, wording)
        return wording.whole(await self._asking.whole(request, ask, clock))

    def _refuse_no_geometry(self, parameters: AnswerParameters) -> None:
        self._asking.refuse_without_geometry(parameters, parameters.explain)


@dataclass(frozen=True)
class _Wording:
    """`arrived`: when the request came, in seconds since 1970."""

    model: str
    ask: Ask
    arrived: float

    def begun(self) -> Iterable[Event]:
        return ()

    def said(self, said: Said) -> Event:
        return Event(json.dumps({"text": said.text}), "token")

    def ended(self, made: Made[Reply]) -> Iterable[Event]:
        yield Event(self.whole(made).model_dump_json(), "answer")

    def failed(self, problem: Problem) -> Event:
        return Event(problem.model_dump_json(), "error")

    def whole(self, made: Made[Reply]) -> Answer:
        reply = made.value
        choice = None
        if reply.probabilities is not None:
            index = list(reply.probabilities).index(reply.text)
            text = self.ask.options[index]
            choice = Choice(letter=reply.text, text=text, probability=reply.probabilities[reply.text])
        return Answer(
            id=f"ans_{uuid.uuid4().hex}",
            model=self.model,
            text=reply.text,
            choice=choice,
            probabilities=reply.probabilities or {},
            usage=Usage(
                video_tokens=reply.video_tokens,
                geometry_tokens=reply.geometry_tokens,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
            ),
            **worked(made.trace, self.arrived),
            video=described(self.ask.clip.video, reply.seen.facts, len(reply.seen.times)),
            explanation=_explanation(reply),
        )


def _explanation(reply: Reply) -> Explanation | None:
    found = reply.explanation
    if found is None:
        return None
    return Explanation(times=found.times.tolist(), grid=list(found.attention.shape), attention=found.attention.tolist())
