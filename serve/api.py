"""The HTTP routes, as a plain FastAPI application over a `Backend`. No ray, no torch and no tensor here."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Any, BinaryIO, Protocol

import pydantic
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile

from models.config import ModelConfig
from models.errors import InputError, NotAVideo, Undecodable
from models.video import Sampling, VideoFacts
from serve import metrics, problems
from serve.errors import Deadline, Malformed, NotSupported, UnknownVideo
from serve.keys import ClipKey, is_video_id
from serve.measured import Measured
from serve.messages import Ask, Reply
from serve.openapi import ANSWER_BODY, PROBLEMS, VIDEO_BODY
from serve.schemas import (
    Answer,
    AnswerParameters,
    AnswerRequest,
    Choice,
    Usage,
    Video,
    VideoInfo,
    VideoSource,
    parameters_from_form,
    refusal,
    unsupported,
)
from serve.settings import Ingress
from serve.store import VideoStore
from serve.trace import Made

MAX_FORM_FIELDS = 64


class Backend(Protocol):
    """What the routes need of the stages behind them."""

    async def answer(self, ask: Ask) -> Made[Reply]: ...

    async def probe(self, video: str) -> VideoFacts: ...

    async def ready(self) -> Sequence[str]:
        """The names of the stages, once all of them answer. NotReady before."""
        ...


def create_app(
    backend: Backend, store: VideoStore, model: ModelConfig, settings: Ingress, *, behind_ray: bool = False
) -> FastAPI:
    """The application of one ingress replica. Ray's HTTP proxy returns request ids itself: say so with `behind_ray`."""
    app = FastAPI(
        title="dsr-serve",
        version=version("dsr-serve"),
        summary="Ask a video how things move in 3D over time.",
    )
    problems.install(app, max_body_bytes=settings.max_body_bytes, server_returns_id=behind_ray)
    app.add_middleware(Measured)
    routes = Routes(backend, store, model, settings)
    app.post("/v1/answers", response_model=Answer, openapi_extra=ANSWER_BODY, responses=PROBLEMS, tags=["answers"])(
        routes.answer
    )
    app.post(
        "/v1/videos",
        response_model=Video,
        status_code=201,
        openapi_extra=VIDEO_BODY,
        responses=PROBLEMS,
        tags=["videos"],
    )(routes.upload)
    app.get("/livez", tags=["operation"])(routes.live)
    app.get("/readyz", tags=["operation"])(routes.ready)
    app.get("/metrics", tags=["operation"])(routes.metrics)
    return app


class Routes:
    def __init__(self, backend: Backend, store: VideoStore, model: ModelConfig, settings: Ingress) -> None:
        self._backend = backend
        self._store = store
        self._model = model
        self._settings = settings

    async def answer(self, request: Request) -> Answer:
        """Answers a question about a video: the probabilities of the options, or text.

        JSON or `multipart/form-data`; the parameters have the same names in both, `options` repeats in a form.
        """
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                parameters, video = await self._read(request)
                ask = self._ask(parameters, video)
                async with self._discarding(video, NotAVideo, Undecodable):
                    made = await self._backend.answer(ask)
        except TimeoutError:
            limit = self._settings.deadline_seconds
            raise Deadline(f"no answer within {limit} s", value=None, limit=limit) from None
        answer = _answer(self._model.name, ask, made)
        metrics.observe_answer(answer)
        return answer

    async def upload(self, request: Request) -> Video:
        """Stores a video and tells what it is. Posting the same bytes again gives the same id."""
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            file = form.get("video")
            if not isinstance(file, UploadFile):
                raise Malformed("the form has no file named video", field="video")
            video = await self._keep(file.file)
        async with self._discarding(video, InputError):
            facts = await self._backend.probe(video)
        size = await asyncio.to_thread(self._store.size, video)
        return Video(**_info(video, facts, facts.frames).model_dump(), bytes=size)

    async def live(self) -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def ready(self) -> dict[str, Any]:
        """Every stage has loaded and tested itself; 503 until then."""
        return {"status": "ready", "model": self._model.name, "stages": list(await self._backend.ready())}

    async def metrics(self) -> Response:
        """Prometheus text."""
        body, content_type = metrics.render()
        return Response(body, media_type=content_type)

    async def _read(self, request: Request) -> tuple[AnswerParameters, str]:
        """The parameters and the id of the video, which is stored by then."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self._read_json(request)
        if kind == "multipart/form-data":
            return await self._read_form(request)
        raise Malformed("send application/json or multipart/form-data", field="content-type", value=kind)

    async def _read_json(self, request: Request) -> tuple[AnswerParameters, str]:
        body = await request.body()
        with _refusing():
            # In a thread: decoding 100 MB of base64 would hold up every other request for a quarter of a second.
            asked = await asyncio.to_thread(AnswerRequest.model_validate_json, body)
        self._refuse_unsupported(asked, asked.video)
        if asked.video.id is not None:
            return asked, asked.video.id
        return asked, await self._keep(io.BytesIO(asked.video.data or b""))

    async def _read_form(self, request: Request) -> tuple[AnswerParameters, str]:
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            with _refusing():
                parameters = parameters_from_form(fields)
            self._refuse_unsupported(parameters)
            file = form.get("video")
            if not isinstance(file, UploadFile):
                raise Malformed("the form has no file named video", field="video")
            return parameters, await self._keep(file.file)

    async def _keep(self, file: BinaryIO) -> str:
        return await asyncio.to_thread(self._store.put, file)

    @asynccontextmanager
    async def _discarding(self, video: str, *errors: type[InputError]) -> AsyncIterator[None]:
        """What turns out to be no video that we answer about does not stay in the store."""
        try:
            yield
        except errors:
            with suppress(UnknownVideo):  # another request about the same bytes was faster
                await asyncio.to_thread(self._store.delete, video)
            raise

    def _refuse_unsupported(self, parameters: AnswerParameters, video: VideoSource | None = None) -> None:
        field = unsupported(parameters, video)
        if field is not None:
            raise NotSupported(f"{field} is not available in this version", field=field)
        if "geometry" in parameters.model_fields_set and parameters.geometry == "gsm" and self._model.selector is None:
            raise NotSupported(f"{self._model.name} has no geometry selector", field="geometry", value="gsm")

    def _ask(self, parameters: AnswerParameters, video: str) -> Ask:
        sampling = Sampling.of(self._model.frames, count=parameters.frames)
        return Ask(
            clip=_clip(video, sampling),
            question=parameters.question,
            options=parameters.options,
            geometry=parameters.geometry == "gsm",
            max_tokens=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            stop=parameters.stop,
            seed=parameters.seed,
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """What pydantic finds wrong, as the service's own error."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise refusal(error.errors()) from None


def _clip(video: str, sampling: Sampling) -> ClipKey:
    if not is_video_id(video):
        raise UnknownVideo("no video of this id is held; upload it first", field="video.id", value=video)
    return ClipKey(video, sampling.key())


def _answer(model: str, ask: Ask, made: Made[Reply]) -> Answer:
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
        cache={stage: work.cache for stage, work in made.trace.items()},
        video=_info(ask.clip.video, reply.seen.facts, len(reply.seen.times)),
    )


def _info(video: str, facts: VideoFacts, frames: int) -> VideoInfo:
    return VideoInfo(
        id=video, duration=facts.duration, fps=facts.fps, width=facts.width, height=facts.height, frames=frames
    )
