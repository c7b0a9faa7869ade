"""The page on the own machine, with a place to save decisions: `GET` and `POST decisions`, and nothing else.

Only this machine can reach it, and only its own page may write: a page of another site that the browser shows at the
same time is told apart by `Host` and `Origin`, and cannot send JSON without being asked first.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from training.review.decisions import FILE as DECISIONS
from training.review.decisions import Decision, read
from training.review.page import FILE, known_ids

LONGEST_BODY = 10_000  # bytes
PIECE = 1 << 20  # bytes that are read of a video at a time
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class ReviewServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        """ValueError when there is no page in `folder`, or its decisions cannot be read."""
        self.folder = folder.resolve()
        self.ids = known_ids(folder)
        self.saved = read(folder / DECISIONS)
        self.saving = Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def save(self, decision: Decision) -> None:
        with self.saving, (self.folder / DECISIONS).open("a", encoding="utf-8") as file:
            file.write(decision.line())
            self.saved[decision.id] = decision


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self._answering():
            self._check_host()
            path = unquote(urlsplit(self.path).path).lstrip("/") or FILE
            if path == "decisions":
                self._send_json([decision.__dict__ for decision in self.server.saved.values()])
            else:
                self._send_file(path)

    def do_POST(self) -> None:
        with self._answering():
            self._check_host()
            origin = self.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
                raise _Refused(HTTPStatus.FORBIDDEN, f"origin {origin[:80]!r} is not this page's")
            if self.path != "/decisions":
                raise _Refused(HTTPStatus.NOT_FOUND, "only decisions are saved")
            if self.headers.get_content_type() != "application/json":
                raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a decision is application/json")
            self.server.save(self._decision())
            self._send_json({"saved": len(self.server.saved)})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing: who looks at the page sees whether a decision was saved."""

    def _decision(self) -> Decision:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length or 'no'} bytes, at most {LONGEST_BODY}")
        try:
            decision = Decision.of(json.loads(self.rfile.read(int(length))))
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        if decision.id not in self.server.ids:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"id {decision.id[:40]!r} is no question of this page")
        return replace(decision, at=datetime.now(UTC).isoformat(timespec="seconds"))

    def _check_host(self) -> None:
        host = self.headers.get("Host", "")
        if host not in (f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"):
            raise _Refused(HTTPStatus.FORBIDDEN, f"host {host[:80]!r} is not this machine")

    def _send_file(self, path: str) -> None:
        """A part of it where a part is asked for: a browser seeks in a video by ranges."""
        try:
            file = (self.server.folder / path).resolve()
        except ValueError:  # a zero byte
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such file") from None
        if not file.is_relative_to(self.server.folder) or not file.is_file():
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such file")
        size = file.stat().st_size
        start, end = 0, size - 1
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or end), end)
            if start > end:
                raise _Refused(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {size} bytes")
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(end + 1 - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        with file.open("rb") as opened:
            opened.seek(start)
            left = end + 1 - start
            while left and (piece := opened.read(min(PIECE, left))):
                self.wfile.write(piece)
                left -= len(piece)

    def _send_json(self, body: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:  # a client that is not told would ask on a connection that is gone
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except _Refused as refused:
            self.close_connection = True  # its body may not have been read
            self._send_json({"error": str(refused)}, refused.status)
        except (BrokenPipeError, ConnectionResetError):  # a browser that seeks drops what it no longer needs
            self.close_connection = True
