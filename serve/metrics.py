"""Every metric of the service's edge, in one table, under names that begin with `dsr_`. One registry per process.

Label values come from our own code only (route templates, statuses, problem codes, stage names), so that no client can
make new time series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.admission.gate import Gate
from serve.messages import Reply, Report
from serve.trace import Trace

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
RECONSTRUCTIONS = Gauge(
    "dsr_reconstruction_requests", "Reconstructions that wait or are worked on", ["state"], registry=REGISTRY
)
# Of each stage, over its replicas: name, field of `serve.messages.Report`, meaning.
FIGURES: dict[type[GaugeMetricFamily | CounterMetricFamily], list[tuple[str, str, str]]] = {
    GaugeMetricFamily: [
        ("dsr_stage_work", "work", "Work that waits or is done, in the stage's unit (serve.scaling)"),
        (
            "dsr_stage_memory_full",
            "full",
            "Held share of the memory for keys and values, in the fullest replica",
        ),
        ("dsr_stage_device_bytes", "device_bytes", "That torch has taken of GPUs"),
    ],
    CounterMetricFamily: [
        ("dsr_stage_passes", "passes", "Forward passes"),
        ("dsr_stage_items", "items", "Requests in them: divided by passes, the size of a batch"),
    ],
}
# `with IN_FLIGHT.track_inprogress():`
IN_FLIGHT = Gauge("dsr_requests_in_flight", "HTTP requests that are being worked on", registry=REGISTRY)


def observe_request(route: str, status: int, seconds: float, code: str | None = None) -> None:
    """One finished request. `route`: the template (`/v1/videos/{id}`), not the path; `code`: its problem's, if any."""
    REQUESTS.labels(route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    if code is not None:
        REJECTS.labels(code).inc()


def observe_tokens(reply: Reply) -> None:
    """Of one answer, by kind: `video`, `geometry`, `prompt` (all of it, with those two) and `completion`."""
    for kind in ("video", "geometry", "prompt", "completion"):
        TOKENS.labels(kind).inc(getattr(reply, f"{kind}_tokens"))


def observe_stages(trace: Trace) -> None:
    """Seconds of each stage's work for one request, and what its cache said."""
    for stage, work in trace.items():
        STAGE_SECONDS.labels(stage).observe(work.seconds)
        CACHE_RESULTS.labels(stage, work.cache).inc()


def watch(gate: Gate, gauge: Gauge = ADMISSION) -> None:
    """Its load is looked at whenever the metrics are read."""
    gauge.labels("waiting").set_function(lambda: gate.load[0])
    gauge.labels("running").set_function(lambda: gate.load[1])


def edge() -> list[Metric]:
    """What this process has counted, to be sent to another."""
    return list(REGISTRY.collect())


def render(
    edges: Sequence[Sequence[Metric]] = (), reports: Mapping[str, Sequence[Report]] | None = None
) -> tuple[bytes, str]:
    """(Prometheus text, its content type). `edges`: what `edge` gave in each ingress replica; none: of this one alone.
    `reports`: of every stage, that of each replica. All are added up."""
    registry = CollectorRegistry()
    registry.register(_Edges(edges or [edge()]))
    if reports:
        registry.register(_Stages(reports))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Edges(Collector):
    """The same metrics of several processes, as one."""

    def __init__(self, edges: Sequence[Sequence[Metric]]) -> None:
        self._edges = edges

    def collect(self) -> Iterator[Metric]:
        sums: dict[str, tuple[Metric, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
        for family in (family for edge in self._edges for family in edge):
            _, values = sums.setdefault(family.name, (family, {}))
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    key = sample.name, tuple(sorted(sample.labels.items()))
                    values[key] = values.get(key, 0.0) + sample.value
        for family, values in sums.values():
            together = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in values.items():
                together.add_sample(name, dict(labels), value)
            yield together


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
        yield from (self._figure(kind, *row) for kind, rows in FIGURES.items() for row in rows)
        yield from (self._caches(field, text) for field, text in CACHES.items())
        yield self._refused()

    def _figure(self, kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, field: str, text: str) -> Metric:
        family = kind(name, text, labels=["stage"])
        for stage, reports in self._reports.items():
            if reports:
                values = [getattr(report, field) for report in reports]
                # Fullness is no sum: the fullest replica is the one that makes others wait.
                family.add_metric([stage], max(values) if field == "full" else sum(values))
        return family

    def _refused(self) -> Metric:
        family = CounterMetricFamily("dsr_decode_failures", "Videos that were not decoded, by why", labels=["reason"])
        refused = [report.refused for reports in self._reports.values() for report in reports]
        for reason in sorted({reason for each in refused for reason in each}):
            family.add_metric([reason], sum(each.get(reason, 0) for each in refused))
        return family

    def _caches(self, field: str, text: str) -> Metric:
        kind = CounterMetricFamily if field in COUNTED else GaugeMetricFamily
        family = kind(f"dsr_cache_{field}", text, labels=["stage", "cache"])
        for stage, reports in self._reports.items():
            for name in sorted({name for report in reports for name in report.caches}):
                values = [getattr(report.caches[name], field) for report in reports if name in report.caches]
                family.add_metric([stage, name], sum(values))
        return family
