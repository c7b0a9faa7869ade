from __future__ import annotations

import re

from serve import metrics
from serve.schemas import Answer, Usage, VideoInfo

NAMES = {
    "dsr_requests_total": ["route", "status"],
    "dsr_request_seconds": ["route"],
    "dsr_stage_seconds": ["stage"],
    "dsr_cache_results_total": ["stage", "result"],
    "dsr_tokens_total": ["kind"],
    "dsr_rejects_total": ["code"],
    "dsr_requests_in_flight": [],
}


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def answer() -> Answer:
    return Answer(
        id="ans_1",
        model="dsr-tiny",
        text="yes",
        usage=Usage(video_tokens=10, geometry_tokens=32, prompt_tokens=60, completion_tokens=5),
        timings={"decoder": 0.5, "frames": 0.02},
        cache={"decoder": "miss", "frames": "hit"},
        video=VideoInfo(id="vid", duration=1.0, fps=30.0, width=640, height=360, frames=32),
    )


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
    metrics.observe_answer(answer())
    assert [after - then for after, then in zip(read(), before, strict=True)] == [0.5, 1, 1, 1, 10, 32, 60, 5]


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
    metrics.observe_answer(answer())
    metrics.observe_request("/r", 200, 0.1, code="c")
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    said: dict[str, set[str]] = {}
    for line in text.decode().splitlines():
        if match := re.match(r"(dsr_\w+?)(?:_bucket|_sum|_count|_created)?(?:\{(.*)\})? ", line):
            labels = set(re.findall(r'(\w+)="', match[2] or "")) - {"le"}
            said.setdefault(match[1], set()).update(labels)
    said = {name: labels for name, labels in said.items() if f"{name}_total" not in said}
    assert said == {name: set(labels) for name, labels in NAMES.items()}
