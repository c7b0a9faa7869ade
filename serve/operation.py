"""Routes for who runs the service: whether it lives, is ready, how it does; and that it forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi import Response
from prometheus_client import Metric

from serve import metrics
from serve.errors import NotSupported, ServiceError
from serve.messages import Report

REPORT_SECONDS = 3.0  # less than Prometheus waits for a scrape

_log = logging.getLogger(__name__)


class OperationBackend(Protocol):
    """What these routes need of the stages."""

    async def ready(self) -> Sequence[str]:
        """The names of the stages, once all of them answer. NotReady before."""
        ...

    async def edges(self) -> Sequence[Sequence[Metric]]:
        """What `metrics.edge` gives in each ingress replica."""
        ...

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        """Of every stage, that of each replica."""
        ...

    async def flush(self, video: str | None = None) -> None:
        """Every stage forgets what it has made of one video, or of all."""
        ...


class Operation:
    def __init__(self, backend: OperationBackend, model: str, allow_flush: bool) -> None:
        """`model`: its name."""
        self._backend = backend
        self._model = model
        self._allow_flush = allow_flush

    async def live(self) -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def ready(self) -> dict[str, Any]:
        """Every stage has loaded and tested itself; 503 until then."""
        return {"status": "ready", "model": self._model, "stages": list(await self._backend.ready())}

    async def metrics(self) -> Response:
        """Prometheus text of the whole application: all replicas of the ingress and of every stage, added up."""
        body, content_type = metrics.render(await self._edges(), await self._reports())
        return Response(body, media_type=content_type)

    async def flush(self) -> Response:
        """Every stage forgets what it keeps. Only where the setting `ingress.allow_flush` permits it."""
        if not self._allow_flush:
            raise NotSupported("ingress.allow_flush is off", field="caches")
        await self._backend.flush()
        return Response(status_code=204)

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
