"""The command: figures, blind rows, going on after a stop, and the same answers over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.video import Sampling, read
from tests.clips import make_clip
from training.data.sets import Sample, of_records
from training.evaluate.__main__ import main
from training.evaluate.answerers import Answered, InProcess, Job, Service
from training.evaluate.kept import Kept
from training.evaluate.report import PUBLISHED, Report
from training.evaluate.rows import KINDS, grey, other_videos
from training.questions.records import Record

TINY = "models/tiny"
OPTIONS = ("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind.")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and six questions about them."""
    folder = tmp_path_factory.mktemp("set")
    for name in ("one", "two", "three"):
        (folder / f"{name}.mp4").write_bytes(make_clip(seconds=2, fps=10))
    records = [
        {"videoID": name, "question": f"How does {name} move?", "options": OPTIONS, "answer": "B", "type": type_}
        for name in ("one", "two", "three")
        for type_ in ("abs_dir", "rel_dir_pred")
    ]
    (folder / "questions.json").write_text(json.dumps(records))
    return folder


def command(asked: Path, out: Path, *more: str) -> list[str]:
    cache = str(out.parent / "cache")
    files = ["--records", str(asked / "questions.json"), "--videos", str(asked), "--json", str(out), "--cache", cache]
    return ["--checkpoint", TINY, *files, *more]


def test_the_report_has_every_row_beside_the_accuracy(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(asked, tmp_path / "e.json", "--published")) == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["items"] == 6
    assert report["types"]["abs_dir"]["items"] == report["types"]["rel_dir_pred"]["items"] == 3
    assert set(report["ablations"]) == {"geometry off", "geometry of another clip"}
    assert {"other video", "grey video", "rule: smoothest"} <= set(report["blind"])
    low, high = report["interval"]
    assert 0 <= low <= report["accuracy"] <= high <= 1
    shown = capsys.readouterr().out
    assert all(f"published: {name}" in shown for name in PUBLISHED)


def test_it_goes_on_where_it_was_stopped_and_refuses_another_setup(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "e.json"
    run = command(asked, out, "--rows", "answers", "--no-text-rows")
    assert main(run) == 0
    whole, lines = out.read_text(), out.with_suffix(".jsonl").read_text().splitlines(keepends=True)
    out.with_suffix(".jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    answered: list[str] = []
    answer = InProcess.answer

    def counted(self: InProcess, jobs: Sequence[Job]) -> Iterator[Answered]:
        answered.extend(job.id for job in jobs)
        return answer(self, jobs)

    monkeypatch.setattr(InProcess, "answer", counted)
    assert main(run) == 0
    assert len(answered) == 3
    assert out.read_text() == whole
    assert main([*run, "--items", "2"]) == 2
    assert "items was None, is 2" in capsys.readouterr().err


def test_hidden_frames_change_no_answer(asked: Path, tmp_path: Path) -> None:
    """Two videos that are the same until the last visible frame."""
    from training.scenes.clips import encode

    pictures = read(asked / "one.mp4", Sampling(count=32)).frames[:20]
    answers = []
    for name, last in (("same", pictures[-2:]), ("other", 255 - pictures[-2:])):
        folder = tmp_path / name
        folder.mkdir()
        encode(folder / "v.mp4", np.concatenate([pictures[:18], last]), np.arange(20) / 10)
        fields = {"videoID": "v", "question": "Where to?", "options": OPTIONS, "answer": "A", "type": "abs_dir_pred"}
        (folder / "q.json").write_text(json.dumps([fields]))
        model = InProcess(TINY)
        [sample] = of_records(
            folder / "q.json", folder, Sampling.of(model.model.config.frames, count=20), folder
        ).samples
        jobs = KINDS[0].jobs([sample], folder)
        answers.append(next(model.answer(jobs)).probabilities)
    assert answers[0] == pytest.approx(answers[1], abs=0.02)


def test_a_service_is_asked_again_when_it_is_busy_and_each_video_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"bytes")
    seen: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        if len(seen) == 1:
            return httpx.Response(429, headers={"Retry-After": "0"})
        if request.url.path == "/v1/videos":
            return httpx.Response(201, json={"id": "vid_1"})
        body = json.loads(request.content)
        assert body["video"] == {"id": "vid_1"}
        assert body["frames"] == 8
        return httpx.Response(200, json={"probabilities": {"B": 0.75, "A": 0.25}})

    with Service("http://service") as service:
        service.client = httpx.Client(base_url="http://service", transport=httpx.MockTransport(serve))
        jobs = [Job(str(n), tmp_path / "v.mp4", 8, "?", ("a", "b")) for n in range(2)]
        assert [answer.probabilities for answer in service.answer(jobs)] == [(0.25, 0.75)] * 2
    assert seen.count("/v1/videos") == 2
    assert seen.count("/v1/answers") == 2


def test_what_a_service_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"bytes")
    refusing = httpx.MockTransport(lambda _: httpx.Response(415, text="not a video"))
    with Service("http://service") as service:
        service.client = httpx.Client(base_url="http://service", transport=refusing)
        with pytest.raises(RuntimeError, match="POST http://service/v1/videos: 415 not a video"):
            list(service.answer([Job("1", tmp_path / "v.mp4", 8, "?", ("a", "b"))]))


def test_another_video_is_another_one_and_a_grey_one_is_as_long(asked: Path, tmp_path: Path) -> None:
    samples = of_records(asked / "questions.json", asked, Sampling(count=8), tmp_path).samples
    for path, other in other_videos(samples).items():
        assert path.stem.split("-first-")[0] != other.stem.split("-first-")[0]
    source, made = (read(path, Sampling(count=8)) for path in (samples[0].path, grey(samples[0].path, tmp_path)))
    assert made.frames.shape == source.frames.shape
    assert made.frames.std() < 2
    np.testing.assert_allclose(made.times, source.times, atol=0.02)


def test_a_table_never_shows_missing_videos_as_wrong_answers(tmp_path: Path) -> None:
    record = Record("v", "?", OPTIONS, "B", "abs_dis")
    samples = [Sample(str(n), record, tmp_path, 32) for n in range(4)]
    right = {"0": 1.0, "1": 1.0, "2": 0.0, "3": 1.0}
    report = Report(samples, {"answers": right}, {"answers": "accuracy"}, {}, {"gone": 7})
    assert report.as_dict()["accuracy"] == 0.75
    assert report.as_dict()["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert "1 videos are missing or unreadable, 7 questions with them: gone" in report.as_table()


def test_kept_answers_survive_a_cut_line(tmp_path: Path) -> None:
    with Kept(tmp_path / "a.jsonl", {"x": 1}) as kept:
        kept.add("answers", Answered("1", (0.2, 0.8)))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"row": "answers", "id"')
    with Kept(tmp_path / "a.jsonl", {"x": 1}) as kept:
        assert kept.has("answers", "1")
        assert kept.choice("answers", "1") == 1
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 2
