"""Free questions: what a language model is told, and which of its answers become questions."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest

from training.cues import free, record
from training.cues.language_model import LanguageModel
from training.questions import records
from training.questions.cues import Cues, Track

FRAMES = 16
OPTIONS = ["It falls.", "It rises.", "It stays.", "It turns."]


def cues(video: str = "clip", seen: bool = True) -> Cues:
    """The camera looks along world x from (1, 0, 0); a ball goes from 5 to 8 before it, and up by 1."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = [1, 0, 0]
    steps = np.linspace(0, 1, FRAMES)
    centres = np.stack([6 + 3 * steps, np.full(FRAMES, 2.0), steps], axis=1)
    boxes = np.tile([10.0, 20.0, 30.0, 40.0], (FRAMES, 1))
    if not seen:
        centres[1:] = boxes[1:] = np.nan
    here = np.ones(FRAMES)
    ball = Track("red ball", centres, boxes, here.astype(bool), here)
    return Cues.of(video, np.arange(FRAMES, dtype=np.float64) / 4, np.tile(pose, (FRAMES, 1, 1)), (640, 360), ball)


def answer(**change: Any) -> str:
    return (
        "```json\n" + json.dumps({"question": "What does it do?", "options": OPTIONS, "right": 1, **change}) + "\n```"
    )


def model(text: str, status: int = 200) -> tuple[LanguageModel, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, json={"choices": [{"message": {"content": text}}]})

    client = httpx.Client(base_url="http://127.0.0.1:1/v1/", transport=httpx.MockTransport(reply))
    return LanguageModel(client, "some-model"), requests


def test_the_model_is_told_paths_from_where_the_camera_stood() -> None:
    told = free.told(cues())
    assert (told["times"][0], told["times"][-1]) == (0.0, 3.8)
    assert told["camera"][0] == told["camera"][-1] == [0.0, 0.0, 0.0]
    [ball] = told["things"]
    assert (ball["name"], ball["box"]) == ("red ball", [10, 20, 30, 40])
    assert (ball["path"][0], ball["path"][-1]) == ([5.0, 2.0, 0.0], [8.0, 2.0, 1.0])  # forward, left, up


def test_its_answer_is_a_question_with_the_options_in_another_order() -> None:
    writer, requests = model(answer())
    found = [free.write(cues(), writer, Random(seed)) for seed in range(40)]
    assert {(each.videoID, each.type, each.question) for each in found} == {("clip", "non_temp", "What does it do?")}
    assert all(each.options[each.right] == "It rises." and set(each.options) == set(OPTIONS) for each in found)
    assert {each.answer for each in found} == set("ABCD")
    body = json.loads(requests[0].content)
    assert (str(requests[0].url), body["model"]) == ("http://127.0.0.1:1/v1/chat/completions", "some-model")
    assert json.loads(body["messages"][1]["content"]) == free.told(cues())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I would ask about the ball.", "expected JSON"),
        (answer(question=" "), "question must be a text"),
        (answer(question="x" * 301), "at most 300 characters"),
        (answer(options=OPTIONS[:3]), "four texts"),
        (answer(options=[*OPTIONS[:3], "it FALLS."]), "two options are the same"),
        (answer(options=[*OPTIONS[:3], ""]), "1 to 200 characters"),
        (answer(right=4), "right is 4"),
        (answer(right=True), "right is True"),
    ],
)
def test_an_answer_of_another_form_is_an_error_of_its_video(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"clip: .*{message}"):
        free.understood(text, cues(), Random(0))


def test_a_video_of_which_nothing_is_known_is_not_asked_about() -> None:
    writer, requests = model(answer())
    made, errors = free.write_all([cues("one"), cues("two", seen=False)], writer, Random(0))
    assert ([each.videoID for each in made], len(requests)) == (["one"], 1)
    assert errors == ["two: nothing is known long enough to ask about"]


def test_a_server_that_refuses_is_told_and_the_others_go_on() -> None:
    writer, _ = model("", status=503)
    made, errors = free.write_all([cues("one"), cues("two")], writer, Random(0))
    assert made == []
    assert [error.split(":")[0] for error in errors] == ["one", "two"]


def test_a_folder_without_usable_records_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert free.main([str(tmp_path), "--language-model", "http://127.0.0.1:1/v1"]) == 2
    assert "no usable record" in capsys.readouterr().err


def test_what_is_written_can_be_read_as_any_question_set(tmp_path: Path) -> None:
    writer, _ = model(answer())
    made, _ = free.write_all([cues()], writer, Random(0))
    records.write(tmp_path / record.FREE, made)
    assert records.read(tmp_path / record.FREE) == made
