"""The real client against the real service: Ray Serve on loopback, the embedded checkpoint, encoded videos."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dsr_client
import httpx
import numpy as np
import pytest
from dsr_client import (
    Answer,
    BadRequest,
    Client,
    NotAVideo,
    Token,
    TooLarge,
    UnknownVideo,
    Unprocessable,
    Video,
)
from PIL import Image

from tests.clients.conftest import Connect
from tests.clips import make_clip

ray = pytest.importorskip("ray")

from serve.local import read_settings, running, wait_until_ready  # noqa: E402
from serve.settings import ReconstructorStage  # noqa: E402
from tests.typed import typed  # noqa: E402

QUESTION = "How does the distance between the white square and the camera change?"
OPTIONS = ["Become larger.", "Become smaller.", "Keep nearly constant."]
STAGES = {"frames", "encoder", "selector", "decoder"}
SOURCE = str(Path(dsr_client.__file__).parents[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The laptop's settings, but in float32, with a store of its own, a small body limit and a reconstructor of random
    weights, which have no smooth surface: with the usual limit every pixel would lie at an edge."""
    store = {"url": str(tmp_path_factory.mktemp("store")), "max_bytes": 50_000_000}
    settings = typed(read_settings(Path("deploy/serve-local.yaml"), store=store))
    ingress = settings.ingress.model_copy(update={"max_body_bytes": 3_000_000})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    stage = ReconstructorStage(checkpoint="tests/golden/pi3", cpus=0.1, threads=1, max_step=1000.0)
    with running(settings.model_copy(update={"ingress": ingress, "reconstructor": stage}), port) as url:
        wait_until_ready(url)
        yield url


@pytest.fixture
def client(connect: Connect, url: str) -> Client:
    return connect(url, timeout=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    make_clip(path, seconds=2, fps=10, size=(320, 180))
    return path


def test_every_kind_of_video_gets_the_same_answer(client: Client, clip: Path) -> None:
    uploaded = client.upload(clip)
    assert (uploaded.width, uploaded.height, uploaded.frames) == (320, 180, 20)
    assert uploaded.bytes == clip.stat().st_size
    with clip.open("rb") as file:
        answers = [
            client.ask(video, QUESTION, OPTIONS)
            for video in (uploaded, uploaded.id, clip, str(clip), clip.read_bytes(), file)
        ]
    first = answers[0]
    assert first.choice is not None
    assert first.choice.text == OPTIONS["ABC".index(first.choice.letter)]
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-3)
    for answer in answers:
        # Batches of other sizes round differently.
        assert answer.probabilities == pytest.approx(first.probabilities, abs=1e-3)
        assert answer.video.id == uploaded.id
        assert answer.usage.geometry_tokens == 32
        assert set(answer.timings) == set(answer.cache) <= STAGES
        assert answer.request_id
    assert answers[-1].cache["decoder"] == "hit"


def test_an_answer_has_every_field_that_the_client_knows_and_no_other(client: Client, clip: Path) -> None:
    answer = client.ask(clip, QUESTION, OPTIONS, explain=True)
    known = set(Answer.__dataclass_fields__) - {"raw", "request_id"}
    assert set(answer.raw) == known
    assert set(answer.raw["video"]) == set(Video.__dataclass_fields__) - {"raw", "bytes"}
    assert set(client.upload(clip).raw) == set(Video.__dataclass_fields__) - {"raw"}


def test_base64_is_the_same_to_the_service(client: Client, url: str, clip: Path) -> None:
    data = base64.b64encode(clip.read_bytes()).decode()
    body = {"video": {"data": data}, "question": QUESTION, "options": OPTIONS}
    answer = Answer.of(httpx.post(f"{url}/v1/answers", json=body, timeout=60).json())
    assert answer.probabilities == pytest.approx(client.ask(clip, QUESTION, OPTIONS).probabilities, abs=1e-3)


def test_every_parameter_is_taken_in_both_shapes(client: Client, clip: Path) -> None:
    for video in (clip, clip.read_bytes()):
        answer = client.ask(
            video, QUESTION, frames=4, max_tokens=3, temperature=1.5, top_p=0.9, stop=["#"], seed=-7, geometry="off"
        )
        assert (answer.choice, answer.video.frames, answer.usage.geometry_tokens) == (None, 4, 0)
        assert 1 <= answer.usage.completion_tokens <= 3


