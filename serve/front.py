"""HTTP that the ingress replicas answer themselves, where all of them are on one machine: nothing stands before them.

Ray's own proxy takes half of what a small request costs, and holds uploads in queues without a bound. It also finds the
replicas on other machines and speaks for one that died, so that a cluster keeps it (`serve.proxy`); here a client whose
replica dies sees its connection break, and connects to another replica or to the next.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import Busy
from serve.problems import refuse
from serve.settings import Listen

FULL = Busy("the service's edge has as many requests as it takes")
# Clients keep connections too, and one that is closed under a request looks like a lost replica: longer than theirs.
KEEP_ALIVE_SECONDS = 90
BACKLOG = 2048


class Front:
    """One replica's server. Replicas share the port, and the kernel shares out the connections."""

    def __init__(self, listen: Listen, most: int) -> None:
        """`most`: requests at a time."""
        self._address = listen.host, listen.port
        self._most = most
        self._running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def serving(self, app: ASGIApp) -> AsyncIterator[None]:
        """A lifespan: listens on entry, and on exit waits for the requests under way; for how long
        is Ray's to say, which kills the replica in the end.

        Raises:
            OSError: the address is not this machine's, or taken.
        """
        server = uvicorn.Server(self._config(Attended(app, self._most)))
        self._running = asyncio.create_task(server.serve([_listening(*self._address)]), name="front")
        while not server.started:
            self.check_health()
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            await self._running

    def check_health(self) -> None:
        """
        Raises:
            RuntimeError: it listens no more.
        """
        if self._running is not None and self._running.done():
            raise RuntimeError(f"nothing listens on {self._address} any more")

    def _config(self, app: ASGIApp) -> uvicorn.Config:
        return uvicorn.Config(
            app,
            lifespan="off",  # it runs inside one
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            proxy_headers=False,  # who may call depends on the address, which is not the caller's to say
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
        )


class Attended:
    """ASGI middleware: at most `most` requests at a time, and none goes on when its client has gone."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._ongoing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._ongoing >= self._most:
            await refuse(FULL, scope, receive, send)
            return
        self._ongoing += 1
        try:
            await _Visit(self._app, receive, send).run(scope)
        finally:
            self._ongoing -= 1


class _Visit:
    """One request. After its body the only news of a client is that it left: that is waited for beside the work."""

    def __init__(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        self._app, self._receive, self._send = app, receive, send
        self._leaving: asyncio.Task[Message] | None = None
        self._work: asyncio.Task[None] | None = None
        self._answered = self._left = False

    async def run(self, scope: Scope) -> None:
        self._work = asyncio.current_task()
        try:
            await self._app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._left or self._work is None or self._work.uncancel():
                raise  # somebody else's wish, too
        finally:
            if self._leaving is not None:
                self._leaving.cancel()

    async def receive(self) -> Message:
        if self._leaving is not None:
            return await asyncio.shield(self._leaving)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._leaving = asyncio.create_task(self._watch(), name="leaving")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True  # what comes after is the application's own, and the client may well have left
        await self._send(message)

    async def _watch(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered and self._work is not None:
            self._left = True
            self._work.cancel()
        return message


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    with suppress(AttributeError):  # systems without it have one replica
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
