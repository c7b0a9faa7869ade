"""The ingress's own server, over applications that misbehave on demand, by real connections."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.front import FULL, Front
from serve.settings import Ingress, Listen
from tests.fresh import free_port

SECONDS = 10.0


class Application:
    """`/echo`, `/client`, `/slow` (until `let`), `/slow-stream`, `/afterwards` (works on when it has answered)."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.told: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: Response = JSONResponse({"bytes": len(await request.body()), "client": request.client})
        if scope["path"] == "/slow":
            await self._slowly()
        if scope["path"] == "/slow-stream":
            response = StreamingResponse(self._pieces())
        await response(scope, receive, send)
        if scope["path"] == "/afterwards":
            await asyncio.sleep(0.2)
            self.told.append("done")

    async def _slowly(self) -> None:
        self.told.append("started")
        try:
            await self.let.wait()
            self.told.append("done")
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise

    async def _pieces(self) -> Any:
        yield b"first"
        await self._slowly()
        yield b"last"

    async def until(self, *expected: str) -> None:
        end = time.monotonic() + SECONDS
        while self.told != list(expected):
            assert time.monotonic() < end, f"expected {expected}, got {self.told}"
            await asyncio.sleep(0.01)


def scenario(steps: Callable[[Application, httpx.AsyncClient], Awaitable[None]], most: int = 10) -> None:
    async def run() -> None:
        app, port = Application(), free_port()
        async with (
            Front(Listen(port=port), most).serving(app),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as http,
        ):
            await steps(app, http)

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_request_arrives_whole_and_is_answered(size: int) -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        for _ in range(2):  # on one connection
            answer = await http.post("/echo", content=b"x" * size)
            assert answer.json()["bytes"] == size

    scenario(steps)


def test_the_callers_address_is_not_the_callers_to_say() -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        answer = await http.get("/echo", headers={"X-Forwarded-For": "8.8.8.8"})
        assert answer.json()["client"][0] == "127.0.0.1"

    scenario(steps)


@pytest.mark.parametrize("path", ["/slow", "/slow-stream"])
def test_the_work_of_who_leaves_ends(path: str) -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        async with raw(http, path):
            await app.until("started")
        await app.until("started", "cancelled")
        assert (await http.get("/echo")).status_code == 200

    scenario(steps)


def test_the_work_of_who_stays_is_done() -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        async with raw(http, "/slow") as (reader, _):
            await app.until("started")
            app.let.set()
            assert (await asyncio.wait_for(reader.readline(), SECONDS)).startswith(b"HTTP/1.1 200")
            assert app.told == ["started", "done"]

    scenario(steps)


def test_what_is_done_after_the_answer_is_not_cut_off() -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        async with raw(http, "/afterwards") as (reader, _):
            await asyncio.wait_for(reader.readline(), SECONDS)
        await app.until("done")

    scenario(steps)


def test_somebody_elses_cancellation_is_passed_on() -> None:
    async def run() -> None:
        app, port = Application(), free_port()
        front = Front(Listen(port=port), 1)
        serving = asyncio.create_task(_forever(front, app))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await _listens(port)
            async with raw(http, "/slow"):
                await app.until("started")
                for task in asyncio.all_tasks():
                    if "run_asgi" in repr(task):
                        task.cancel()
                await app.until("started", "cancelled")
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    asyncio.run(run())


def test_one_request_too_many_is_told_when_to_come_back() -> None:
    async def steps(app: Application, http: httpx.AsyncClient) -> None:
        async with raw(http, "/slow"):
            await app.until("started")
            refused = await http.post("/echo", content=b"x" * 1000, headers={"X-Request-ID": "mine"})
            assert (refused.status_code, refused.json()["code"]) == (429, FULL.code)
            assert refused.headers["x-request-id"] == refused.json()["request_id"] == "mine"
            assert int(refused.headers["retry-after"]) >= 1
        await app.until("started", "cancelled")
        assert (await http.get("/echo")).status_code == 200  # whose place the one who left has given back

    scenario(steps, most=1)


def test_when_it_stops_nobody_new_is_let_in_and_who_is_in_is_answered() -> None:
    async def run() -> None:
        app, port = Application(), free_port()
        front = Front(Listen(port=port), 10)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as http:
            async with front.serving(app):
                asked = asyncio.create_task(http.get("/slow"))
                await app.until("started")
                asyncio.get_running_loop().call_later(0.5, app.let.set)
            assert asked.done()
            assert asked.result().status_code == 200
            with pytest.raises(httpx.ConnectError):
                await http.get("/echo")
        with pytest.raises(RuntimeError, match=str(port)):
            front.check_health()

    asyncio.run(run())


def test_two_replicas_share_a_port_and_one_goes_on_alone() -> None:
    async def run() -> None:
        first, second, port = Application(), Application(), free_port()
        async with Front(Listen(port=port), 10).serving(first):
            async with Front(Listen(port=port), 10).serving(second):
                answers = [await _fresh(port) for _ in range(32)]
            assert answers == [200] * 32
            assert [await _fresh(port) for _ in range(8)] == [200] * 8

    asyncio.run(run())


def test_an_address_of_another_machine_is_an_error_at_once() -> None:
    async def run() -> None:
        with pytest.raises(OSError, match="assign"):
            async with Front(Listen(host="192.0.2.1", port=free_port()), 1).serving(Application()):
                raise AssertionError("it listens there")

    asyncio.run(run())


def test_a_scaled_ingress_does_not_listen_itself() -> None:
    with pytest.raises(ValueError, match="autoscale with listen"):
        Ingress.model_validate({"listen": {"port": 8000}, "autoscale": {"most": 3, "target": 10}})


@asynccontextmanager
async def raw(http: httpx.AsyncClient, path: str) -> Any:
    """A request whose connection breaks at the end of the block."""
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _fresh(port: int) -> int:
    """By a connection of its own."""
    async with httpx.AsyncClient(timeout=SECONDS) as http:
        return (await http.get(f"http://127.0.0.1:{port}/echo")).status_code


async def _forever(front: Front, app: Application) -> None:
    async with front.serving(app):
        await asyncio.Event().wait()


async def _listens(port: int) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing listens")
