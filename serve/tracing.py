"""OpenTelemetry traces: a span for each request, and below it one for each stage that worked for it. Off by default.

The stages send what they did back with their results (`serve.trace`), so that the ingress can write the whole trace
when a request has ended, and a stage knows nothing of OpenTelemetry. The spans of stages are by the clocks of their
own machines. A request with W3C's `traceparent` goes on with its caller's trace, and is kept when that one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.settings import Traces
from serve.trace import Trace

NANOSECONDS = 1e9


@dataclass(frozen=True)
class Ended:
    """One request. `began`, `ended`: seconds since 1970; `route`: its template; `problem`: the code of its problem."""

    method: str
    route: str
    status: int
    began: float
    ended: float
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    problem: str | None = None
    stages: Trace = field(default_factory=dict)


class Tracer:
    """Writes traces to a collector, in a thread of its own. What the collector does not take is lost, and logged."""

    def __init__(self, traces: Traces) -> None:
        # Loaded by those who want traces only: it brings requests and protobuf into the process.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        resource = Resource.create({"service.name": "dsr-serve", "service.version": version("dsr-serve")})
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(traces.ratio)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces.endpoint)))
        self._tracer = self._provider.get_tracer("dsr-serve")
        self._propagator = TraceContextTextMapPropagator()

    def write(self, request: Ended) -> None:
        span = self._tracer.start_span(
            f"{request.method} {request.route}",
            context=self._propagator.extract(request.headers),
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(request.began),
            attributes={
                "http.request.method": request.method,
                "http.route": request.route,
                "http.response.status_code": request.status,
                "dsr.request_id": request.request_id,
                **{f"dsr.cache.{stage}": work.cache for stage, work in request.stages.items()},
                **({"error.type": request.problem} if request.problem else {}),
            },
        )
        if span.is_recording():
            if request.status >= 500:
                span.set_status(Status(StatusCode.ERROR, request.problem))
            self._write_stages(span, request.stages)
        span.end(_nanoseconds(request.ended))

    def _write_stages(self, parent: Span, stages: Trace) -> None:
        context = set_span_in_context(parent)
        for stage, work in stages.items():
            if work.span is None:  # its cache had the result
                continue
            began, ended = work.span
            # A span holds the waits for the stages before it; `dsr.seconds` is the stage's own work.
            attributes = {"dsr.cache": work.cache, "dsr.seconds": work.seconds}
            span = self._tracer.start_span(stage, context, start_time=_nanoseconds(began), attributes=attributes)
            span.end(_nanoseconds(ended))

    def close(self) -> None:
        """Sends what has not been sent."""
        self._provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
