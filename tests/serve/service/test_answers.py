"""The real service on loopback: real encoded videos, the answers of the model in this process, and lost replicas."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray")

from ray import serve

from models.video import Clip, Sampling, read
from models.vlm import VisionLanguageModel
from tests.clips import make_clip
from tests.processes import replicas
from tests.serve.service.asking import OPTIONS, QUESTION, ask_by_form, ask_by_id, assert_same, held, in_process

STAGES = ["frames", "encoder", "selector", "decoder", "reconstructor"]


def test_answer_by_form_equals_the_answer_in_process(service: httpx.Client, model: VisionLanguageModel) -> None:
    video = make_clip(None, seconds=2, fps=10, size=(320, 180))
    response = ask_by_form(service, video)
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = in_process(model, video)
    assert_same(answer["probabilities"], expected)
    best = max(expected, key=expected.__getitem__)
    assert answer["choice"]["letter"] == answer["text"] == best
    assert answer["choice"]["text"] == OPTIONS["ABCD".index(best)]
    assert answer["video"]["frames"] == 20
    assert answer["usage"]["geometry_tokens"] == 32
    assert set(answer["timings"]) == {"frames", "encoder", "selector", "decoder"}
    assert set(answer["cache"].values()) == {"miss"}


def test_second_question_by_id_touches_only_selector_and_decoder(
    service: httpx.Client, model: VisionLanguageModel
) -> None:
    video = make_clip(None, seconds=3, fps=8, size=(256, 256))
    uploaded = service.post("/v1/videos", files={"video": ("clip.mp4", video)})
    assert uploaded.status_code == 201, uploaded.text
    facts = uploaded.json()
    assert (facts["width"], facts["height"], facts["frames"], facts["bytes"]) == (256, 256, 24, len(video))
    assert service.post("/v1/videos", files={"video": ("other.mp4", video)}).json()["id"] == facts["id"]

    cold = ask_by_id(service, facts["id"]).json()
    assert cold["cache"]["decoder"] == "miss"
    other = "How does the speed of the white square change?"
    for question in [*(f"{other} ({number})" for number in range(6)), other]:  # all to the selector that has the clip
        answer = ask_by_id(service, facts["id"], question=question).json()
        assert answer["cache"] == {"selector": "hit", "decoder": "hit"}
    assert_same(answer["probabilities"], in_process(model, video, other))
    assert_same(cold["probabilities"], in_process(model, video))


def test_other_sampling_of_a_cached_clip_is_another_clip(service: httpx.Client, model: VisionLanguageModel) -> None:
    video = make_clip(None, seconds=2, fps=12, size=(224, 224))
    full = ask_by_form(service, video).json()
    few = ask_by_form(service, video, frames=4).json()
    assert few["video"]["id"] == full["video"]["id"]
    assert (few["video"]["frames"], few["cache"]["encoder"]) == (4, "miss")
    expected = model.answer(read(video, Sampling.of(model.config.frames, count=4)), QUESTION, OPTIONS).probabilities
    assert expected is not None
    assert_same(few["probabilities"], expected)


def test_free_text_and_geometry_off_equal_the_model_in_process(
    service: httpx.Client, model: VisionLanguageModel
) -> None:
    video = make_clip(None, seconds=1, fps=10, size=(224, 168))
    clip: Clip = read(video, model.sampling)
    encoded = base64.b64encode(video).decode()
    body = {"video": {"data": encoded}, "question": QUESTION, "max_tokens": 8}
    free = service.post("/v1/answers", json=body).json()
    assert free["text"] == model.answer(clip, QUESTION, max_tokens=8).text
    assert free["choice"] is None
    assert 1 <= free["usage"]["completion_tokens"] <= 8

    def drawn(**more: Any) -> str:
        return str(service.post("/v1/answers", json={**body, "temperature": 2.0, **more}).json()["text"])

    texts = [drawn(seed=seed) for seed in range(8)]
    assert [drawn(seed=seed) for seed in range(8)] == texts
    assert len(set(texts)) > 1
    ended = drawn(seed=0, stop=[texts[0][2:4]])
    assert texts[0].startswith(ended)
    assert len(ended) <= 2

    off = service.post("/v1/answers", json={**body, "options": OPTIONS, "geometry": "off"}).json()
    assert off["usage"]["geometry_tokens"] == 0
    assert set(off["timings"]) == {"decoder"} or set(off["timings"]) == {"frames", "decoder"}
    assert_same(off["probabilities"], in_process(model, video, geometry=False))
    assert in_process(model, video, geometry=False) != in_process(model, video)


@pytest.mark.parametrize(
    ("video", "status", "code"),
    [
        (b"", 415, "not_a_video"),
        (b"this is no video at all, only text that goes on for a while", 415, "not_a_video"),
        (b"\x00" * 4096, 415, "not_a_video"),
        (None, 422, "undecodable_video"),
        (b"x" * 3_100_000, 413, "too_large"),
    ],
    ids=["empty", "text", "zeros", "truncated", "too large"],
)
def test_a_bad_video_gets_its_problem_and_is_not_kept(
    service: httpx.Client, store: Path, video: bytes | None, status: int, code: str
) -> None:
    if video is None:
        video = make_clip(None, seconds=1, fps=10, size=(96, 96))[:700]
    before = held(store)
    assert_problem(ask_by_form(service, video), status, code)
    assert_problem(service.post("/v1/videos", files={"video": ("clip.mp4", video)}), status, code)
    assert held(store) == before


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"video": {"id": "vid_" + "0" * 64}, "question": "?"}, 404, "unknown_video", "video.id"),
        ({"video": {"id": "../../etc/passwd"}, "question": "?"}, 404, "unknown_video", "video.id"),
        ({"video": {"id": "vid_" + "0" * 64}}, 422, None, "question"),
        ({"video": {"id": "vid_" + "0" * 64}, "question": "?", "optoins": ["a", "b"]}, 422, None, "optoins"),
        ({"video": {"id": "vid_" + "0" * 64}, "question": "?", "options": ["a"]}, 422, None, None),
        ({"video": {"id": "vid_" + "0" * 64}, "question": "?", "frames": 100_000}, 422, None, "frames"),
        ({"video": {}, "question": "?"}, 422, None, None),
        ({"video": {"url": "http://127.0.0.1/x.mp4"}, "question": "?"}, 400, "not_supported", "video.url"),
        ({"video": {"id": "vid_" + "0" * 64}, "question": "?", "stream": True}, 404, "unknown_video", "video.id"),
    ],
)
def test_a_bad_request_gets_its_problem(
    service: httpx.Client, body: dict[str, Any], status: int, code: str | None, field: str | None
) -> None:
    response = service.post("/v1/answers", json=body)
    # The contract has 400 for a malformed request; a well-formed one with a wrong value may be 400 or 422.
    if code is None:
        assert response.status_code in (400, 422), response.text
        assert_problem(response, response.status_code, None)
    else:
        assert_problem(response, status, code)
    if field is not None:
        assert field in response.json()["field"]


def test_a_missing_question_or_file_in_a_form_and_broken_json_get_their_problems(service: httpx.Client) -> None:
    video = make_clip(None, seconds=1, fps=10, size=(96, 96))
    no_question = service.post("/v1/answers", data={"options": OPTIONS}, files={"video": ("clip.mp4", video)})
    assert no_question.status_code in (400, 422)
    assert "question" in assert_problem(no_question, no_question.status_code, None)["field"]
    no_file = service.post("/v1/answers", data={"question": "?"}, files={"other": ("clip.mp4", video)})
    assert_problem(no_file, 400, "malformed_request")
    broken = service.post("/v1/answers", content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code in (400, 422)
    assert_problem(broken, broken.status_code, None)
    assert_problem(service.post("/v1/answers", content=b"hello"), 400, "malformed_request")
    assert_problem(service.get("/nowhere"), 404, None)


def assert_problem(response: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    if code is not None:
        assert problem["code"] == code
    for leak in ("Traceback", "/work", "ray::", "site-packages", os.getcwd()):
        assert leak not in response.text
    return problem


def test_probes_and_metrics_answer(service: httpx.Client) -> None:
    assert service.get("/livez").json() == {"status": "alive"}
    ready = service.get("/readyz").json()
    assert ready == {"status": "ready", "model": "dsr-tiny", "stages": STAGES}
    video = make_clip(None, seconds=1, fps=10, size=(96, 96))
    assert ask_by_form(service, video).status_code == 200
    text = service.get("/metrics").text
    for stage in STAGES:
        assert f'stage="{stage}"' in text
    assert json.loads(service.get("/openapi.json").text)["paths"].keys() >= {"/v1/answers", "/v1/videos"}


def test_stages_have_the_replicas_that_their_settings_say(service: httpx.Client) -> None:
    deployments = serve.status().applications["dsr"].deployments
    running_replicas = {name: status.replica_states["RUNNING"] for name, status in deployments.items()}
    assert running_replicas == {**dict.fromkeys(STAGES, 1), "selector": 2, "ingress": 1}


@pytest.mark.parametrize("stage", ["frames", "encoder", "decoder"])
def test_a_killed_stage_does_not_lose_the_next_question(
    service: httpx.Client, model: VisionLanguageModel, stage: str
) -> None:
    seconds = {"frames": 1.0, "encoder": 1.25, "decoder": 1.5}[stage]  # a clip that no cache knows
    video = make_clip(None, seconds=seconds, fps=12, size=(160, 160))
    [before] = replicas(stage)
    os.kill(before, signal.SIGKILL)
    answer = ask_by_form(service, video)
    assert answer.status_code == 200, answer.text
    assert_same(answer.json()["probabilities"], in_process(model, video))
    assert replicas(stage).isdisjoint({before})


def test_the_readmes_example_runs(service: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert "http://127.0.0.1:8000" in example
    exec(example.replace("http://127.0.0.1:8000", str(service.base_url).rstrip("/")), {})
    answer = ast.literal_eval(capsys.readouterr().out)
    assert answer["choice"]["letter"] in answer["probabilities"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_curl_command_runs(service: httpx.Client) -> None:
    [command] = re.findall(r"^curl .*?(?<!\\)$", Path("README.md").read_text(), re.S | re.M)
    local = command.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}")
    assert local != command
    done = subprocess.run(["bash", "-c", local], capture_output=True, text=True, timeout=60)
    assert set(json.loads(done.stdout)["probabilities"]) == {"A", "B"}
