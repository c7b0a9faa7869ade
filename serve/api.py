"""The HTTP application over a `Backend`: which routes there are. No ray, no torch and no tensor here."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Response
from prometheus_client import Metric
from starlette.middleware.cors import CORSMiddleware

from models.config import ModelConfig
from serve import metrics
from serve.access.claims import Claims
from serve.access.edge import Door, Edge
from serve.access.quota import Quotas
from serve.admission.admitted import Admitted
from serve.admission.costs import Costs
from serve.admission.gate import Capacity, Gate
from serve.answers import AnswerBackend, Answers
from serve.chat import Chat, as_openai
from serve.chat_schemas import ChatCompletion, ModelList
from serve.errors import NotSupported, ServiceError
from serve.guard import REQUEST_ID_HEADER
from serve.measured import Measured
from serve.media.fetch import Fetcher
from serve.messages import Report
from serve.openapi import (
    ANSWER_BODY,
    ANSWER_EVENTS,
    CHAT_BODY,
    CHAT_EVENTS,
    RECONSTRUCTION_BODY,
    RECONSTRUCTION_FILES,
    VIDEO_BODY,
    Documented,
    Responses,
    guarded,
    openai_errors,
    problems,
)
from serve.playground.routes import playground
from serve.problems import install
from serve.reconstructions import Reconstructing, Reconstructions
from serve.scene_schemas import Reconstruction
from serve.schemas import Answer, Video, VideoList
from serve.settings import Ingress
from serve.store import VideoStore
from serve.tracing import Tracer
from serve.videos import VideoBackend, Videos

REPORT_SECONDS = 3.0  # less than Prometheus waits for a scrape

_log = logging.getLogger(__name__)


class Backend(AnswerBackend, VideoBackend, Protocol):
    """What the routes need of the stages behind them."""

    async def ready(self) -> Sequence[str]:
        """The names of the stages, once all of them answer. NotReady before."""
        ...

    async def edges(self) -> Sequence[Sequence[Metric]]:
        """What `metrics.edge` gives in each ingress replica."""
        ...

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        """Of every stage, that of each replica."""
        ...


def create_app(
    backend: Backend,
    store: VideoStore,
    model: ModelConfig,
    settings: Ingress,
    *,
    reconstructor: Reconstructing | None = None,
    claims: Claims | None = None,
    sample: Path | None = None,
    fetcher: Fetcher | None = None,
    behind_ray: bool = False,
) -> FastAPI:
    """The application of one ingress replica. Ray's HTTP proxy returns request ids itself: say so with `behind_ray`.

    `reconstructor`: that stage, where there is one. `claims`: who has sent which video, where there are API keys.
    `sample`: a directory with a clip and a question, for the page to begin with. `fetcher`: by default the
    one that the settings describe.

    Raises:
        BadKeyFile: the settings name a key file that cannot be used.
    """
    app = Documented(
        title="dsr-serve",
        version=version("dsr-serve"),
        summary="Ask a video how things move in 3D over time.",
    )
    forms = dict.fromkeys(("/v1/chat/", "/v1/models"), as_openai)
    # The first that is added is the innermost: the guard gives a request its id and tells what the edge refuses.
    app.add_middleware(Edge, door=Door(settings.access), quotas=Quotas(settings.replicas))
    install(app, settings.max_body_bytes, server_returns_id=behind_ray, forms=forms)
    app.add_middleware(Measured, tracer=Tracer(settings.traces) if settings.traces.endpoint else None)
    _share(app, settings.access.origins)
    videos = Videos(backend, store, claims)
    gate = Gate(_capacity(settings))
    metrics.watch(gate)
    fetcher = fetcher or Fetcher(settings.media_urls, store)
    asking = (Admitted(backend, gate, Costs(model.frames)), videos, fetcher, model, settings.deadline_seconds)
    _add_answers(app, Answers(*asking))
    _add_chat(app, Chat(*asking))
    room = Gate(_room(settings, reconstructor))
    if reconstructor is not None:
        metrics.watch(room, metrics.RECONSTRUCTIONS)
    _add_reconstructions(app, Reconstructions(reconstructor, room, videos, fetcher, model, settings.deadline_seconds))
    _add_videos(app, videos)
    _add_operation(app, Operation(backend, model, settings))
    playground(app, sample)
    return app


def _share(app: FastAPI, origins: Sequence[str]) -> None:
    """Lets the pages of other sites ask, with a key of their own."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID_HEADER],
            expose_headers=["Retry-After", REQUEST_ID_HEADER],
        )


