from __future__ import annotations

import pickle
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram

from serve import metrics
from serve.admission.gate import Capacity, Gate
from serve.cache import CacheStats
from serve.messages import Report
from serve.trace import Work
from tests.serve.backends import REPLY

_TYPE = re.compile(r"^# TYPE (dsr_\w+) (\w+)$", re.M)
NAMES = {
    "dsr_requests_total": ["route", "status"],
    "dsr_request_seconds": ["route"],
    "dsr_stage_seconds": ["stage"],
    "dsr_cache_results_total": ["stage", "result"],
    "dsr_tokens_total": ["kind"],
    "dsr_rejects_total": ["code"],
    "dsr_requests_in_flight": [],
    "dsr_admission_requests": ["state"],
    "dsr_reconstruction_requests": ["state"],
}


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def observe() -> None:
    metrics.observe_stages({"decoder": Work(0.5, "miss"), "frames": Work(0.02, "hit")})
    metrics.observe_tokens(REPLY)


def test_an_answer_is_counted_by_stage_cache_and_token() -> None:
    def read() -> list[float]:
        return [
            value("dsr_stage_seconds_sum", stage="decoder"),
            value("dsr_stage_seconds_count", stage="frames"),
            value("dsr_cache_results_total", stage="decoder", result="miss"),
            value("dsr_cache_results_total", stage="frames", result="hit"),
            *(value("dsr_tokens_total", kind=kind) for kind in ("video", "geometry", "prompt", "completion")),
        ]

    before = read()
    observe()
    assert [after - then for after, then in zip(read(), before, strict=True)] == [0.5, 1, 1, 1, 8, 32, 60, 3]


def test_a_request_is_counted_by_route_and_status_and_a_problem_by_its_code() -> None:
    metrics.observe_request("/test/{id}", 200, 0.25)
    metrics.observe_request("/test/{id}", 422, 0.25, code="test_code")
    assert value("dsr_requests_total", route="/test/{id}", status="200") == 1
    assert value("dsr_requests_total", route="/test/{id}", status="422") == 1
    assert value("dsr_request_seconds_sum", route="/test/{id}") == 0.5
    assert value("dsr_rejects_total", code="test_code") == 1


def test_requests_in_flight_go_up_and_down() -> None:
    with metrics.IN_FLIGHT.track_inprogress():
        assert value("dsr_requests_in_flight") == 1
    assert value("dsr_requests_in_flight") == 0


def test_the_names_and_labels_are_those_that_dashboards_and_alerts_use() -> None:
    observe()
    metrics.observe_request("/r", 200, 0.1, code="c")
    for gauge in (metrics.ADMISSION, metrics.RECONSTRUCTIONS):
        metrics.watch(Gate(Capacity(1, 1, 1, 1)), gauge)
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    said: dict[str, set[str]] = {}
    for line in text.decode().splitlines():
        if match := re.match(r"(dsr_\w+?)(?:_bucket|_sum|_count|_created)?(?:\{(.*)\})? ", line):
            labels = set(re.findall(r'(\w+)="', match[2] or "")) - {"le"}
            said.setdefault(match[1], set()).update(labels)
    said = {name: labels for name, labels in said.items() if f"{name}_total" not in said}
    assert said == {name: set(labels) for name, labels in NAMES.items()}


def test_the_readme_names_every_metric_and_no_other() -> None:
    for gauge in (metrics.ADMISSION, metrics.RECONSTRUCTIONS):
        metrics.watch(Gate(Capacity(1, 1, 1, 1)), gauge)
    cache = CacheStats(1, 1, 1, 1, 1, 1, 1)
    text = metrics.render(reports={"frames": [Report({"frames": cache}, 0, 0, refused={"deadline": 1})]})[0].decode()
    there = {
        name if kind != "counter" else name.removesuffix("_total") + "_total" for name, kind in _TYPE.findall(text)
    }
    table = Path("serve/README.md").read_text().split("| metrics, all `dsr_…` | tell |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.count("|") > 2]
    assert {f"dsr_{name}" for row in rows for name in re.findall(r"`(\w+)`", row)} == there


def test_the_metrics_of_several_processes_are_one() -> None:
    registry = CollectorRegistry()
    counter = Counter("dsr_x_total", "x", ["route"], registry=registry)
    seconds = Histogram("dsr_y_seconds", "y", buckets=(1.0,), registry=registry)
    counter.labels("/a").inc(2)
    seconds.observe(0.5)
    one = list(registry.collect())
    counter.labels("/b").inc()
    two = pickle.loads(pickle.dumps(list(registry.collect())))
    text = metrics.render([one, two])[0].decode()
    assert 'dsr_x_total{route="/a"} 4.0' in text
    assert 'dsr_x_total{route="/b"} 1.0' in text
    assert 'dsr_y_seconds_bucket{le="1.0"} 2.0' in text
    assert "dsr_y_seconds_count 2.0" in text
    assert text.count("# TYPE dsr_x_total counter") == 1


def test_figures_of_replicas_are_added_up_and_the_fullest_is_shown() -> None:
    reports = [Report({}, 1, 2, work=3, full=0.5, passes=4, items=8), Report({}, 0, 0, work=1, full=0.9, passes=1)]
    text = metrics.render(reports={"decoder": reports, "encoder": []})[0].decode()
    for line in ('work{stage="decoder"} 4.0', 'memory_full{stage="decoder"} 0.9', 'passes_total{stage="decoder"} 5.0'):
        assert f"dsr_stage_{line}" in text
    assert 'dsr_stage_work{stage="encoder"}' not in text


def test_what_replicas_did_not_decode_is_added_up_by_its_reason() -> None:
    reports = [Report({}, 0, 0, refused={"deadline": 1, "not_a_video": 2}), Report({}, 0, 0, refused={"deadline": 3})]
    text = metrics.render(reports={"frames": reports, "encoder": [Report({}, 0, 0)]})[0].decode()
    assert 'dsr_decode_failures_total{reason="deadline"} 4.0' in text
    assert 'dsr_decode_failures_total{reason="not_a_video"} 2.0' in text
