"""ASGI middleware that counts and times every request, also those that are refused before a route sees them."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import metrics


class Measured:
    """Outermost: its time runs from the request's first byte to the response's last."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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

        start = time.perf_counter()
        try:
            with metrics.IN_FLIGHT.track_inprogress():
                await self.app(scope, receive, note_status)
        finally:
            code = scope.get("state", {}).get("problem_code")
            metrics.observe_request(_route(scope), status, time.perf_counter() - start, code)


def _route(scope: Scope) -> str:
    """The route's template: a path as the client wrote it would make a new time series for every id."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
