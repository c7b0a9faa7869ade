"""Every metric of the service's edge, in one table, under names that begin with `dsr_`. One registry per process.

Label values come from our own code only (route templates, statuses, problem codes, stage names), so that no client can
make new time series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.cache import CacheStats
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


def render(caches: Mapping[str, Sequence[Mapping[str, CacheStats]]] | None = None) -> tuple[bytes, str]:
    """(Prometheus text, its content type). `caches`: of every stage, those of each replica; they are added up."""
    text = generate_latest(REGISTRY)
    if caches:
        registry = CollectorRegistry()
        registry.register(_Caches(caches))
        text += generate_latest(registry)
    return text, CONTENT_TYPE_LATEST


class _Caches(Collector):
    """A stage's caches at one moment. What a replica counted goes with it: the sums may fall when one dies."""

    def __init__(self, caches: Mapping[str, Sequence[Mapping[str, CacheStats]]]) -> None:
        self._caches = caches

    def collect(self) -> Iterator[Metric]:
        for field, text in CACHES.items():
            counter = field in COUNTED
            family = (CounterMetricFamily if counter else GaugeMetricFamily)(
                f"dsr_cache_{field}", text, labels=["stage", "cache"]
            )
            for stage, replicas in self._caches.items():
                for name in sorted({name for caches in replicas for name in caches}):
                    values = [getattr(caches[name], field) for caches in replicas if name in caches]
                    family.add_metric([stage, name], sum(values))
            yield family