def test_stages_say_when_they_worked(client: Client, kind: str, tmp_path: Path) -> None:
    new = tmp_path / "new.mp4"
    make_clip(new, seconds={"sync": 1.1, "async": 1.3}[kind], fps=10, size=(160, 120))  # a clip that no cache knows
    start = time.monotonic()
    answer = client.ask(new.read_bytes(), QUESTION, OPTIONS)
    took = time.monotonic() - start
    assert STAGES >= set(answer.spans) >= {"decoder", "selector"}
    for stage, span in answer.spans.items():
        assert 0 <= span.start <= span.end <= took + 0.05, (stage, span, took)


def test_a_stream_says_what_the_answer_says(client: Client, clip: Path) -> None:
    whole = client.ask(clip, QUESTION, max_tokens=12)
    for video in (clip, clip.read_bytes()):
        with client.stream(video, QUESTION, max_tokens=12) as events:
            *tokens, last = list(events)
        assert isinstance(last, Answer)
        assert last.text == whole.text
        assert "".join(token.text for token in tokens if isinstance(token, Token)) == last.text
        assert last.usage.completion_tokens == whole.usage.completion_tokens
    choice = client.stream(clip, QUESTION, OPTIONS).answer()
    assert choice.choice is not None
    assert choice.probabilities == pytest.approx(client.ask(clip, QUESTION, OPTIONS).probabilities, abs=1e-3)


def test_a_stream_that_is_closed_early_leaves_the_service_well(client: Client, clip: Path) -> None:
    for _ in range(3):
        with client.stream(clip, QUESTION, max_tokens=200, temperature=2.0, seed=1) as events:
            assert isinstance(next(events), Token | Answer)
    assert client.ask(clip, QUESTION, OPTIONS).choice is not None


def test_an_explanation_is_a_share_of_every_patch_and_can_be_drawn(client: Client, clip: Path, tmp_path: Path) -> None:
    answer = client.ask(clip, QUESTION, OPTIONS, explain=True)
    explanation = answer.explanation
    assert explanation is not None
    assert len(explanation.times) == explanation.grid[0]
    assert sorted(explanation.times) == list(explanation.times)
    assert 0 <= explanation.times[0] <= explanation.times[-1] <= answer.video.duration
    assert sum(explanation.over_time()) == pytest.approx(1, abs=1e-3)
    with Image.open(explanation.save_strip(clip, tmp_path / "strip.png")) as strip:
        assert strip.height > 200
    assert client.ask(clip, QUESTION, OPTIONS).explanation is None


def test_videos_are_listed_looked_up_and_deleted(client: Client, tmp_path: Path) -> None:
    before = {video.id for video in client.videos.list()}
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.mp4"
        make_clip(path, seconds=0.5 + number / 10, fps=10, size=(96, 96))
        made.append(client.upload(path))
    pages = list(client.videos.list(limit=2))
    assert len(pages) == len({video.id for video in pages}), "no video stands on two pages"
    assert {video.id for video in pages} == before | {video.id for video in made}
    assert client.videos.get(made[0].id) == made[0] == next(video for video in pages if video.id == made[0].id)
    for video in made:
        client.videos.delete(video)
    assert {video.id for video in client.videos.list()} == before
    for call in (client.videos.get, client.videos.delete):
        with pytest.raises(UnknownVideo):
            call(made[0])


def test_a_file_that_the_service_dropped_is_uploaded_again(client: Client, url: str, tmp_path: Path) -> None:
    path = tmp_path / "dropped.mp4"
    make_clip(path, seconds=0.9, fps=10, size=(96, 96))
    first = client.ask(path, QUESTION, OPTIONS)
    assert httpx.delete(f"{url}/v1/videos/{first.video.id}", timeout=30).status_code == 204
    again = client.ask(path, QUESTION, OPTIONS)
    assert again.video.id == first.video.id
    assert client.videos.get(first.video.id).id == first.video.id
    assert httpx.delete(f"{url}/v1/videos/{first.video.id}", timeout=30).status_code == 204
    assert client.stream(path, QUESTION, OPTIONS).answer().probabilities == pytest.approx(first.probabilities, abs=1e-3)


