"""The command: its figures, going on after a stop, and what it says of questions that cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Draw, make_clip, square
from training.evaluate.__main__ import main
from training.evaluate.answerers import InProcess
from training.evaluate.answers import Answered, Refused
from training.evaluate.published import PUBLISHED
from training.evaluate.rows import KINDS, Job

TINY = "models/tiny"
OPTIONS = ("(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind.")
TYPES = ("abs_dir", "rel_dir_pred")


def ask(folder: Path, names: Sequence[str]) -> Path:
    """Two questions about each video, one of them a prediction."""
    records = [
        {"videoID": name, "question": f"How does {name} move?", "options": OPTIONS, "answer": "B", "type": type_}
        for name in names
        for type_ in TYPES
    ]
    (folder / "questions.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and six questions about them."""
    folder = tmp_path_factory.mktemp("set")
    for fps, name in enumerate(("one", "two", "three"), start=8):
        make_clip(folder / f"{name}.mp4", seconds=2, fps=fps)
    return ask(folder, ("one", "two", "three"))


def command(folder: Path, out: Path, *more: str) -> list[str]:
    cache = str(out.parent / "cache")
    files = ["--records", str(folder / "questions.json"), "--videos", str(folder), "--json", str(out)]
    return ["--checkpoint", TINY, *files, "--cache", cache, *more]


def lines(out: Path) -> list[str]:
    return out.with_suffix(".jsonl").read_text().splitlines(keepends=True)


