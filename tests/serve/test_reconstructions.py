"""`POST /v1/reconstructions` over a stage that hands out a sphere, waits, or is not there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.video import Sampling
from serve.access.keyring import new_key
from serve.reconstructions import accepted
from serve.scene_files import glb, ply
from serve.scene_schemas import MAX_POINTS
from serve.settings import Access, Admission, Ingress
from tests.serve.backends import VIDEO
from tests.serve.direct import until
from tests.serve.scenes import Shaping, shaping_client, sphere
from tests.serve.test_access import bearer, line

ROUTE = "/v1/reconstructions"
BY_ID = {"video": {"id": VIDEO}}


def ask(
    root: Path,
    talk: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]],
    backend: Shaping | None = None,
    **how: Any,
) -> Any:
    async def run() -> Any:
        async with asyncio.timeout(30), shaping_client(backend or Shaping(), root, **how) as http:
            return await talk(http)

    return asyncio.run(run())


def posted(root: Path, body: dict[str, Any], backend: Shaping | None = None, **how: Any) -> httpx.Response:
    headers = how.pop("headers", {})
    response: httpx.Response = ask(root, lambda http: http.post(ROUTE, json=body, headers=headers), backend, **how)
    return response


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(packed["data"]), np.dtype(packed["dtype"]).newbyteorder("<"))
    return array.reshape(packed["shape"])


def test_the_answer_has_a_camera_for_each_frame_and_the_points_that_were_asked_for(tmp_path: Path) -> None:
    backend = Shaping()
    response = posted(tmp_path, {**BY_ID, "points": 500}, backend)
    assert response.status_code == 200, response.text
    told, scene = response.json(), sphere().sample(500)
    assert [camera["time"] for camera in told["cameras"]] == scene.seen.times.tolist()
    assert np.allclose([camera["pose"] for camera in told["cameras"]], scene.poses)
    assert np.allclose([camera["confidence"] for camera in told["cameras"]], scene.confidence)
    points = told["points"]
    assert (points["count"], points["available"]) == (500, 6000)
    for name, array in (
        ("positions", scene.positions),
        ("colors", scene.colors),
        ("frames", scene.frames),
        ("confidence", scene.certainty),
    ):
        assert np.array_equal(unpacked(points[name]), array), name
    assert (np.diff(unpacked(points["frames"]).astype(int)) >= 0).all(), "ordered by frame"
    assert (told["width"], told["height"], told["video"]["frames"]) == (56, 42, 4)
    assert told["cache"] == {"frames": "miss", "reconstructor": "miss"}
    assert told["timings"] == {"frames": 0.25, "reconstructor": 1.5}
    assert Sampling.parse(backend.clips[0].sampling).count == 8, "as for an answer, but no more than the stage takes"


def test_a_file_sent_in_a_form_and_in_base64_are_reconstructed_and_kept_under_one_id(tmp_path: Path) -> None:
    async def talk(http: httpx.AsyncClient) -> list[dict[str, Any]]:
        form = await http.post(ROUTE, data={"frames": "3", "points": "7"}, files={"video": ("a.mp4", b"a clip")})
        data = base64.b64encode(b"a clip").decode()
        body = await http.post(ROUTE, json={"video": {"data": data}, "frames": 3, "points": 7})
        return [form.json(), body.json()]

    backend = Shaping()
    first, second = ask(tmp_path, talk, backend)
    assert first["video"]["id"] == second["video"]["id"]
    assert first["points"]["count"] == second["points"]["count"] == 7
    assert backend.clips[0] == backend.clips[1]
    assert Sampling.parse(backend.clips[0].sampling).count == 3


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("ply", {"format": "ply"}),
        ("glb", {"format": "glb"}),
        ("ply", {"accept": "model/ply"}),
        ("glb", {"accept": "text/html, model/gltf-binary;q=0.9"}),
        ("glb", {"accept": "model/ply", "format": "glb"}),
    ],
)
def test_a_file_is_had_by_format_or_by_accept(tmp_path: Path, kind: str, how: dict[str, str]) -> None:
    headers = {"accept": how.pop("accept")} if "accept" in how else {}
    response = posted(tmp_path, {**BY_ID, "points": 100, **how}, headers=headers)
    written = {"ply": ply, "glb": glb}[kind]
    assert response.content == written(sphere().sample(100))
    assert response.headers["content-type"] == {"ply": "model/ply", "glb": "model/gltf-binary"}[kind]
    assert response.headers["content-disposition"] == f'attachment; filename="scene.{kind}"'


@pytest.mark.parametrize("header", ["", "*/*", "application/json, model/ply", "model/obj", ",;,"])
def test_anything_else_is_answered_in_json(header: str) -> None:
    assert accepted(header) == "json"


def test_without_a_reconstructor_every_request_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    read = []

    async def body() -> AsyncGenerator[bytes, None]:
        read.append(1)
        yield b"{}"

    async def talk(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post(ROUTE, content=body(), headers={"content-type": "application/json"})

    response = ask(tmp_path, talk, stage=None)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (400, "not_supported", "reconstructor")
    assert not read


@pytest.mark.parametrize(
    ("body", "status", "field", "limit"),
    [
        ({**BY_ID, "points": MAX_POINTS + 1}, 422, "points", MAX_POINTS),
        ({**BY_ID, "points": -1}, 422, "points", 0),
        ({**BY_ID, "frames": 9}, 422, "frames", 8),
        ({**BY_ID, "frames": 0}, 422, "frames", 1),
        ({**BY_ID, "format": "obj"}, 422, "format", "'json', 'ply' or 'glb'"),
        ({**BY_ID, "question": "?"}, 400, "question", None),
        ({"video": {"id": "../../etc/passwd"}}, 404, "video.id", None),
        ({"points": 5}, 400, "video", None),
    ],
)
def test_what_is_out_of_limits_is_named(
    tmp_path: Path, body: dict[str, Any], status: int, field: str, limit: Any
) -> None:
    backend = Shaping()
    response = posted(tmp_path, body, backend)
    problem = response.json()
    assert (response.status_code, problem["field"], problem["limit"]) == (status, field, limit)
    assert backend.clips == []


def test_a_strangers_video_is_unknown_and_no_key_is_no_way_in(tmp_path: Path) -> None:
    alice, bob = new_key()[0], new_key()[0]
    (tmp_path / "keys.yaml").write_text("keys:\n" + line("alice", alice) + line("bob", bob))
    settings = Ingress(max_body_bytes=100_000, access=Access(keys_file=tmp_path / "keys.yaml"))

    async def talk(http: httpx.AsyncClient) -> list[httpx.Response]:
        sent = await http.post(ROUTE, files={"video": ("a.mp4", b"alice's")}, headers=bearer(alice))
        hers = {"video": {"id": sent.json()["video"]["id"]}}
        others = [bearer(alice), bearer(bob), {}]
        return [sent, *[await http.post(ROUTE, json=hers, headers=headers) for headers in others]]

    responses = ask(tmp_path, talk, settings=settings)
    assert [response.status_code for response in responses] == [200, 200, 404, 401]
    assert responses[2].json()["code"] == "unknown_video"


def test_a_full_stage_says_429_before_the_body_and_leaves_questions_alone(tmp_path: Path) -> None:
    """One replica: two under way, and the queue has one place."""
    read = []

    async def large() -> AsyncGenerator[bytes, None]:
        read.append(1)
        yield b"{"

    backend = Shaping(waits=True)

    async def talk(http: httpx.AsyncClient) -> None:
        waiting = [asyncio.create_task(http.post(ROUTE, json=BY_ID)) for _ in range(3)]
        await until(lambda: len(backend.clips) == 2)
        for _ in range(500):
            if 'dsr_reconstruction_requests{state="waiting"} 1.0' in (await http.get("/metrics")).text:
                break
            await asyncio.sleep(0.01)
        refused = await http.post(ROUTE, content=large(), headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert not read
        streamed = await http.post("/v1/answers", json={**BY_ID, "question": "?", "stream": True})
        assert "event: answer" in streamed.text
        backend.go.set()
        assert [(await task).status_code for task in waiting] == [200, 200, 200]

    ask(tmp_path, talk, backend, settings=Ingress(admission=Admission(waiting=1)))


def test_work_ends_at_the_deadline_that_the_request_names(tmp_path: Path) -> None:
    backend = Shaping(waits=True)

    async def talk(http: httpx.AsyncClient) -> httpx.Response:
        response = await http.post(ROUTE, json={**BY_ID, "timeout": 0.05})
        await asyncio.wait_for(backend.left.wait(), 5)
        return response

    response = ask(tmp_path, talk, backend)
    assert (response.status_code, response.json()["code"], response.json()["limit"]) == (504, "deadline_exceeded", 0.05)


def test_a_reconstruction_is_counted_by_stage(tmp_path: Path) -> None:
    async def talk(http: httpx.AsyncClient) -> str:
        await http.post(ROUTE, json=BY_ID)
        return (await http.get("/metrics")).text

    text = ask(tmp_path, talk)
    assert 'dsr_stage_seconds_sum{stage="reconstructor"}' in text
    assert 'dsr_cache_results_total{result="miss",stage="reconstructor"}' in text
    assert f'dsr_requests_total{{route="{ROUTE}",status="200"}}' in text
