"""Over HTTP: the same answers as in process, patience with a busy service, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.clips import make_clip
from tests.training.evaluate.served import running
from training.data.seen import Files, View
from training.data.sets import of_records
from training.evaluate.answerers import InProcess
from training.evaluate.answers import Answered, Refused
from training.evaluate.rows import FIRST_LETTER, KINDS, Job, Scope
from training.evaluate.service import Service

TINY = "models/tiny"
OPTIONS = ("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind.")

Handle = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Every row that a service can be asked for, about three videos of which one is larger than the model's frames."""
    for name, size in (("one", (112, 84)), ("two", (56, 112)), ("three", (320, 180))):
        make_clip(tmp_path / f"{name}.mp4", seconds=2.1, fps=10, size=size)
    records = [
        {"videoID": name, "question": f"And {name}?", "options": OPTIONS[:count], "answer": "B", "type": type_}
        for name in ("one", "two", "three")
        for count, type_ in ((4, "abs_dir"), (3, "rel_dir_pred"))
    ]
    (tmp_path / "q.json").write_text(json.dumps(records))
    files = Files(tmp_path / "views", 32)
    samples = of_records(tmp_path / "q.json", tmp_path).samples
    scope = Scope(samples, {sample.id: files.of(sample.path, sample.record) for sample in samples}, files)
    return [job for kind in KINDS if kind.over_http for job in kind.jobs(scope)]


def test_the_service_gives_the_answers_of_the_model_in_process(tmp_path: Path, jobs: list[Job]) -> None:
    with running(TINY, tmp_path / "store") as url, Service(url) as served:
        assert served.model == "dsr-tiny"
        far = {(answer.row, answer.id): answer for answer in served.answer(jobs)}
    near = {(answer.row, answer.id): answer for answer in InProcess(TINY).answer(jobs)}
    assert far.keys() == near.keys()
    assert len(far) == len(jobs) == 5 * 6
    for key, answer in near.items():
        other = far[key]
        assert isinstance(answer, Answered)
        assert isinstance(other, Answered)
        assert other.text == answer.text
        assert bool(answer.probabilities) == (answer.row != FIRST_LETTER)
        if not answer.probabilities:
            continue
        assert other.choice == answer.choice
        # float32; here questions are computed together, there one by one
        assert other.probabilities == pytest.approx(answer.probabilities, abs=1e-4)


def test_what_is_the_video_s_fault_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    make_clip(tmp_path / "v.mp4", seconds=1, fps=10)
    asked = [
        Job("answers", path.stem, "?", OPTIONS, View(path, 8), View(path, 8))
        for path in (tmp_path / "broken.mp4", tmp_path / "v.mp4")
    ]
    with running(TINY, tmp_path / "store") as url, Service(url) as served:
        refused, answered = served.answer(asked)
    assert isinstance(refused, Refused)
    assert refused.why.startswith("415 ")
    assert isinstance(answered, Answered)
    refused, answered = InProcess(TINY).answer(asked)
    assert isinstance(refused, Refused)
    assert isinstance(answered, Answered)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "v.mp4").write_bytes(b"bytes")
    view = View(tmp_path / "v.mp4", 8)
    return Job("answers", "1", "?", ("a", "b"), view, view)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in seconds."""
    waited: list[float] = []
    monkeypatch.setattr("training.evaluate.service.time.sleep", waited.append)
    return waited


def talking_to(handle: Handle) -> Service:
    return Service(
        "http://service", client=httpx.Client(base_url="http://service", transport=httpx.MockTransport(handle))
    )


def good(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/readyz":
        return httpx.Response(200, json={"model": "m"})
    if request.url.path == "/v1/videos":
        return httpx.Response(201, json={"id": "vid_1"})
    return httpx.Response(200, json={"probabilities": {"B": 0.75, "A": 0.25}})


def test_a_busy_service_is_asked_again_when_it_says_and_a_video_is_sent_once(job: Job, waits: list[float]) -> None:
    seen: list[str] = []
    bodies: list[dict[str, object]] = []
    busy = (
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503, headers={"Retry-After": "a date"}),
    )
    troubles: Iterator[httpx.Response | httpx.ConnectError] = iter([*busy, httpx.ConnectError("refused")])

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        trouble = next(troubles, None) if request.url.path == "/v1/videos" else None
        if isinstance(trouble, httpx.ConnectError):
            raise trouble
        if request.url.path == "/v1/answers":
            bodies.append(json.loads(request.content))
        return trouble or good(request)

    with talking_to(handle) as served:
        off = Job("geometry off", "2", "?", ("a", "b"), job.view, None)
        answers = list(served.answer([job, off]))
    assert answers == [Answered("answers", "1", (0.25, 0.75)), Answered("geometry off", "2", (0.25, 0.75))]
    assert seen.count("/v1/videos") == 4
    assert waits == [7.0, 2.0, 4.0]
    asked = {"video": {"id": "vid_1"}, "question": "?", "options": ["a", "b"], "frames": 8}
    assert sorted(bodies, key=len) == [asked, asked | {"geometry": "off"}]


def test_a_video_that_the_service_has_forgotten_is_sent_again(job: Job) -> None:
    sent: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        if sent.count("/v1/answers") == 1 and request.url.path == "/v1/answers":
            return httpx.Response(404, json={"detail": "no video of this id"})
        return good(request)

    with talking_to(handle) as served:
        assert list(served.answer([job])) == [Answered("answers", "1", (0.25, 0.75))]
    assert sent == ["/readyz", *["/v1/videos", "/v1/answers"] * 2]


def test_an_error_of_the_service_ends_the_evaluation_with_its_words(job: Job) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": "no such key"}) if "v1" in request.url.path else good(request)

    with talking_to(handle) as served, pytest.raises(RuntimeError, match=r"POST http://service/v1/videos: 401 no such"):
        list(served.answer([job]))


def test_no_service_is_told_soon(waits: list[float]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(RuntimeError, match=r"GET http://service/readyz: no reply \(connection refused\)"):
        talking_to(handle).__enter__()
    assert waits == [1.0, 2.0]
