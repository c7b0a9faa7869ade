"""Question sets: the public formats, what is missing or unusable, and scenes that are made once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from models.video import Sampling
from tests.clips import make_clip
from training.data.rendered import QUESTIONS, Scenes
from training.data.sets import Missing, find, of_records
from training.questions.records import Record
from training.scenes import SceneConfig, Seeds

OPTIONS = ["(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind."]
SMALL = SceneConfig(frames=12, seconds=(1.6, 3.0), size=(56, 56))


def fields(video: str = "one", type_: str = "abs_dis", **more: Any) -> dict[str, Any]:
    return {"videoID": video, "question": f"{video}?", "options": OPTIONS, "answer": "B", "type": type_, **more}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("one.mp4", "two.MP4"):
        make_clip(folder / name, seconds=2, fps=10)
    return folder


def write(path: Path, records: list[Any]) -> Path:
    path.write_text(json.dumps(records))
    return path


def read(path: Path, videos: Path) -> list[Record]:
    return [sample.record for sample in of_records(path, videos).samples]


def test_missing_videos_are_counted_with_their_questions(tmp_path: Path, videos: Path) -> None:
    asked = [fields("one"), fields("gone"), fields("gone"), fields("two"), fields("one.mp4")]
    found = of_records(write(tmp_path / "q.json", asked), videos)
    assert [sample.id for sample in found.samples] == ["0/one", "3/two", "4/one.mp4"]
    assert found.missing == {"gone": Missing("there is no such file", 2)}
    later = found.without({"0/one": "it is broken"})
    assert [sample.id for sample in later.samples] == ["3/two", "4/one.mp4"]
    assert later.missing == found.missing | {"one": Missing("it is broken", 1)}


@pytest.mark.parametrize("options", [OPTIONS, json.dumps(OPTIONS), repr(OPTIONS)], ids=["list", "JSON", "Python"])
def test_parquet_and_json_say_the_same(tmp_path: Path, videos: Path, options: Any) -> None:
    rows = [fields("one", options=options), fields("two", answer="C", options=options)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    expected = [Record(row["videoID"], row["question"], tuple(OPTIONS), row["answer"], row["type"]) for row in rows]
    assert read(write(tmp_path / "q.json", rows), videos) == expected
    assert read(tmp_path / "q.parquet", videos) == expected


def test_letters_that_options_bring_along_are_not_said_twice(tmp_path: Path, videos: Path) -> None:
    rows = [
        fields(options=["A. up", "B. down"], answer="B."),
        fields(options=["A) up", "(B) down"], answer="(A)"),
        fields(options=["A. up", "A. down"]),
        fields(options=["up", "down"], answer="down"),
    ]
    found = read(write(tmp_path / "q.json", rows), videos)
    assert [record.options for record in found] == [("up", "down")] * 2 + [("A. up", "A. down"), ("up", "down")]
    assert [record.answer for record in found] == ["B", "A", "B", "B"]


def test_rows_that_are_no_questions_are_told_and_the_others_asked(tmp_path: Path, videos: Path) -> None:
    rows = [
        fields(options=["up", "up"]),
        fields(answer="Z"),
        fields(options="neither"),
        fields(question=" "),
        {"videoID": "one"},
        "text",
        fields(),
        fields(options=["up\nB down", "down"]),
    ]
    found = of_records(write(tmp_path / "q.json", rows), videos)
    assert [sample.id for sample in found.samples] == ["6/one"]
    assert [said.partition(":")[0] for said in found.unusable] == [f"row {n}" for n in (0, 1, 2, 3, 4, 5, 7)]
    whys = ("repeats an earlier one", "none of ABCD", "no list", "is empty", "has no question", "str", "one line")
    for said, why in zip(found.unusable, whys, strict=True):
        assert why in said


def test_a_file_of_another_kind_is_refused(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(ValueError, match=r"q\.csv: a question set is"):
        of_records(tmp_path / "q.csv", videos)
    (tmp_path / "q.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a dict"):
        of_records(tmp_path / "q.json", videos)


def test_a_name_cannot_lead_out_of_the_folder(videos: Path) -> None:
    (videos.parent / "secret.mp4").write_bytes(b"")
    assert find(videos, "../secret") is None
    assert find(videos, "one") == videos / "one.mp4"


def test_a_limit_takes_questions_from_the_whole_set(tmp_path: Path, videos: Path) -> None:
    asked = write(tmp_path / "q.json", [fields(question=str(n)) for n in range(9)])
    found = of_records(asked, videos, limit=3)
    assert [sample.record.question for sample in found.samples] == ["0", "4", "8"]
    assert [sample.id for sample in found.samples] == ["0/one", "4/one", "8/one"]


def test_scenes_are_made_once_and_are_held_out(tmp_path: Path) -> None:
    scenes = Scenes(4, first=3, per_scene=24, config=SMALL)
    assert scenes.seeds == [Seeds.held_out(n) for n in range(3, 7)]
    folder = scenes.folder(tmp_path)
    assert list(scenes.make(folder)) == [1, 2, 3, 4]
    found = of_records(folder / QUESTIONS, folder)
    assert not found.missing
    assert not found.unusable
    assert Counter(sample.record.answer for sample in found.samples).keys() == set("ABCD")
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert list(scenes.make(folder)) == [1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == made

    own_folder = [
        scenes,
        Scenes(4, 4, config=SMALL),
        Scenes(4, 3, 12, config=SMALL),
        Scenes(4, 3),
        Scenes(4, 3, train=True),
    ]
    assert len({one.folder(tmp_path) for one in own_folder}) == len(own_folder)
    assert Scenes(1, train=True).seeds == [Seeds.train(0)]


def test_a_sample_of_scenes_shows_as_many_frames_as_its_record_says(tmp_path: Path) -> None:
    """In whole tokens of two frames: an odd last one is left out, as in training."""
    scenes = Scenes(4, per_scene=48, config=SMALL)
    folder = scenes.folder(tmp_path)
    assert max(scenes.make(folder)) == 4
    predictions = 0
    for sample in of_records(folder / QUESTIONS, folder).samples:
        extras = sample.record.extras
        assert extras is not None
        clip = sample.clip(Sampling(count=12))
        assert len(clip.frames) == len(clip.times) == clip.sampled == extras.visible_frames // 2 * 2
        assert clip.times[-1] <= extras.interval[1] + 0.05 or not sample.record.type.endswith("dir_pred")
        predictions += sample.record.type.endswith("dir_pred")
    assert predictions
