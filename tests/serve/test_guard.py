from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import guard
from serve.guard import Guard
from serve.problems import install, responder

LIMIT = 1000


class Exchange:
    """One request made of `chunks`, sent straight into an ASGI application, and all that came back."""

    def __init__(
        self, app: ASGIApp, chunks: list[bytes], headers: dict[str, str] | None = None, **options: Any
    ) -> None:
        self.guard = Guard(app, LIMIT, responder({}), **options)
        self.chunks = list(chunks)
        self.read = 0
        self.sent: list[Message] = []
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
        asyncio.run(self.guard(self.scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self.read == len(self.chunks):
            return {"type": "http.disconnect"}
        self.read += 1
        return {"type": "http.request", "body": self.chunks[self.read - 1], "more_body": self.read < len(self.chunks)}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        assert self.sent[0]["type"] == "http.response.start"
        assert [message["type"] for message in self.sent].count("http.response.start") == 1
        assert not self.sent[-1].get("more_body", False)
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        pairs = [(name.decode().lower(), value.decode()) for name, value in self.sent[0]["headers"]]
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def read_all(receive: Receive) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        size += len(message["body"])
        more = message["more_body"]
    return size


async def answer(send: Send, status: int = 200, body: bytes = b"ok") -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, body=str(await read_all(receive)).encode())


async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(Exception):
        await read_all(receive)
    await answer(send, 200)


async def replaces(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await read_all(receive)
    except Exception as error:
        raise HTTPException(400) from error


async def keeps_reading(scope: Scope, receive: Receive, send: Send) -> None:
    for _ in range(10):
        with contextlib.suppress(Exception):
            await receive()


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("/srv/internal")


async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


@pytest.mark.parametrize("given", ["abc", "7f3e-11_x.y:z", "a" * 128])
def test_a_sane_request_id_is_kept(given: str) -> None:
    exchange = Exchange(ignores, [b""], {"X-Request-ID": given})
    assert exchange.headers["x-request-id"] == given
    assert exchange.scope["state"]["request_id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a" * 129, "-a", "<script>", "a\tb", 'a"', "${jndi}"])
def test_any_other_request_id_is_replaced(given: str) -> None:
    exchange = Exchange(ignores, [b""], {"X-Request-ID": given})
    assert exchange.headers["x-request-id"].startswith("req_")
    assert exchange.headers["x-request-id"] == exchange.scope["state"]["request_id"]


def test_requests_without_an_id_get_different_ones_and_leave_the_servers_state_alone() -> None:
    first, second = Exchange(ignores, [b""]), Exchange(ignores, [b""])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    shared = {"pool": 1}
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"])

    scope: Scope = {"type": "http", "headers": [], "state": shared}
    asyncio.run(Guard(app, LIMIT, responder({}))(scope, first._receive, first._send))
    assert seen[0]["pool"] == 1
    assert shared == {"pool": 1}


def test_behind_a_server_that_returns_the_id_it_is_not_returned_twice() -> None:
    exchange = Exchange(ignores, [b""], {"X-Request-ID": "abc"}, server_returns_id=True)
    assert "x-request-id" not in exchange.headers
    assert exchange.scope["state"]["request_id"] == "abc"


@pytest.mark.parametrize("chunks", [[b"x" * LIMIT], [b"x" * 10] * 100, [b"", b"x" * LIMIT, b""]])
def test_a_body_at_the_limit_passes(chunks: list[bytes]) -> None:
    exchange = Exchange(reads, chunks, {"Content-Length": str(LIMIT)})
    assert (exchange.status, exchange.body) == (200, b"1000")


@pytest.mark.parametrize("app", [reads, swallows, replaces, keeps_reading, fails])
def test_a_body_announced_too_large_is_refused_before_the_application_is_asked(app: ASGIApp) -> None:
    asked = []

    async def spy(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(1)
        await app(scope, receive, send)

    exchange = Exchange(spy, [b"x" * (LIMIT + 1)], {"Content-Length": str(LIMIT + 1)})
    assert exchange.status == 413
    assert asked == []


@pytest.mark.parametrize("app", [reads, swallows, replaces, keeps_reading])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "5"}, {"Content-Length": "many"}, {"Content-Length": "-1"}])
def test_a_body_that_turns_out_too_large_is_413_whatever_the_application_makes_of_it(
    app: ASGIApp, headers: dict[str, str]
) -> None:
    exchange = Exchange(app, [b"x" * 600] * 4, headers)
    assert exchange.status == 413
    said = json.loads(exchange.body)
    assert (said["code"], said["field"], said["value"], said["limit"]) == ("too_large", "body", 1200, LIMIT)
    assert said["request_id"] == exchange.headers["x-request-id"]
    assert exchange.headers["connection"] == "close"
    assert exchange.headers["content-length"] == str(len(exchange.body))
    assert exchange.scope["state"]["problem_code"] == "too_large"
    assert exchange.read == 4