def test_errors_arrive_with_code_field_value_and_limit(client: Client, clip: Path) -> None:
    with pytest.raises(UnknownVideo) as unknown:
        client.ask("vid_" + "0" * 64, QUESTION)
    assert (unknown.value.status, unknown.value.code, unknown.value.field) == (404, "unknown_video", "video.id")
    with pytest.raises(UnknownVideo):
        client.stream("vid_" + "0" * 64, QUESTION).answer()
    for call in (client.ask, lambda *given, **more: client.stream(*given, **more).answer()):
        with pytest.raises(Unprocessable, match="frames") as limits:
            call(clip, QUESTION, frames=100_000)
        error = limits.value
        assert (error.code, error.field, error.value, error.limit) == ("out_of_limits", "frames", 100_000, 256)
        assert error.request_id
    with pytest.raises(NotAVideo):
        client.upload(b"this is no video at all, only text that goes on for a while")
    with pytest.raises(BadRequest) as url_given:
        client.ask("http://127.0.0.1/x.mp4", QUESTION)
    assert (url_given.value.code, url_given.value.field) == ("not_supported", "video.url")
    with pytest.raises(TooLarge) as large:
        client.upload(b"x" * 3_100_000)
    assert large.value.limit == 3_000_000


def test_the_service_takes_the_clients_request_id(client: Client) -> None:
    with pytest.raises(UnknownVideo) as caught:
        client.videos.get("vid_" + "0" * 64)
    assert re.fullmatch(r"req_[0-9a-f]{24}", caught.value.request_id or "")


def test_health_names_model_and_stages(client: Client) -> None:
    health = client.health()
    assert (health.ready, health.model, set(health.stages)) == (True, "dsr-tiny", STAGES | {"reconstructor"})


def test_a_clip_is_reconstructed_and_saved_as_the_service_writes_it(
    client: Client, url: str, clip: Path, tmp_path: Path
) -> None:
    scene = client.reconstruct(clip, points=300, frames=4)
    assert (len(scene.points), len(scene.cameras)) == (300, 4)
    assert scene.cameras[0].position == (0, 0, 0)
    assert np.isfinite(np.asarray(scene.points.positions)).all()
    again = client.reconstruct(clip.read_bytes(), points=300, frames=4)
    assert again.cache == {"reconstructor": "hit"}
    assert again.points == scene.points
    for kind in ("ply", "glb"):
        asked = {"video": {"id": scene.video.id}, "points": 300, "frames": 4, "format": kind}
        written = httpx.post(f"{url}/v1/reconstructions", json=asked, timeout=60).content
        assert scene.save(tmp_path / f"scene.{kind}").read_bytes() == written
    with pytest.raises(Unprocessable, match="at most 64 are reconstructed together") as limits:
        client.reconstruct(clip, frames=65)
    assert (limits.value.field, limits.value.limit) == ("frames", 64)


def test_the_command_answers_benches_and_deletes(url: str, clip: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DSR_URL": url, "PYTHONPATH": SOURCE}

    def dsr(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dsr_client", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    options = [word for option in OPTIONS for word in ("-o", option)]
    asked = dsr("ask", str(clip), QUESTION, *options, "--explain", str(tmp_path / "strip.png"))
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.count("→") == 1
    assert (tmp_path / "strip.png").stat().st_size > 1000
    free = json.loads(dsr("ask", str(clip), QUESTION, "--max-tokens", "6", "--json").stdout)
    streamed = dsr("ask", str(clip), QUESTION, "--max-tokens", "6", "--stream")
    assert streamed.stdout.startswith(free["text"])
    report = json.loads(dsr("bench", str(clip), QUESTION, *options, "-n", "8", "-c", "4", "--json").stdout)
    assert (report["answered"], report["failures"]) == (8, {})
    assert report["cache_hits"]["decoder"] == 1
    saved = dsr("reconstruct", str(clip), "--out", str(tmp_path / "scene.glb"), "--points", "50", "--frames", "2")
    assert (saved.returncode, saved.stderr) == (0, "")
    assert "50 of" in saved.stdout
    assert (tmp_path / "scene.glb").read_bytes().startswith(b"glTF")
    refused = dsr("ask", str(clip), QUESTION, "--frames", "100000")
    assert refused.returncode == 1
    assert refused.stderr.startswith("dsr: Out of limits: frames")
    assert dsr("videos", "delete", free["video"]["id"]).returncode == 0
    assert free["video"]["id"] not in dsr("videos").stdout


def test_the_readmes_example_runs_against_the_service(
    url: str, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.findall(r"```python\n(.*?)```", Path("clients/python/README.md").read_text(), re.S)[0]
    monkeypatch.chdir(clip.parent)
    exec(compile(example.replace("http://127.0.0.1:8000", url), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert set(ast.literal_eval(said[said.index("{") :])) == {"A", "B"}
