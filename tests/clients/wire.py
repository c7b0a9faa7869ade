"""The other side of the wire: an HTTP server on loopback that gives the replies of a script and keeps the requests."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEPT_BYTES = 1_000_000
VIDEO_ID = "vid_" + "1" * 64


@dataclass
class Reply:
    """`body`: JSON, bytes, or a sequence of pieces that are sent one by one, `pause` seconds between them."""

    body: Mapping[str, Any] | bytes | Sequence[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0  # seconds before anything is sent
    pause: float = 0
    cut: bool = False  # break the connection where the body should end
    lost: bool = False  # break it before anything is sent
    early: bool = False  # answer before the request's body is read, and close


@dataclass
class Seen:
    """A request as it arrived. Of a large body only size and hash are kept."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    size: int
    sha256: str

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, list[str]]:
        """Text fields by name; the video's content, as Latin-1, under `video`, and its file name under `filename`."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        fields: dict[str, list[str]] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            if part.get_filename() is not None:
                fields["filename"] = [str(part.get_filename())]
                fields["video"] = [payload.decode("latin-1")]
            else:
                name = str(part.get_param("name", header="content-disposition"))
                fields.setdefault(name, []).append(payload.decode())
        return fields


class Wire:
    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.dropped = threading.Event()  # the client closed a connection while something was sent to it
        self._replies: list[Reply] = []
        self._lock = threading.Lock()
        self.url = ""

    def script(self, *replies: Reply) -> None:
        self._replies += replies

    def take(self, request: Seen) -> Reply:
        with self._lock:
            self.seen.append(request)
            if self._replies:
                return self._replies.pop(0)
        return problem(500, "script_is_over", f"no reply is left for {request.method} {request.path}")

    def assert_over(self) -> None:
        assert not self._replies, f"{len(self._replies)} replies were never asked for"


class Pipe(io.BytesIO):
    """A file that can be read once, as standard input can."""

    def seekable(self) -> bool:
        return False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # what one reply says at once goes out at once
    wire: Wire

    def do_GET(self) -> None:
        self._exchange()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # a client that went away between two requests
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:  # or before the last of its reply
            self.wire.dropped.set()

    def _exchange(self) -> None:
        self.connection.settimeout(20)
        pieces, size, digest = [], 0, hashlib.sha256()
        early = bool(self.wire._replies) and self.wire._replies[0].early
        for piece in () if early else self._body():
            size += len(piece)
            digest.update(piece)
            if size <= KEPT_BYTES:
                pieces.append(piece)
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, url.path, parse_qs(url.query), headers, b"".join(pieces), size, digest.hexdigest())
        reply = self.wire.take(seen)
        try:
            self._send(reply)
        except OSError:
            self.wire.dropped.set()
            self.close_connection = True

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)
            yield piece

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.lost:
            self.close_connection = True
            return
        self.send_response(reply.status)
        headers = {"x-request-id": self.headers.get("X-Request-ID", "")} | dict(reply.headers)
        whole, kind = _whole(reply.body)
        if kind:
            headers.setdefault("content-type", kind)
        if whole is not None:
            headers["content-length"] = str(len(whole))
        else:
            headers["transfer-encoding"] = "chunked"
        if reply.early:
            headers["connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if whole is not None:
            self.wfile.write(whole)
            self.wfile.flush()
        else:
            assert not isinstance(reply.body, bytes | Mapping)
            for piece in reply.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(reply.pause)
            self.wfile.write(b"" if reply.cut else b"0\r\n\r\n")
        self.close_connection = self.close_connection or reply.cut or reply.early


def _whole(body: Mapping[str, Any] | bytes | Sequence[bytes]) -> tuple[bytes | None, str]:
    if isinstance(body, bytes):
        return body, ""
    if isinstance(body, Mapping):
        kind = "application/problem+json" if "code" in body else "application/json"
        return json.dumps(body).encode(), kind
    return None, "text/event-stream"


@contextmanager
def listening() -> Iterator[Wire]:
    wire = Wire()
    handler = type("Handler", (_Handler,), {"wire": wire})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    wire.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield wire
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(status: int, code: str, detail: str = "it is so", headers: Mapping[str, str] = {}, **more: Any) -> Reply:
    body = {"type": f"urn:dsr:problem:{code}", "title": code.title(), "status": status, "code": code, "detail": detail}
    return Reply({**body, "request_id": "req_of_the_service", **more}, status, headers)


def video(**changes: Any) -> dict[str, Any]:
    facts = {"id": VIDEO_ID, "duration": 2.0, "fps": 10.0, "width": 64, "height": 48, "frames": 20, "bytes": 1234}
    return facts | changes


def answer(**changes: Any) -> dict[str, Any]:
    whole = {
        "id": "ans_1",
        "model": "dsr-tiny",
        "text": "B",
        "choice": {"letter": "B", "text": "It shrinks.", "probability": 0.75},
        "probabilities": {"A": 0.25, "B": 0.75},
        "usage": {"video_tokens": 80, "geometry_tokens": 32, "prompt_tokens": 150, "completion_tokens": 1},
        "timings": {"selector": 0.25, "decoder": 0.5},
        "cache": {"selector": "hit", "decoder": "miss"},
        "spans": {"selector": {"start": 0.0, "end": 0.25}, "decoder": {"start": 0.25, "end": 0.75}},
        "video": {name: value for name, value in video().items() if name != "bytes"},
    }
    return whole | changes


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