def test_a_number_of_thousands_of_digits_is_too_large() -> None:
    assert Exchange(reads, [b""], {"Content-Length": "9" * 5000}).status == 413


def test_chunks_reach_the_application_as_they_come() -> None:
    progress: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for number in range(3):
            message = await receive()
            progress.append((number + 1, len(message["body"])))
            assert exchanges[0].read == number + 1
        await answer(send)

    exchanges: list[Exchange] = []

    class Watched(Exchange):
        def __init__(self) -> None:
            exchanges.append(self)
            super().__init__(app, [b"a", b"bb", b"ccc"])

    assert Watched().status == 200
    assert progress == [(1, 1), (2, 2), (3, 3)]


def test_an_exception_before_the_response_becomes_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(fails, [b""])
    assert exchange.status == 500
    assert exchange.scope["state"]["problem_code"] == "internal_error"
    assert b"srv" not in exchange.body
    assert "RuntimeError: /srv/internal" in caplog.text


@pytest.mark.parametrize("too_large", [False, True])
def test_once_the_response_has_started_an_exception_breaks_the_connection(too_large: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if too_large:
            await read_all(receive)
        raise RuntimeError("late")

    with pytest.raises(Exception, match="limit is 1000" if too_large else "late"):
        Exchange(app, [b"x" * 2000])


def test_cancellation_passes_through() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        Exchange(app, [b""])


def test_what_is_not_http_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(Guard(app, LIMIT, responder({}))({"type": "lifespan"}, nothing, nothing))
    assert seen == [{"type": "lifespan"}]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A real server around a real application, with a limit of 1 MB."""
    app = FastAPI()
    install(app, max_body_bytes=1_000_000)

    @app.post("/file")
    async def file(file: UploadFile) -> int:
        return file.size or 0

    @app.post("/stream")
    async def stream(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        thread.join()


def talk(port: int, head: str, pieces: Callable[[], Iterator[bytes]]) -> bytes:
    """Sends a request while reading nothing, as simple clients do; then reads until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"POST {head}\r\nHost: x\r\n".encode())
        connection.sendall(b"\r\n")
        for piece in pieces():
            connection.sendall(piece)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


@pytest.mark.parametrize("path", ["/stream", "/file"])
def test_a_client_that_sends_everything_before_it_reads_gets_the_413_and_the_end(port: int, path: str) -> None:
    kind = "Content-Type: multipart/form-data; boundary=b"
    start = time.monotonic()
    received = talk(
        port, f"{path} HTTP/1.1\r\n{kind}\r\nContent-Length: 10000000", lambda: iter([bytes(1_000_000)] * 10)
    )
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["limit"] == 1_000_000
    assert time.monotonic() - start < guard.LINGER_SECONDS


@pytest.mark.parametrize("path", ["/stream", "/file"])
def test_a_chunked_body_without_a_length_is_refused_when_it_is_too_large(port: int, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        yield b"%x\r\n%s\r\n" % (len(part), part)
        for _ in range(30):
            yield b"%x\r\n%s\r\n" % (100_000, bytes(100_000))
        yield b"0\r\n\r\n"

    kind = "Content-Type: multipart/form-data; boundary=b"
    received = talk(port, f"{path} HTTP/1.1\r\n{kind}\r\nTransfer-Encoding: chunked", pieces)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "too_large"


def test_a_client_that_asks_first_is_refused_without_sending(port: int) -> None:
    start = time.monotonic()
    received = talk(
        port,
        "/stream HTTP/1.1\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\nConnection: close",
        lambda: iter([]),
    )
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received
    assert time.monotonic() - start < guard.LINGER_SECONDS


def test_a_client_that_never_stops_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER_SECONDS", 0.3)

    def pieces() -> Iterator[bytes]:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            yield bytes(1000)
            time.sleep(0.01)

    start = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        talk(port, "/stream HTTP/1.1\r\nContent-Length: 50000000", pieces)
    assert 0.2 < time.monotonic() - start < 5


def test_after_a_body_within_the_limit_the_connection_stays(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            received = connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.endswith(b"3")
