"""ASGI middleware that counts, times and traces every request, also those refused before a route sees them."""

from __future__ import annotations

import time
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import metrics
from serve.trace import Trace
from serve.tracing import Ended, Tracer


def note(request: Request, trace: Trace) -> None:
    """What the stages did for a request: counted, and part of its trace, when it has ended."""
    request.state.trace = trace


class Measured:
    """Outermost: its time runs from the request's first byte to the response's last."""

    def __init__(self, app: ASGIApp, tracer: Tracer | None = None) -> None:
        self.app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # what the server sends when the application breaks before it has said anything

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began, start = time.time(), time.perf_counter()
        try:
            with metrics.IN_FLIGHT.track_inprogress():
                await self.app(scope, receive, note_status)
        finally:
            seconds = time.perf_counter() - start
            state = scope.get("state", {})
            metrics.observe_request(_route(scope), status, seconds, state.get("problem_code"))
            metrics.observe_stages(state.get("trace", {}))
            if self._tracer is not None:
                self._tracer.write(_ended(scope, state, status, began, seconds))


def _ended(scope: Scope, state: dict[str, Any], status: int, began: float, seconds: float) -> Ended:
    return Ended(
        method=scope["method"],
        route=_route(scope),
        status=status,
        began=began,
        ended=began + seconds,
        headers=Headers(scope=scope),
        request_id=state.get("request_id", ""),
        problem=state.get("problem_code"),
        stages=state.get("trace", {}),
    )


def _route(scope: Scope) -> str:
    """The route's template: a path as the client wrote it would make a new time series for every id."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