def test_the_report_has_every_row_beside_the_accuracy(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--benchmark", str(asked / "questions.json"), "--videos", str(asked), "--cache", str(tmp_path / "cache")]
    assert main(["--checkpoint", TINY, *files, "--json", str(tmp_path / "e.json")]) == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["items"] == 6
    assert {of: row["items"] for of, row in report["types"].items()} == {"abs_dir": 3, "rel_dir_pred": 3}
    assert set(report["ablations"]) == {"geometry off", "geometry of another clip"}
    assert {"other video", "grey video", "rule: smoothest", "commonest letter"} <= set(report["blind"])
    assert report["blind"]["commonest letter"] == 1.0
    assert all(row["items"] == 6 for row in report["rows"].values())
    low, high = report["interval"]
    assert 0 <= low <= report["accuracy"] <= high <= 1
    assert report["left_out"] == {"text-only classifier": "it needs 200 questions"}
    assert {"text, first letter", "text, only a letter"} <= report["rows"].keys()
    assert report["published"]["rows"]["GSM + 50K"]["abs_dir"] == 73.8
    assert "2512.20557" in report["published"]["source"]
    assert report["subset"]["items"] == len(report["subset"]["ids"]) == 6
    shown = capsys.readouterr().out
    assert all(f"published: {name}" in shown for name in PUBLISHED)
    assert shown.index("answers |") < shown.index("blind: other video") < shown.index("ablations: geometry off")


def test_accuracy_is_what_the_kept_answers_say(asked: Path, tmp_path: Path) -> None:
    assert main(command(asked, tmp_path / "e.json", "--rows", "geometry off")) == 0
    answers = [json.loads(line) for line in lines(tmp_path / "e.json")[1:]]
    report = json.loads((tmp_path / "e.json").read_text())
    for row in ("answers", "geometry off"):
        own = [answer["probabilities"] for answer in answers if answer["row"] == row]
        assert len(own) == 6
        right = sum(max(p) == p[1] for p in own) / 6
        assert report["rows"][row]["accuracy"] == pytest.approx(right)
    assert "grey video" not in report["blind"]
    assert "rule: smoothest" in report["blind"], "blind rows that cost nothing are always there"


def test_a_stopped_run_goes_on_and_another_setup_is_refused(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, out = tmp_path / "whole.json", tmp_path / "e.json"
    assert main(command(asked, uninterrupted)) == 0
    answer = InProcess.answer
    asked_for: list[tuple[str, str]] = []

    def stopped_after_eleven(self: InProcess, jobs: Sequence[Job]) -> Iterator[Answered | Refused]:
        for number, answered in enumerate(answer(self, jobs)):
            if number == 11:
                raise KeyboardInterrupt
            yield answered

    def noted(self: InProcess, jobs: Sequence[Job]) -> Iterator[Answered | Refused]:
        asked_for.extend((job.row, job.id) for job in jobs)
        return answer(self, jobs)

    monkeypatch.setattr(InProcess, "answer", stopped_after_eleven)
    assert main(command(asked, out)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    kept = lines(out)
    assert len(kept) == 12
    out.with_suffix(".jsonl").write_text("".join(kept[:-1]) + kept[-1][:20])  # killed while it wrote

    monkeypatch.setattr(InProcess, "answer", noted)
    assert main(command(asked, out)) == 0
    assert len(asked_for) == len(set(asked_for)) == 5 * 6 - 10
    assert out.read_text() == uninterrupted.read_text()
    assert len(lines(out)) == 1 + 5 * 6

    assert main(command(asked, out, "--items", "2")) == 2
    assert "items was None, is 2" in capsys.readouterr().err
    assert main(command(asked, out, "--frames", "8")) == 2
    assert "frames was 32, is 8" in capsys.readouterr().err


def hiding(change: bool) -> Draw:
    """Frames from 1.8 s on look different."""
    draw = square((112, 84))
    return lambda time: 255 - draw(time) if change and time > 1.75 else draw(time)


def test_hidden_frames_change_no_prediction_and_only_them(tmp_path: Path) -> None:
    """Each frame is encoded by itself, so that two videos are the same up to the first hidden frame."""
    given: list[dict[str, list[float]]] = []
    for change in (False, True):
        folder = tmp_path / str(change)
        folder.mkdir()
        make_clip(folder / "v.avi", container="avi", seconds=2, fps=10, gop=1, draw=hiding(change))
        assert main(command(ask(folder, ["v"]), folder / "e.json", "--rows")) == 0
        answers = [json.loads(line) for line in lines(folder / "e.json")[1:]]
        given.append({answer["id"]: answer["probabilities"] for answer in answers})
    (usual, altered), (plain, prediction) = given, sorted(given[0])
    assert usual[prediction] == altered[prediction]
    assert usual[plain] != altered[plain], "the other question does see them"


def test_missing_and_broken_videos_and_rows_are_reported_and_not_counted_as_wrong(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "one.mp4").write_bytes((asked / "one.mp4").read_bytes())
    (folder / "broken.mp4").write_bytes(b"no video at all")
    ask(folder, ("one", "gone", "broken"))
    records = json.loads((folder / "questions.json").read_text())
    records[1]["answer"] = "Z"
    (folder / "questions.json").write_text(json.dumps(records))
    assert main(command(folder, tmp_path / "e.json")) == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["items"] == 1
    missing = report["missing_videos"]
    assert {name: video["questions"] for name, video in missing.items()} == {"gone": 2, "broken": 2}
    assert missing["gone"]["why"] == "there is no such file"
    assert "not a video" in missing["broken"]["why"]
    assert report["unusable_questions"] == ["row 1: one: answer 'Z' is none of ABCD"]
    assert report["left_out"]["other video"] == "there is only one video"
    shown = capsys.readouterr().out
    assert "2 videos are missing or unreadable, 4 questions with them: broken, gone." in shown
    assert "1 rows are no questions" in shown


def test_scenes_are_measured_from_a_count_and_a_seed(tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    where = ["--json", str(out), "--cache", str(tmp_path / "cache"), "--rows", "grey video", "--items", "6"]
    assert main(["--checkpoint", TINY, "--scenes", "4", "--seed", "5", "--per-scene", "24", *where]) == 0
    report = json.loads(out.read_text())
    assert report["items"] == 6
    assert (report["setup"]["scenes"], report["setup"]["seed"], report["setup"]["train"]) == (4, 5, False)
    assert not report["missing_videos"]


def test_a_pinned_run_asks_the_same_questions_or_says_why_it_cannot(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert main(command(asked, first, "--rows", "--items", "3")) == 0
    subset = json.loads(first.read_text())["subset"]
    assert subset["ids"] == ["0/one", "2/two", "5/three"]
    assert "3 questions, evenly from the whole file" in subset["rule"]
    assert main(command(asked, second, "--rows", "--pin", str(first))) == 0
    report = json.loads(second.read_text())
    assert (report["subset"], report["items"]) == (subset, 3)
    assert f"sha256 {subset['sha256'][:16]}" in capsys.readouterr().out

    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.mp4").write_bytes((asked / f"{name}.mp4").read_bytes())
    ask(folder, ("one", "two", "three"))
    assert main(command(folder, tmp_path / "e.json", "--rows", "--pin", str(first))) == 2
    assert (
        "1 of 3 pinned questions cannot be asked, the first 5/three: there is no such file" in capsys.readouterr().err
    )
    (folder / "three.mp4").write_bytes((asked / "three.mp4").read_bytes())
    records = json.loads((folder / "questions.json").read_text())
    records[2]["answer"] = "A"
    (folder / "questions.json").write_text(json.dumps(records))
    assert main(command(folder, tmp_path / "e.json", "--rows", "--pin", str(first))) == 2
    assert "the pinned questions have changed" in capsys.readouterr().err


def test_another_benchmark_is_measured_by_its_own_rules(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scannet").mkdir()
    for name in ("one", "two"):
        (tmp_path / "scannet" / f"{name}.mp4").write_bytes((asked / f"{name}.mp4").read_bytes())
    where: dict[str, Any] = {"dataset": "scannet", "question": "How many, or where?"}
    rows = [
        where | {"scene_name": "one", "question_type": "object_counting", "ground_truth": truth, "options": None}
        for truth in ("2", "4")
    ]
    rows += [
        where | {"scene_name": "two", "question_type": type_, "ground_truth": "A", "options": ["A. left", "B. right"]}
        for type_ in ("object_rel_direction_easy", "object_rel_direction_hard")
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--benchmark", str(tmp_path / "test.jsonl"), "--layout", "vsi-bench", "--videos", str(tmp_path)]
    out = tmp_path / "e.json"
    more = ["--json", str(out), "--cache", str(tmp_path / "cache"), "--rows", "grey video", "text, first letter"]
    assert main(["--checkpoint", TINY, *files, *more]) == 0
    report = json.loads(out.read_text())
    assert (report["items"], report["chance"], report["published"]) == (4, 0.5, None)
    assert report["rows"]["text, first letter"]["items"] == 2, "a number has no letter"
    assert report["rows"]["median number"]["types"]["object_counting"] == {"accuracy": 0.05, "items": 2}
    assert report["rows"]["rule: longest"]["accuracy"] == 0.0
    answers = report["rows"]["answers"]
    directions = [answers["types"][f"object_rel_direction_{level}"]["accuracy"] for level in ("easy", "hard")]
    counted = answers["types"]["object_counting"]["accuracy"]
    assert answers["over_types"] == pytest.approx((sum(directions) / 2 + counted) / 2)
    shown = capsys.readouterr().out
    assert "Averaged over types, as is published: answers " in shown
    assert "published: " not in shown.partition("Averaged over types")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "no.json", "--videos", "."], "no.json"),
        (["--records", "no.json"], "need --videos"),
        (["--records", "no.json", "--videos", ".", "--items", "3", "--pin", "r.json"], "--items cannot, too"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", TINY, *arguments, "--json", str(tmp_path / "e.json")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("evaluate: ")
    assert message in said


def test_rows_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
