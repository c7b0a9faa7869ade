"""Question sets: the public formats, missing videos, and predictions that cannot see what they predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from models.video import Sampling, read
from tests.clips import make_clip
from training.data.sets import find, of_records, records_of
from training.questions.records import Record

SAMPLING = Sampling(count=8)
OPTIONS = ["(1) Front.", "(1) Left.", "(1) Right.", "(1) Behind."]


def fields(video: str, type_: str = "abs_dis", **more: Any) -> dict[str, Any]:
    return {"videoID": video, "question": f"{video}?", "options": OPTIONS, "answer": "B", "type": type_, **more}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "one.mp4").write_bytes(make_clip(seconds=2, fps=10))
    (folder / "two.mp4").write_bytes(make_clip(seconds=2, fps=10))
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_missing_and_broken_videos_are_counted(tmp_path: Path, videos: Path) -> None:
    asked = [fields("one"), fields("gone"), fields("gone"), fields("broken", "abs_dir_pred"), fields("two.mp4")]
    found = of_records(write(tmp_path / "q.json", asked), videos, SAMPLING, tmp_path / "cuts")
    assert [sample.record.videoID for sample in found.samples] == ["one", "two.mp4"]
    assert found.missing == {"gone": 2, "broken": 1}


def test_parquet_and_json_say_the_same(tmp_path: Path) -> None:
    rows = [fields("one"), fields("two", answer="C")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    texts = [row | {"options": json.dumps(OPTIONS)} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(texts), tmp_path / "t.parquet")
    expected = [Record(row["videoID"], row["question"], tuple(OPTIONS), row["answer"], row["type"]) for row in rows]
    assert list(records_of(write(tmp_path / "q.json", rows))) == expected
    assert list(records_of(tmp_path / "q.parquet")) == expected
    assert list(records_of(tmp_path / "t.parquet")) == expected


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q\.csv: a question set is"):
        records_of(tmp_path / "q.csv")


def test_a_name_cannot_lead_out_of_the_folder(videos: Path) -> None:
    (videos.parent / "secret.mp4").write_bytes(b"")
    assert find(videos, "../secret") is None
    assert find(videos, "one") == videos / "one.mp4"


def test_a_prediction_gets_a_file_without_the_hidden_frames(tmp_path: Path, videos: Path) -> None:
    asked = write(tmp_path / "q.json", [fields("one", "rel_dir_pred"), fields("one")])
    prediction, plain = of_records(asked, videos, SAMPLING, tmp_path / "cuts").samples
    assert (prediction.frames, plain.frames) == (6, 8)
    assert plain.path == videos / "one.mp4"
    whole, cut = read(plain.path, SAMPLING), read(prediction.path, Sampling(count=6))
    assert cut.facts.frames == 6
    assert np.abs(cut.frames.astype(int) - whole.frames[:6]).mean() < 6
    np.testing.assert_allclose(np.diff(cut.times), np.diff(whole.times)[0], atol=0.06)


def test_a_limit_takes_questions_from_the_whole_set(tmp_path: Path, videos: Path) -> None:
    asked = write(tmp_path / "q.json", [fields("one", question=str(n)) for n in range(9)])
    found = of_records(asked, videos, SAMPLING, tmp_path / "cuts", limit=3)
    assert [sample.record.question for sample in found.samples] == ["0", "4", "8"]
