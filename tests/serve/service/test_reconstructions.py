"""Reconstructions by the real service: its own replica of π³, Ray between the stages, real encoded videos."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

pytest.importorskip("ray")

from models import checkpoint
from models.scene import scene_of
from models.video import Sampling, read
from models.vlm import VisionLanguageModel, clip_frames
from tests.clips import make_clip
from tests.serve.service.asking import PI3, ROUGH, ask_by_id
from tests.serve.test_scene_files import read_glb, read_ply

ROUTE = "/v1/reconstructions"
# Of the largest magnitude: float32 in another process, in groups of another size, with another number of threads.
FLOAT32 = 1e-4


def test_a_video_becomes_the_cameras_and_points_of_pi3(service: httpx.Client, model: VisionLanguageModel) -> None:
    video = make_clip(None, seconds=1, fps=8, size=(112, 84))
    response = service.post(ROUTE, data={"frames": 4, "points": 1000}, files={"video": ("clip.mp4", video)})
    assert response.status_code == 200, response.text
    told = response.json()
    assert told["cache"] == {"frames": "miss", "reconstructor": "miss"}
    assert set(told["spans"]) == {"frames", "reconstructor"}

    clip = read(io.BytesIO(video).getvalue(), Sampling.of(model.config.frames, count=4))
    shown = clip_frames(clip)[: clip.sampled]
    with torch.inference_mode():
        found = checkpoint.load_pi3(Path(PI3))(shown.permute(0, 3, 1, 2)[None].float() / 255)
    expected = scene_of(found, shown, 1000, max_step=ROUGH)
    poses = np.array([camera["pose"] for camera in told["cameras"]])
    assert np.abs(poses - expected.poses.numpy()).max() <= FLOAT32 * expected.poses.abs().max()
    assert [camera["time"] for camera in told["cameras"]] == clip.times[: clip.sampled].tolist()
    packed = told["points"]["positions"]
    positions = np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])
    assert positions.shape == (1000, 3)
    assert np.isfinite(positions).all()

    by_id = {"video": {"id": told["video"]["id"]}, "frames": 4, "points": 1000}
    as_ply = service.post(ROUTE, json=by_id, headers={"accept": "model/ply"})
    vertices = read_ply(as_ply.content)
    assert np.array_equal(np.stack([vertices[name] for name in "xyz"], axis=1), positions)
    document, _ = read_glb(service.post(ROUTE, json={**by_id, "format": "glb"}).content)
    assert len(document["nodes"]) == 2 + 4


def test_another_number_of_points_is_a_hit_and_frames_are_shared_with_questions(service: httpx.Client) -> None:
    video = make_clip(None, seconds=1, fps=9, size=(112, 84))
    uploaded = service.post("/v1/videos", files={"video": ("clip.mp4", video)}).json()["id"]
    assert ask_by_id(service, uploaded).status_code == 200
    first = service.post(ROUTE, json={"video": {"id": uploaded}}).json()
    assert first["cache"] == {"frames": "hit", "reconstructor": "miss"}
    again = service.post(ROUTE, json={"video": {"id": uploaded}, "points": 7}).json()
    assert (again["cache"], again["points"]["count"]) == ({"reconstructor": "hit"}, 7)
    assert service.delete(f"/v1/videos/{uploaded}").status_code == 204
    gone = service.post(ROUTE, json={"video": {"id": uploaded}, "points": 7})
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_video")


def test_what_is_no_video_is_refused_and_not_kept(service: httpx.Client) -> None:
    held = {video["id"] for video in service.get("/v1/videos", params={"limit": 100}).json()["videos"]}
    response = service.post(ROUTE, files={"video": ("clip.mp4", b"no video at all, only a text that goes on")})
    assert (response.status_code, response.json()["code"]) == (415, "not_a_video")
    assert {video["id"] for video in service.get("/v1/videos", params={"limit": 100}).json()["videos"]} == held
