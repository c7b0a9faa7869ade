"""Every metric of the service's edge, in one table, under names that begin with `dsr_`. One registry per process.

Label values come from our own code only (route templates, statuses, problem codes, stage names), so that no client can
make new time series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.messages import Report
from serve.schemas import Answer

REGISTRY = CollectorRegistry()

# From a warm answer on a GPU to a cold one on two CPU cores.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)

REQUESTS = Counter("dsr_requests_total", "HTTP requests answered", ["route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "dsr_request_seconds", "From the first byte in to the last byte out", ["route"], buckets=_SECONDS, registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "dsr_stage_seconds", "A stage's own work for one answer", ["stage"], buckets=_SECONDS, registry=REGISTRY
)
CACHE_RESULTS = Counter("dsr_cache_results_total", "What a stage's cache said", ["stage", "result"], registry=REGISTRY)
TOKENS = Counter("dsr_tokens_total", "Tokens read and written, by kind", ["kind"], registry=REGISTRY)
REJECTS = Counter("dsr_rejects_total", "Requests answered with a problem, by its code", ["code"], registry=REGISTRY)
COUNTED = ("hits", "misses", "evictions", "rejected")
CACHES = {
    "hits": "Look-ups that found their value",
    "misses": "Look-ups that did not, those included that waited for a computation under way",
    "evictions": "Values that went to make room",
    "rejected": "Values that were larger than the whole cache",
    "entries": "Values that are kept",
    "bytes": "What they take",
    "max_bytes": "What they may take, over all replicas",
}
ADMISSION = Gauge("dsr_admission_requests", "Questions that wait or are worked on", ["state"], registry=REGISTRY)
# `with IN_FLIGHT.track_inprogress():`
IN_FLIGHT = Gauge("dsr_requests_in_flight", "HTTP requests that are being worked on", registry=REGISTRY)


def observe_request(route: str, status: int, seconds: float, code: str | None = None) -> None:
    """One finished request. `route`: the template (`/v1/videos/{id}`), not the path; `code`: its problem's, if any."""
    REQUESTS.labels(route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    if code is not None:
        REJECTS.labels(code).inc()


def observe_answer(answer: Answer) -> None:
    """What one answer cost: each stage's seconds and cache result, and its tokens.

    Kinds of tokens: `video`, `geometry`, `prompt` (all of it, with those two) and `completion`.
    """
    for stage, seconds in answer.timings.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    for stage, result in answer.cache.items():
        CACHE_RESULTS.labels(stage, result).inc()
    for kind in ("video", "geometry", "prompt", "completion"):
        TOKENS.labels(kind).inc(getattr(answer.usage, f"{kind}_tokens"))


def observe_gate(waiting: int, running: int) -> None:
    ADMISSION.labels("waiting").set(waiting)
    ADMISSION.labels("running").set(running)


def render(reports: Mapping[str, Sequence[Report]] | None = None) -> tuple[bytes, str]:
    """(Prometheus text, its content type). `reports`: of every stage, that of each replica; they are added up."""
    text = generate_latest(REGISTRY)
    if reports:
        registry = CollectorRegistry()
        registry.register(_Stages(reports))
        text += generate_latest(registry)
    return text, CONTENT_TYPE_LATEST


class _Stages(Collector):
    """What the stages report at one moment. A replica's counts go with it: sums may fall when one dies."""

    def __init__(self, reports: Mapping[str, Sequence[Report]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        replicas = GaugeMetricFamily("dsr_stage_replicas", "Replicas that answer", labels=["stage"])
        requests = GaugeMetricFamily("dsr_stage_requests", "Requests in a stage, by state", labels=["stage", "state"])
        for stage, reports in self._reports.items():
            replicas.add_metric([stage], len(reports))
            for state in ("waiting", "running"):
                requests.add_metric([stage, state], sum(getattr(report, state) for report in reports))
        yield from (replicas, requests)
        yield from (self._caches(field, text) for field, text in CACHES.items())

    def _caches(self, field: str, text: str) -> Metric:
        kind = CounterMetricFamily if field in COUNTED else GaugeMetricFamily
        family = kind(f"dsr_cache_{field}", text, labels=["stage", "cache"])
        for stage, reports in self._reports.items():
            for name in sorted({name for report in reports for name in report.caches}):
                values = [getattr(report.caches[name], field) for report in reports if name in report.caches]
                family.add_metric([stage, name], sum(values))
        return family