def _capacity(settings: Ingress) -> Capacity:
    """Of one ingress replica, which has its share of all."""
    admission, replicas = settings.admission, settings.replicas
    return Capacity(
        patches=(admission.patches or math.inf) / replicas,
        answers=max(1, (admission.answers or settings.max_ongoing) // replicas),
        waiting=admission.waiting // replicas,
        wait_seconds=admission.wait_seconds,
    )


def _room(settings: Ingress, stage: Reconstructing | None) -> Capacity:
    """For reconstructions, in one ingress replica: one that each replica works on, and one that is ready for it."""
    admission, replicas = settings.admission, 0 if stage is None else stage.settings.most_replicas
    return Capacity(
        patches=math.inf,
        answers=max(1, 2 * replicas // settings.replicas),
        waiting=admission.waiting // settings.replicas,
        wait_seconds=admission.wait_seconds,
    )


def _add_answers(app: FastAPI, answers: Answers) -> None:
    route = app.post(
        "/v1/answers",
        response_model=Answer,
        openapi_extra=ANSWER_BODY,
        responses={**ANSWER_EVENTS, **guarded(400, 404, 413, 415, 422, 503, 504, 507)},
        tags=["answers"],
    )
    route(answers.answer)


def _add_chat(app: FastAPI, chat: Chat) -> None:
    tags: list[Any] = ["openai"]
    complete = app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        openapi_extra=CHAT_BODY,
        responses={**CHAT_EVENTS, **openai_errors(400, 404, 413, 415, 422, 503, 504, 507)},
        tags=tags,
    )
    complete(chat.complete)
    app.get("/v1/models", response_model=ModelList, responses=openai_errors(), tags=tags)(chat.models)


def _add_reconstructions(app: FastAPI, reconstructions: Reconstructions) -> None:
    route = app.post(
        "/v1/reconstructions",
        response_model=Reconstruction,
        openapi_extra=RECONSTRUCTION_BODY,
        responses={**RECONSTRUCTION_FILES, **guarded(400, 404, 413, 415, 422, 503, 504, 507)},
        tags=["reconstructions"],
    )
    route(reconstructions.reconstruct)


def _add_videos(app: FastAPI, videos: Videos) -> None:
    tags: list[Any] = ["videos"]
    upload = app.post(
        "/v1/videos",
        response_model=Video,
        status_code=201,
        openapi_extra=VIDEO_BODY,
        responses=guarded(400, 413, 415, 422, 503, 507),
        tags=tags,
    )
    upload(videos.upload)
    page = app.get("/v1/videos", response_model=VideoList, responses=guarded(400, 422, 503), tags=tags)
    page(videos.list)
    one = app.get("/v1/videos/{video}", response_model=Video, responses=guarded(404, 415, 422, 503), tags=tags)
    one(videos.get)
    app.delete("/v1/videos/{video}", status_code=204, responses=guarded(404, 422, 503), tags=tags)(videos.delete)


def _add_operation(app: FastAPI, operation: Operation) -> None:
    tags: list[Any] = ["operation"]
    app.get("/livez", responses=problems(), tags=tags)(operation.live)
    app.get("/readyz", responses=problems(503), tags=tags)(operation.ready)
    text: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    app.get("/metrics", response_class=Response, responses={**text, **guarded()}, tags=tags)(operation.metrics)
    app.delete("/v1/caches", status_code=204, responses=guarded(400), tags=tags)(operation.flush)


class Operation:
    """Routes for who runs the service."""

    def __init__(self, backend: Backend, model: ModelConfig, settings: Ingress) -> None:
        self._backend = backend
        self._model = model
        self._settings = settings

    async def live(self) -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def ready(self) -> dict[str, Any]:
        """Every stage has loaded and tested itself; 503 until then."""
        return {"status": "ready", "model": self._model.name, "stages": list(await self._backend.ready())}

    async def metrics(self) -> Response:
        """Prometheus text of the whole application: all replicas of the ingress and of every stage, added up."""
        body, content_type = metrics.render(await self._edges(), await self._reports())
        return Response(body, media_type=content_type)

    async def _edges(self) -> Sequence[Sequence[Metric]]:
        """This replica's own when the others cannot be asked."""
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                return await self._backend.edges()
        except (ServiceError, TimeoutError) as error:
            _log.warning("metrics of this ingress replica alone: %r", error)
            return [metrics.edge()]

    async def _reports(self) -> Mapping[str, Sequence[Report]]:
        """None while stages are away: the edge's own figures are wanted most then."""
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                return await self._backend.reports()
        except (ServiceError, TimeoutError) as error:
            _log.warning("metrics without the stages' own: %r", error)
            return {}

    async def flush(self) -> Response:
        """Every stage forgets what it keeps. Only where the setting `ingress.allow_flush` permits it."""
        if not self._settings.allow_flush:
            raise NotSupported("ingress.allow_flush is off", field="caches")
        await self._backend.flush()
        return Response(status_code=204)
