"""The real service: answers as they are written, by every way to ask; what becomes of those whose client leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from models.video import read
from models.vlm import VisionLanguageModel
from tests.clips import make_clip
from tests.processes import replicas
from tests.serve.service.asking import OPTIONS, QUESTION, ask_by_id

LONG = {"max_tokens": 1000, "temperature": 2.0, "seed": 4}  # 51 tokens: with most seeds the model soon comes to an end


@pytest.fixture(scope="module")
def clip() -> bytes:
    return make_clip(None, seconds=2, fps=9, size=(200, 160))


@pytest.fixture(scope="module")
def video(service: httpx.Client, clip: bytes) -> str:
    return str(service.post("/v1/videos", files={"video": ("clip.mp4", clip)}).json()["id"])


@contextmanager
def streamed(service: httpx.Client, video: str, **fields: Any) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """The events of a streamed answer, while they come."""
    body = {"video": {"id": video}, "question": QUESTION, "stream": True, **fields}
    with service.stream("POST", "/v1/answers", json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def under_way(service: httpx.Client) -> float:
    [value] = re.findall(
        r'^dsr_stage_requests{stage="decoder",state="running"} (\S+)', service.get("/metrics").text, re.M
    )
    return float(value)


def at_decoder(service: httpx.Client) -> float:
    """Requests that it has, those included whose clip is still on its way."""
    text = service.get("/metrics").text
    return sum(map(float, re.findall(r'^dsr_stage_requests{stage="decoder",state="\w+"} (\S+)', text, re.M)))


def test_a_stream_a_whole_answer_and_openais_client_say_the_same(
    service: httpx.Client, video: str, clip: bytes, model: VisionLanguageModel
) -> None:
    whole = ask_by_id(service, video, options=[], max_tokens=12).json()
    assert whole["text"] == model.answer(read(clip, model.sampling), QUESTION, max_tokens=12).text
    with streamed(service, video, max_tokens=12) as events:
        *tokens, (name, answer) = list(events)
    assert {name for name, _ in tokens} == {"token"}
    assert "".join(data["text"] for _, data in tokens).strip() == answer["text"] == whole["text"]
    assert name == "answer"
    with openai.OpenAI(base_url=str(service.base_url.join("/v1")), api_key="none") as client:
        parts: Any = [{"type": "video_url", "video_url": {"url": f"dsr://{video}"}}, {"type": "text", "text": QUESTION}]
        said = client.chat.completions.create(
            model=client.models.list().data[0].id, messages=[{"role": "user", "content": parts}], max_tokens=12,
            logprobs=True,
        )  # fmt: skip
        assert said.choices[0].message.content == whole["text"]
        assert said.choices[0].logprobs is not None
        spelt = b"".join(bytes(token.bytes or []) for token in said.choices[0].logprobs.content or [])
        assert spelt.decode().strip() == whole["text"]
        chunks = client.chat.completions.create(
            model="dsr-tiny", messages=[{"role": "user", "content": parts}], max_tokens=12, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces).strip() == whole["text"]


def test_a_choice_may_be_streamed_too(service: httpx.Client, video: str) -> None:
    with streamed(service, video, options=OPTIONS) as events:
        [(name, answer)] = list(events)
    assert name == "answer"
    assert answer["probabilities"] == ask_by_id(service, video).json()["probabilities"]


def test_an_explanation_is_where_the_selector_looked_and_changes_with_the_question(
    service: httpx.Client, video: str, clip: bytes, model: VisionLanguageModel
) -> None:
    first = ask_by_id(service, video, explain=True).json()["explanation"]
    times, rows, columns = first["grid"]
    assert len(first["times"]) == times == len(first["attention"])
    assert sum(value for patch in first["attention"] for row in patch for value in row) == pytest.approx(1, abs=1e-4)
    assert [len(first["attention"][0]), len(first["attention"][0][0])] == [rows, columns]
    sampled = read(clip, model.sampling).times
    assert first["times"] == pytest.approx([(a + b) / 2 for a, b in zip(sampled[::2], sampled[1::2], strict=True)])
    other = ask_by_id(service, video, question="Where is the camera at 1.0 s?", explain=True).json()["explanation"]
    assert other["attention"] != first["attention"]
    assert "explanation" not in ask_by_id(service, video).json()
    refused = ask_by_id(service, video, explain=True, geometry="off")
    assert (refused.status_code, refused.json()["field"]) == (422, "explain")


def test_spans_show_that_encoder_and_decoder_work_at_the_same_time(service: httpx.Client) -> None:
    posted = service.post("/v1/videos", files={"video": ("x.mp4", make_clip(None, seconds=3, fps=12, size=(224, 224)))})
    spans = ask_by_id(service, posted.json()["id"]).json()["spans"]
    assert set(spans) == {"frames", "encoder", "selector", "decoder"}
    assert spans["frames"]["end"] <= spans["encoder"]["start"] + 0.05
    assert spans["encoder"]["end"] <= spans["selector"]["end"] <= spans["decoder"]["end"]
    assert spans["decoder"]["start"] < spans["selector"]["start"], "the clip is read while the geometry is on its way"


def test_a_client_that_leaves_frees_its_slot_within_a_second(service: httpx.Client, video: str) -> None:
    with streamed(service, video, **LONG) as events:
        assert next(events)[0] == "token"
        assert under_way(service) == 1
    _until(lambda: under_way(service) == 0, seconds=1.0)
    new = make_clip(None, seconds=5, fps=8, size=(280, 168))  # the same without a stream, while a clip is still read
    posted = service.post("/v1/videos", files={"video": ("new.mp4", new)}).json()["id"]
    with pytest.raises(httpx.ReadTimeout):
        service.post("/v1/answers", json={"video": {"id": posted}, "question": QUESTION}, timeout=0.15)
    _until(lambda: under_way(service) == 0, seconds=1.0)


def test_a_slow_reader_of_a_stream_holds_up_nobody(service: httpx.Client, video: str) -> None:
    with streamed(service, video, **LONG) as slow:
        next(slow)
        start = time.monotonic()
        for _ in range(5):
            assert ask_by_id(service, video).status_code == 200
        assert time.monotonic() - start < 10
        _until(lambda: under_way(service) == 0, seconds=30)  # its answer is written although nobody reads it
        rest = list(slow)
    assert rest[-1][0] == "answer"


def test_a_stream_goes_on_where_it_was_when_its_decoder_is_killed(service: httpx.Client, video: str) -> None:
    with streamed(service, video, **LONG) as events:
        expected = list(events)[-1][1]["text"]
    with streamed(service, video, **LONG) as events:
        texts = [next(events)[1]["text"] for _ in range(3)]
        [decoder] = replicas("decoder")
        os.kill(decoder, signal.SIGKILL)
        *tokens, (name, answer) = list(events)
    assert name == "answer"
    assert answer["text"] == expected
    assert "".join([*texts, *(data["text"] for _, data in tokens)]).strip() == expected


def test_a_deleted_video_is_forgotten_everywhere(service: httpx.Client) -> None:
    video = service.post("/v1/videos", files={"video": ("x.mp4", make_clip(None, seconds=1, fps=7, size=(128, 96)))})
    name = video.json()["id"]
    assert name in [one["id"] for one in service.get("/v1/videos", params={"limit": 100}).json()["videos"]]
    assert ask_by_id(service, name).status_code == 200
    assert service.delete(f"/v1/videos/{name}").status_code == 204
    assert ask_by_id(service, name).status_code == 404, "neither the store nor a cache knows it"
    assert service.get(f"/v1/videos/{name}").status_code == 404


def test_flushed_caches_are_empty_and_answers_the_same(service: httpx.Client, video: str) -> None:
    before = ask_by_id(service, video).json()
    assert service.delete("/v1/caches").status_code == 204
    text = service.get("/metrics").text
    held = dict(re.findall(r'^dsr_cache_bytes{cache="(\w+)",stage="\w+"} (\S+)', text, re.M))
    assert held.keys() == {"frames", "features", "memory", "tokens", "prefixes", "scenes"}
    assert set(map(float, held.values())) == {0.0}
    after = ask_by_id(service, video).json()
    assert set(after["cache"].values()) == {"miss"}
    assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)


def _until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)
