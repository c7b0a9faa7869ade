"""A question's trace, across the processes of all stages, as a collector gets it."""

from __future__ import annotations

import secrets

import httpx

from tests.clips import make_clip
from tests.collector import Collector, attributes
from tests.serve.service.asking import QUESTION


def test_a_cold_question_is_one_trace_with_every_stage_and_a_repeated_one_shows_its_caches(
    service: httpx.Client, collector: Collector
) -> None:
    video = make_clip(None, seconds=1, fps=13, size=(84, 112))
    cold, warm = secrets.token_hex(16), secrets.token_hex(16)
    for trace in (cold, warm):
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        form = {"video": ("x.mp4", video)}
        service.post("/v1/answers", data={"question": QUESTION}, files=form, headers=headers).raise_for_status()
    spans = {span.name: span for span in collector.trace(cold)}
    assert spans.keys() == {"POST /v1/answers", "frames", "encoder", "selector", "decoder"}
    root = spans.pop("POST /v1/answers")
    for span in spans.values():
        assert span.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
        assert attributes(span)["dsr.cache"] == "miss"
    assert spans["frames"].end_time_unix_nano <= spans["encoder"].end_time_unix_nano

    [again] = [span for span in collector.trace(warm) if span.name.startswith("POST")]
    assert attributes(again)["dsr.cache.selector"] == "hit"
    assert {span.name for span in collector.trace(warm)}.isdisjoint({"frames", "encoder"})
