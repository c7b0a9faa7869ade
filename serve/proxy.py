"""What runs in Ray Serve's own HTTP proxy, before anything else: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

Ray lets every client set, by a header, a request's time limit (0: none), whether its work goes on when the client has
gone, and which replica gets it. That is for who runs a service, not for strangers.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "serve.proxy:middlewares"
CONTROL = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"x-session-id",
    }
)


class WithoutControl:
    """ASGI middleware that forgets the headers `CONTROL`, whether they are written with hyphens or underscores."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            kept = [(name, value) for name, value in scope["headers"] if not _controls(name)]
            scope = {**scope, "headers": kept}
        await self.app(scope, receive, send)


def middlewares() -> list[Middleware]:
    return [Middleware(WithoutControl)]


def _controls(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in CONTROL
