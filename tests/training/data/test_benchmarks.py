"""Rows in the fields of each public benchmark, in sentences of our own, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from training.data.benchmarks import LAYOUTS, load
from training.data.formats import Numeric
from training.data.sets import Missing, QuestionSet
from training.questions.records import Record

Rows = list[dict[str, Any]]

DSR: Rows = [
    {
        "videoID": "clip",
        "question": "From 1.0 s to 3.0 s, how does the distance between the dog [1, 2, 30, 40] and the camera change?",
        "options": ["A. Become larger.", "B. Become smaller.", "C. Keep nearly constant.", "D. Become larger twice."],
        "answer": "C",
        "type": "rel_dis",
    }
]
VSI: Rows = [
    {
        "id": 0,
        "dataset": "scannet",
        "scene_name": "scene0011_00",
        "question_type": "object_counting",
        "question": "How many lamps stand in this room?",
        "ground_truth": "3",
        "options": None,
    },
    {
        "id": 1,
        "dataset": "arkitscenes",
        "scene_name": "41069025",
        "question_type": "object_rel_direction_hard",
        "question": "By the lamp and facing the door, where is the bed?",
        "ground_truth": "B",
        "options": ["A. front-left", "B. back-right", "C. front-right", "D. back-left"],
    },
]
CANDIDATES = {"A": "1 m", "B": "2 m", "C": "3 m", "D": "4 m", "E": "5 m"}
STI: Rows = [
    {
        "ID": 4,
        "Video": "scene0011_00.mp4",
        "time_start": 1.5,
        "time_end": 9,
        "Task": "Displacement & Path Length",
        "Question": "How far does the camera go?",
        "Candidates": CANDIDATES,
        "Answer": "E",
        "Scene": "indoor",
    }
]
VLM4D: Rows = [
    {
        "id": "validation_7",
        "video": "https://huggingface.co/datasets/shijiezhou/VLM4D/resolve/main/videos_real/davis/a-ride.mp4",
        "question_type": "multiple-choice",
        "question": "Which way does the rider turn?",
        "choices": {"A": "not at all", "B": "to the left", "C": "to the right", "D": "back"},
        "answer": "To the left ",
    },
    {
        "id": "synthetic_1",
        "video": "videos_synthetic/synth_001.mp4",
        "question_type": "multiple-choice",
        "question": "Where does the ball roll?",
        "choices": {"A": "up", "B": "down", "C": "left", "D": "right"},
        "answer": "right",
    },
]
VIDEO_MME: Rows = [
    {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Geography",
        "url": "https://www.youtube.com/watch?v=aaaaaaaaaaa",
        "videoID": "aaaaaaaaaaa",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "How many boats are seen?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
        "answer": "D",
    }
]


def in_json(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows))
    return path


def in_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def in_parquet(path: Path, rows: Rows) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def found(folder: Path, layout: str, file: Path, *videos: str) -> QuestionSet:
    """The set of a file, with empty files in the place of videos."""
    for video in videos:
        path = folder / "videos" / video
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    asked = load(LAYOUTS[layout], [file], folder / "videos")
    assert not asked.missing
    assert not asked.unusable
    return asked


def test_dsr_bench(tmp_path: Path) -> None:
    [sample] = found(tmp_path, "dsr-bench", in_parquet(tmp_path / "benchmark.parquet", DSR), "clip.webm").samples
    assert sample.path.name == "clip.webm"
    options = ("Become larger.", "Become smaller.", "Keep nearly constant.", "Become larger twice.")
    assert sample.record == Record("clip", DSR[0]["question"], options, "C", "rel_dis")
    text = LAYOUTS["dsr-bench"].prompt(sample.record)
    lettered = "A. Become larger.\nB. Become smaller.\nC. Keep nearly constant.\nD. Become larger twice."
    assert text.endswith(f"camera change?\n{lettered}\nAnswer:")


@pytest.mark.parametrize("write", [in_lines, in_parquet])
def test_vsi_bench(tmp_path: Path, write: Callable[[Path, Rows], Path]) -> None:
    file = write(tmp_path / ("test.jsonl" if write is in_lines else "test.parquet"), VSI)
    videos = ("scannet/scene0011_00.mp4", "arkitscenes/41069025.mp4")
    count, direction = found(tmp_path, "vsi-bench", file, *videos).samples
    assert isinstance(count.record, Numeric)
    assert (count.record.number, count.record.options, count.record.type) == (3.0, (), "object_counting")
    assert count.record.question.startswith("How many lamps stand in this room?\n")
    options = ("front-left", "back-right", "front-right", "back-left")
    assert direction.record == Record(
        "arkitscenes/41069025", VSI[1]["question"], options, "B", "object_rel_direction_hard"
    )
    assert direction.path == tmp_path / "videos" / videos[1]


@pytest.mark.parametrize("candidates", [CANDIDATES, json.dumps(CANDIDATES), CANDIDATES | {"E": None}])
def test_sti_bench(tmp_path: Path, candidates: Any) -> None:
    answer = "D" if isinstance(candidates, dict) and candidates["E"] is None else "E"
    rows = [STI[0] | {"Candidates": candidates, "Answer": answer}]
    [sample] = found(tmp_path, "sti-bench", in_parquet(tmp_path / "qa.parquet", rows), "scene0011_00.mp4").samples
    assert sample.record.question == "From 1.5 s to 9 s. How far does the camera go?"
    assert sample.record.options == tuple(CANDIDATES.values())[: "ABCDE".index(answer) + 1]
    assert (sample.record.answer, sample.record.type) == (answer, "Displacement & Path Length")


def test_vlm4d(tmp_path: Path) -> None:
    videos = ("videos_real/davis/a-ride.mp4", "videos_synthetic/synth_001.mp4")
    real, synthetic = found(tmp_path, "vlm4d", in_json(tmp_path / "real_mc.json", VLM4D), *videos).samples
    assert (real.record.answer, real.record.type) == ("B", "videos_real")
    assert (synthetic.record.answer, synthetic.record.type) == ("D", "videos_synthetic")
    assert [sample.path for sample in (real, synthetic)] == [tmp_path / "videos" / video for video in videos]


def test_video_mme(tmp_path: Path) -> None:
    [sample] = found(
        tmp_path, "video-mme", in_parquet(tmp_path / "test-00000-of-00001.parquet", VIDEO_MME), "aaaaaaaaaaa.mkv"
    ).samples
    options = ("One.", "Two.", "Three.", "Four.")
    assert sample.record == Record("aaaaaaaaaaa", "How many boats are seen?", options, "D", "short")


def test_several_files_are_one_set_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").touch()
    files = [in_json(tmp_path / "one.json", DSR), in_json(tmp_path / "two.json", [*DSR, DSR[0] | {"videoID": "gone"}])]
    asked = load(LAYOUTS["dsr-bench"], files, tmp_path / "videos")
    assert [sample.id for sample in asked.samples] == ["0/clip", "1/clip"]
    assert asked.missing == {"gone": Missing("there is no such file", 1)}


@pytest.mark.parametrize(
    ("layout", "row", "why"),
    [
        ("vsi-bench", VSI[0] | {"ground_truth": None}, "no ground_truth"),
        ("vsi-bench", VSI[0] | {"ground_truth": "many"}, "many"),
        ("vsi-bench", VSI[1] | {"ground_truth": "F"}, "none of ABCD"),
        ("sti-bench", STI[0] | {"Candidates": {"A": "1 m", "C": "2 m"}}, "letters A, C"),
        ("sti-bench", STI[0] | {"Candidates": ["1 m", "2 m"]}, "a list, expected an object"),
        ("sti-bench", STI[0] | {"Candidates": "1 m or 2 m"}, "'1 m or 2 m' are no JSON"),
        ("vlm4d", VLM4D[0] | {"answer": "upwards"}, "upwards"),
        ("vlm4d", "a row", "a str, expected an object"),
        ("video-mme", VIDEO_MME[0] | {"options": None}, "options are a NoneType"),
    ],
)
def test_what_is_no_question_is_told_and_left_out(tmp_path: Path, layout: str, row: Any, why: str) -> None:
    asked = load(LAYOUTS[layout], [in_json(tmp_path / "q.json", [row])], tmp_path)
    assert not asked.samples
    [said] = asked.unusable
    assert said.startswith("row 0: ")
    assert why in said
