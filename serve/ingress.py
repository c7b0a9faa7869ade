"""The ingress deployment: the HTTP application of `serve.api` over handles to the stages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle

from models.layout import recognise
from models.video import VideoFacts
from serve import metrics
from serve.access.claims import Claims
from serve.api import create_app
from serve.calls import LOST, Again, call, stream
from serve.errors import NotReady, ServiceError
from serve.front import Front
from serve.keys import ClipKey
from serve.messages import Ask, Reply, Report, Said, Scene
from serve.reconstructions import Reconstructing
from serve.settings import Ingress as IngressSettings
from serve.settings import ReconstructorStage, Store
from serve.store import VideoStore
from serve.trace import Made

READY_SECONDS = 10.0
REPORT_SECONDS = 2.0  # less than `serve.api` waits for all of them

_log = logging.getLogger(__name__)


class Stages:
    """`serve.api.Backend` over Ray Serve handles."""

    def __init__(self, stages: Mapping[str, DeploymentHandle], app: str) -> None:
        """`app`: the name of the application that this replica belongs to."""
        self._stages = stages
        self._app = app

    async def answer(self, ask: Ask) -> Made[Reply]:
        # An explanation is as large as its clip.
        return await call(self._stages["decoder"].answer, ask, clip=ask.clip, by_value=not ask.explain)

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        """When a decoder is lost in the middle, another one writes the same text again, and goes on where it stopped:
        an answer is a function of what is asked (`serve.api` gives every drawn answer a seed)."""
        said = again = 0
        written = self._stages["decoder"].options(stream=True).stream
        async with aclosing(stream(written, ask, clip=ask.clip, by_value=not ask.explain)) as items:
            async for item in items:
                if isinstance(item, Again):
                    again = said
                elif isinstance(item, Said):
                    new = item.text[again:]
                    again = max(0, again - len(item.text))
                    said += len(new)
                    if new:
                        yield Said(new, item.tokens)
                else:
                    yield item

    async def reconstruct(self, clip: ClipKey, points: int) -> Made[Scene]:
        return await call(self._stages["reconstructor"].reconstruct, clip, points, clip=clip)

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

    async def flush(self, video: str | None = None) -> None:
        """One stage after the other, in the order of the way: a stage that works on the video meanwhile would otherwise
        fetch it again from one that has forgotten it."""
        for handle in self._stages.values():
            await _everywhere(handle, "flush", video)

    async def edges(self) -> Sequence[Sequence[Metric]]:
        return await _everywhere(serve.get_deployment_handle("ingress", self._app), "edge")

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        """A stage that does not answer in time has none: it must not hide the others when these are wanted most."""
        found = await asyncio.gather(*(_in_time(_everywhere(h, "report")) for h in self._stages.values()))
        return dict(zip(self._stages, found, strict=True))


async def _in_time(asked: Awaitable[list[Any]]) -> list[Any]:
    try:
        return await asyncio.wait_for(asked, REPORT_SECONDS)
    except (TimeoutError, ServiceError) as error:
        _log.warning("no report: %r", error)
        return []


async def _everywhere(handle: DeploymentHandle, method: str, *args: Any) -> list[Any]:
    """The results of all replicas that there are; of one that dies meanwhile there is none."""
    results = await handle.broadcast(method, *args).results_async(return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LOST):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


@serve.ingress()
class Ingress:
    def __init__(
        self,
        settings: IngressSettings,
        store: Store,
        checkpoint: str,
        stages: dict[str, DeploymentHandle],
        reconstructor: ReconstructorStage | None = None,
    ) -> None:
        listen = settings.listen
        self._front = None if listen is None else Front(listen, settings.max_ongoing + settings.max_queued)
        behind = Stages(stages, serve.get_replica_context().app_name)
        self._app = create_app(
            behind,
            VideoStore.of(store),
            recognise(Path(checkpoint)).model,
            settings,
            reconstructor=None if reconstructor is None else Reconstructing(behind, reconstructor),
            claims=Claims(store) if settings.access.keys_file is not None else None,
            sample=Path(checkpoint) / "sample",
            behind_ray=self._front is None,
            lifespan=None if self._front is None else self._front.serving,
        )

    def check_health(self) -> None:
        if self._front is not None:
            self._front.check_health()

    def edge(self) -> list[Metric]:
        """What this replica has counted, for `/metrics` of whichever replica is asked."""
        return metrics.edge()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app
