"""Names of things: from the list, from captions, from a language model."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from training.cues.estimators import Footage, Names
from training.cues.language_model import LanguageModel
from training.cues.names import Asked, Captioned, Listed, parsed


def footage(name: str = "clip") -> Footage:
    return Footage(Path(f"{name}.mp4"), np.zeros((2, 14, 14, 3), np.uint8), np.arange(2.0), (14, 14))


def captions(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(data))
    return path


def test_the_list_is_the_same_for_every_video() -> None:
    assert Listed()(footage("one")) == Listed()(footage("two"))
    assert {"person", "dog", "car", "ball"} <= set(Listed()(footage()).all)


def test_a_caption_gives_the_names_that_it_speaks_of(tmp_path: Path) -> None:
    text = "Two people and a Dog chase boxes past a parked carriage; the ballroom is empty."
    found = Captioned.load(captions(tmp_path, {"clip.mp4": text}))(footage())
    assert found == Names(("person", "dog"), ("box",))


def test_names_may_be_given_outright(tmp_path: Path) -> None:
    data = {"clip": {"agents": ["Fire Engine", "fire engine"], "objects": ["hose"]}}
    assert Captioned.load(captions(tmp_path, data))(footage()) == Names(("fire engine",), ("hose",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["clip"], "expected an object"),
        ({"clip": {"agents": "dog"}}, "clip: agents must be a list"),
        ({"clip": {"agents": [], "objects": []}}, "clip: there is no name"),
        ({"clip": {"agents": ["d" * 41]}}, "at most 40 characters"),
    ],
)
def test_a_file_that_is_wrong_names_the_video(tmp_path: Path, data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Captioned.load(captions(tmp_path, data))


def test_a_video_without_a_caption_or_a_name_is_an_error(tmp_path: Path) -> None:
    namer = Captioned.load(captions(tmp_path, {"clip": "Clouds drift."}))
    with pytest.raises(ValueError, match="names nothing of the list"):
        namer(footage())
    with pytest.raises(ValueError, match="no video 'other'"):
        namer(footage("other"))


def asked(tmp_path: Path, answer: str, status: int = 200) -> tuple[Asked, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, json={"choices": [{"message": {"content": answer}}]})

    path = captions(tmp_path, {"clip": "A zebra kicks a drum."})
    made = LanguageModel.connect("http://127.0.0.1:1/v1", "some-model", key="secret")
    client = httpx.Client(
        base_url=made.client.base_url, headers=made.client.headers, transport=httpx.MockTransport(reply)
    )
    made.client.close()
    return Asked.of(LanguageModel(client, made.name), path), requests


def test_a_language_model_is_told_the_caption_and_its_json_is_read(tmp_path: Path) -> None:
    namer, requests = asked(tmp_path, 'Here:\n```json\n{"agents": ["Zebra"], "objects": ["drum"]}\n```')
    assert namer(footage()) == Names(("zebra",), ("drum",))
    (request,) = requests
    assert str(request.url) == "http://127.0.0.1:1/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    body = json.loads(request.content)
    assert body["messages"][-1]["content"] == "A zebra kicks a drum."
    assert body["temperature"] == 0
    assert "secret" not in json.dumps(dict(namer.facts))


@pytest.mark.parametrize("answer", ["I see a zebra.", "{zebra}", '{"agents": []}', '{"agents": [3]}'])
def test_an_answer_without_names_is_an_error_of_the_video(tmp_path: Path, answer: str) -> None:
    namer, _ = asked(tmp_path, answer)
    with pytest.raises(ValueError, match="clip"):
        namer(footage())


def test_a_server_that_refuses_is_an_error(tmp_path: Path) -> None:
    namer, _ = asked(tmp_path, "", status=500)
    with pytest.raises(httpx.HTTPStatusError):
        namer(footage())


def test_what_is_an_agent_is_no_object_too() -> None:
    assert parsed({"agents": ["dog"], "objects": ["dog", "ball"]}, "clip") == Names(("dog",), ("ball",))
