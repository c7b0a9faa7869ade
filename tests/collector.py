"""An OpenTelemetry collector on loopback that keeps what it gets."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/v1/traces"
        self._spans: list[Any] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {"service.name", "service.version"} <= {each.key for each in resource.resource.attributes}
            self._spans += [span for scope in resource.scope_spans for span in scope.spans]

    def trace(self, trace_id: str, seconds: float = 20.0) -> list[Any]:
        """The spans of a trace (32 hex digits), once its root, whose parent is not among them, has come."""
        end = time.monotonic() + seconds
        while True:
            spans = [span for span in self._spans if span.trace_id.hex() == trace_id]
            if any(span.kind == span.SPAN_KIND_SERVER for span in spans):
                return spans
            assert time.monotonic() < end, f"no trace {trace_id}"
            time.sleep(0.05)


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    """By name, as Python's own."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
