"""The ingress deployment: the HTTP application of `serve.api` over handles to the stages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from models.layout import recognise
from models.video import VideoFacts
from serve.api import create_app
from serve.calls import call
from serve.errors import NotReady
from serve.messages import Ask, Reply
from serve.settings import Ingress as IngressSettings
from serve.settings import Store
from serve.store import open_store
from serve.trace import Made

READY_SECONDS = 10.0


class Stages:
    """`serve.api.Backend` over Ray Serve handles."""

    def __init__(self, stages: Mapping[str, DeploymentHandle]) -> None:
        self._stages = stages

    async def answer(self, ask: Ask) -> Made[Reply]:
        return await call(self._stages["decoder"].answer, ask, clip=ask.clip)

    async def probe(self, video: str) -> VideoFacts:
        return await call(self._stages["frames"].probe, video)

    async def ready(self) -> Sequence[str]:
        """A replica takes calls only after its constructor, which loads and tests the stage."""
        names = list(self._stages)
        calls = (asyncio.wait_for(call(self._stages[name].ready), READY_SECONDS) for name in names)
        results = await asyncio.gather(*calls, return_exceptions=True)
        waiting = [name for name, result in zip(names, results, strict=True) if result is not True]
        if waiting:
            raise NotReady(f"not ready: {', '.join(waiting)}", field="stages", value=", ".join(waiting))
        return names


@serve.ingress()
class Ingress:
    def __init__(
        self, settings: IngressSettings, store: Store, checkpoint: str, stages: dict[str, DeploymentHandle]
    ) -> None:
        self._arguments = Stages(stages), open_store(store), recognise(Path(checkpoint)).model, settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(*self._arguments, behind_ray=True)
