"""What runs in Ray Serve's own HTTP proxy, around everything else: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

For clusters; on one machine the ingress answers by itself (`serve.front`).

* Ray lets every client set, by a header, a request's time limit (0: none), whether its work goes on when the client has
  gone, and which replica gets it. That is for who runs a service, not for strangers: such headers are taken away.
* When an ingress replica dies under a request Ray says nothing, and its server a bare 500; when there is none, or its
  queue is full, Ray has a text of its own. These become problems like all others: 503 or 429 with `Retry-After`, which
  clients know to send again.
* `/-/routes` tells anybody what is deployed: it is not there. `/-/healthz`, which Kubernetes asks, stays.
"""

from __future__ import annotations

import logging

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import Busy, Overload, StageLost
from serve.problems import refuse

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "serve.proxy:middlewares"
HIDDEN = "/-/routes"
CONTROL = frozenset(
    {b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id", b"x-session-id"}
)
LOST = StageLost("the replica that had this request was lost; send it again")
FULL = Busy("the queue of the service's edge is full")
OURS = ("application/problem+json", "application/json")  # every error of the application is in one of these


_log = logging.getLogger(__name__)


class AroundRay:
    """ASGI middleware, before Ray's proxy gives the request to a replica."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kept = [(name, value) for name, value in scope["headers"] if not _controls(name)]
        scope = {**scope, "headers": kept}
        if scope["path"].rstrip("/") == HIDDEN:
            await Response(status_code=404)(scope, receive, send)
            return
        telling = _Telling(scope, receive, send)
        try:
            await self.app(scope, receive, telling)
        except Exception:
            if telling.started:
                raise  # all that is left to do is to break the connection
            _log.exception("Ray's proxy broke on %s", scope["path"])
        if not telling.started:  # Ray says nothing at all when a replica dies
            await telling.fail(LOST)


class _Telling:
    """Sends what Ray sends, but for its own failures."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._replaced = False
        self.started = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return  # the text that goes with what was replaced
        self.started = True
        if message["type"] == "http.response.start" and _is_rays_own(message):
            self._replaced = True
            await self.fail(FULL if message["status"] == 429 else LOST)
            return
        await self._send(message)

    async def fail(self, error: Overload) -> None:
        await refuse(error, self._scope, self._receive, self._send)


def middlewares() -> list[Middleware]:
    return [Middleware(AroundRay)]


def _is_rays_own(message: Message) -> bool:
    if message["status"] not in (429, 500, 502, 503):
        return False
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return not kind.startswith(OURS)


def _controls(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in CONTROL
