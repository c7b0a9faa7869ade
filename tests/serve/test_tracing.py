"""What a collector gets of a request; across the stages of a real service: tests/serve/service."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.layout import recognise
from serve.api import create_app
from serve.errors import StageLost
from serve.settings import Ingress, Traces
from serve.store import VideoStore
from tests.collector import Collector, attributes, collecting
from tests.serve.backends import VIDEO, SpeakingBackend

QUESTION = {"video": {"id": VIDEO}, "question": "?", "stream": True}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as collector:
        yield collector


def ask(store: Path, traces: Traces, backend: SpeakingBackend, sampled: bool = True, **change: Any) -> str:
    """Asks as part of a trace of the caller's; gives that trace's id."""
    trace_id = secrets.token_hex(16)
    app = create_app(
        backend, VideoStore(str(store), 1_000_000, 3600), recognise(Path("models/tiny")).model, Ingress(traces=traces)
    )
    headers = {"traceparent": f"00-{trace_id}-{'0' * 15}7-0{int(sampled)}", "x-request-id": "mine"}

    async def request() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
            await http.post("/v1/answers", json={**QUESTION, **change})

    asyncio.run(request())
    return trace_id


def test_a_request_is_a_span_of_its_callers_trace_and_the_stages_that_worked_are_below(
    collector: Collector, tmp_path: Path
) -> None:
    trace_id = ask(tmp_path, Traces(endpoint=collector.endpoint), SpeakingBackend())
    spans = {span.name: span for span in collector.trace(trace_id)}
    assert spans.keys() == {"POST /v1/answers", "decoder"}  # the selector's cache had its part: it did not work
    root, stage = spans["POST /v1/answers"], spans["decoder"]
    assert root.parent_span_id.hex() == "0" * 15 + "7"
    assert stage.parent_span_id == root.span_id
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/answers",
        "http.response.status_code": 200,
        "dsr.request_id": "mine",
        "dsr.cache.decoder": "miss",
        "dsr.cache.selector": "hit",
    }
    assert attributes(stage) == {"dsr.cache": "miss", "dsr.seconds": 0.5}
    assert root.end_time_unix_nano > root.start_time_unix_nano
    assert stage.end_time_unix_nano - stage.start_time_unix_nano == pytest.approx(0.5e9, rel=0.01)


def test_a_failure_says_what_it_was(collector: Collector, tmp_path: Path) -> None:
    backend = SpeakingBackend(before=StageLost("decoder lost its replica 3 times"))
    [root] = collector.trace(ask(tmp_path, Traces(endpoint=collector.endpoint), backend))
    assert (attributes(root)["http.response.status_code"], attributes(root)["error.type"]) == (503, "stage_lost")
    assert root.status.code == root.status.STATUS_CODE_ERROR
    [refused] = collector.trace(ask(tmp_path, Traces(endpoint=collector.endpoint), SpeakingBackend(), max_tokens=0))
    assert attributes(refused)["http.response.status_code"] == 422
    assert refused.status.code == refused.status.STATUS_CODE_UNSET  # the caller's fault, not ours


def test_what_the_caller_does_not_keep_is_not_sent(collector: Collector, tmp_path: Path) -> None:
    traces = Traces(endpoint=collector.endpoint)
    unsampled = ask(tmp_path, traces, SpeakingBackend(), sampled=False)
    collector.trace(ask(tmp_path, traces, SpeakingBackend()))
    with pytest.raises(AssertionError, match="no trace"):
        collector.trace(unsampled, seconds=0.5)


def test_a_collector_that_is_away_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    backend = SpeakingBackend()
    ask(tmp_path, Traces(endpoint="http://127.0.0.1:9/v1/traces"), backend)
    assert len(backend.asks) == 1


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Traces(endpoint="collector:4318")
