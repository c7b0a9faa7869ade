"""The first code that a request meets: gives it an id, bounds its body, and catches what nobody else did."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ServiceError, TooLarge

REQUEST_ID_HEADER = "X-Request-ID"
LINGER_SECONDS = 2.0
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


Respond = Callable[[Exception, str, str], Response]
"""(error, request id, path) to the response that tells the client of it."""


def new_request_id() -> str:
    return f"req_{uuid.uuid4().hex[:24]}"


class Guard:
    """ASGI middleware, installed by `problems.install`.

    * The id is the client's `X-Request-ID` when it is sane (letters, digits, `._:-`, at most 128), else a new one. It
      stands in `request.state.request_id` and in the response's header, where Ray Serve's own HTTP server puts it by
      itself, a second time: behind that one, `server_returns_id` must be set.
    * A body of more than `max_body_bytes` is refused with 413: by its `Content-Length` before a byte of it is read,
      else as soon as one byte too many has arrived. Nothing is buffered.
    * An exception that leaves the application before its response has started becomes a response too.
    * The code of a problem that was answered stands in `request.state.problem_code`, for the metrics.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, respond: Respond, server_returns_id: bool = False) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.respond = respond
        self.server_returns_id = server_returns_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if SANE_ID.fullmatch(given) else new_request_id()
        # A new dictionary: some servers hand the same one to every request.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its response."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._id: str = scope["state"]["request_id"]
        self._receive = receive
        self._send = send
        self._size = 0
        self._more = True
        self._started = False
        self._refusal: TooLarge | None = None

    async def run(self) -> None:
        headers = Headers(scope=self._scope)
        announced = headers.get("content-length", "")[:20]  # int() refuses thousands of digits
        if announced.isdecimal() and int(announced) > self._guard.max_body_bytes:
            self._more = "expect" not in headers  # who sends `Expect: 100-continue` has not begun to send the body
            await self._refuse(self._too_large(int(announced)))
            return
        try:
            await self._guard.app(self._scope, self.receive, self.send)
        except Exception as error:
            if self._started:
                raise  # all that is left to do is to break the connection
            if self._refusal is None:
                await self._respond(error)(self._scope, self._receive, self.send)
        if self._refusal is not None and not self._started:
            await self._refuse(self._refusal)

    async def receive(self) -> Message:
        """Raises once the body is too large. Whatever the application makes of that, the answer will be 413."""
        if self._refusal is not None:
            raise self._refusal
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._more = message.get("more_body", False)
        if self._size > self._guard.max_body_bytes:
            self._refusal = self._too_large(self._size)
            raise self._refusal
        return message

    async def send(self, message: Message) -> None:
        if self._refusal is not None and not self._started:
            return  # the application's own idea of what went wrong
        if message["type"] == "http.response.start":
            self._started = True
            message.setdefault("headers", [])
            if not self._guard.server_returns_id:
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self._id
        await self._send(message)

    async def _refuse(self, error: TooLarge) -> None:
        """Answers, then reads on for a while: a client that is still sending might get a reset before the answer."""
        self._refusal = None
        response = self._respond(error)
        response.headers["Connection"] = "close"
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._send({"type": "http.response.body", "body": response.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._drain()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        while self._more:
            message = await self._receive()
            self._more = message["type"] == "http.request" and message.get("more_body", False)

    def _respond(self, error: Exception) -> Response:
        self._scope["state"]["problem_code"] = getattr(error, "code", ServiceError.code)
        return self._guard.respond(error, self._id, self._scope["path"])

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(
            f"the request's body has {size} bytes or more; the limit is {self._guard.max_body_bytes}",
            field="body",
            value=size,
            limit=self._guard.max_body_bytes,
        )
