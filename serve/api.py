"""The HTTP application over a `Backend`: which routes there are. No ray, no torch and no tensor here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware

from models.config import ModelConfig
from serve import metrics
from serve.access.claims import Claims
from serve.access.edge import Door, Edge
from serve.access.quota import Quotas
from serve.admission.admitted import Admitted
from serve.admission.costs import Costs
from serve.admission.gate import Capacity, Gate
from serve.answers import Answers
from serve.asking import AnswerBackend, Asking
from serve.chat import Chat, as_openai
from serve.chat_schemas import ChatCompletion, ModelList
from serve.custody import Custody
from serve.guard import REQUEST_ID_HEADER
from serve.intake import Intake
from serve.measured import Measured
from serve.media.fetch import Fetcher
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
from serve.operation import Operation, OperationBackend
from serve.playground.routes import playground
from serve.problems import install
from serve.reconstructions import Reconstructing, Reconstructions
from serve.scene_schemas import Reconstruction
from serve.schemas import Answer, Video, VideoList
from serve.settings import Ingress
from serve.store import VideoStore
from serve.tracing import Tracer
from serve.videos import VideoBackend, Videos

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Backend(AnswerBackend, VideoBackend, OperationBackend, Protocol):
    """What the routes need of the stages behind them."""


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
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The application of one ingress replica. Ray's HTTP proxy returns request ids itself: say so with `behind_ray`.

    `reconstructor`: that stage, where there is one. `claims`: who has sent which video, where there are API keys.
    `sample`: a directory with a clip and a question, for the page to begin with. `fetcher`: by default the
    one that the settings describe. `lifespan`: what is to run for as long as the application does.

    Raises:
        BadKeyFile: the settings name a key file that cannot be used.
    """
    app = Documented(
        title="dsr-serve",
        version=version("dsr-serve"),
        summary="Ask a video how things move in 3D over time.",
        lifespan=lifespan,
    )
    forms = dict.fromkeys(("/v1/chat/", "/v1/models"), as_openai)
    # The first that is added is the innermost: the guard gives a request its id and tells what the edge refuses.
    app.add_middleware(Edge, door=Door(settings.access), quotas=Quotas(settings.replicas))
    install(app, settings.max_body_bytes, server_returns_id=behind_ray, forms=forms)
    app.add_middleware(Measured, tracer=Tracer(settings.traces) if settings.traces.endpoint else None)
    _share(app, settings.access.origins)
    custody = Custody(store, claims)
    intake = Intake(custody, fetcher or Fetcher(settings.media_urls, store))
    gate = Gate(_capacity(settings))
    metrics.watch(gate)
    asking = Asking(Admitted(backend, gate, Costs(model.frames)), custody, model, settings.deadline_seconds)
    _add_answers(app, Answers(asking, intake))
    _add_chat(app, Chat(asking, intake))
    room = Gate(_room(settings, reconstructor))
    if reconstructor is not None:
        metrics.watch(room, metrics.RECONSTRUCTIONS)
    reconstructions = Reconstructions(reconstructor, room, intake, custody, model, settings.deadline_seconds)
    _add_reconstructions(app, reconstructions)
    _add_videos(app, Videos(backend, custody))
    _add_operation(app, Operation(backend, model.name, settings.allow_flush))
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
