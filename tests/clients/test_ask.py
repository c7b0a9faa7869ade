"""Questions: what goes over the wire for every kind of video, and what comes back of an answer."""

from __future__ import annotations

import inspect
import io
import os
import threading
from pathlib import Path
from typing import Any

import dsr_client
import pytest
from dsr_client import Answer, AsyncClient, BrokenResponse, Client, Span, UnknownVideo, Unprocessable, Video

from tests.clients.either import Blocking
from tests.clients.wire import VIDEO_ID, Pipe, Reply, Wire, answer, problem, video

OPTIONS = ["It grows.", "It shrinks."]


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def surface(kind: type) -> dict[str, Any]:
        methods = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
        return {
            name: list(inspect.signature(member).parameters.values()) if callable(member) else type(member)
            for name, member in methods.items()
        }

    for sync, other in ((Client, AsyncClient), (dsr_client._videos.Videos, dsr_client._videos.AsyncVideos)):
        assert surface(sync) == surface(other)
    assert {"ask", "stream", "upload", "health", "close"} <= surface(Client).keys()


def test_all_that_is_asked_arrives_and_all_that_is_answered_is_read(client: Client, wire: Wire) -> None:
    wire.script(Reply(answer(news="from a later version")))
    said = client.ask(
        VIDEO_ID,
        "How?",
        OPTIONS,
        frames=8,
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        stop=["."],
        seed=0,
        geometry="off",
        explain=True,
    )
    [request] = wire.seen
    assert request.json() == {
        "video": {"id": VIDEO_ID},
        "question": "How?",
        "options": OPTIONS,
        "frames": 8,
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["."],
        "seed": 0,
        "geometry": "off",
        "explain": True,
    }
    assert (said.choice and said.choice.text, said.probabilities) == ("It shrinks.", {"A": 0.25, "B": 0.75})
    assert said.usage.geometry_tokens == 32
    assert said.spans["decoder"] == Span(0.25, 0.75)
    assert (said.timings["decoder"], said.cache["selector"]) == (0.5, "hit")
    assert said.video == Video(VIDEO_ID, 2.0, 10.0, 64, 48, 20)
    assert said.raw["news"] == "from a later version"
    assert said.request_id == request.headers["x-request-id"]
    with pytest.raises(AttributeError):
        said.text = "C"  # type: ignore[misc]


def test_what_is_not_asked_for_is_left_to_the_service(client: Client, wire: Wire) -> None:
    wire.script(Reply(answer()), Reply(answer()))
    client.ask(VIDEO_ID, "How?")
    client.ask(b"video", "How?")
    assert wire.seen[0].json() == {"video": {"id": VIDEO_ID}, "question": "How?"}
    assert wire.seen[1].form() == {"question": ["How?"], "video": ["video"], "filename": ["video"]}


def test_bytes_and_files_are_sent_with_their_question(client: Client, wire: Wire, clip: Path) -> None:
    wire.script(*[Reply(answer())] * 3)
    content = clip.read_bytes()
    client.ask(content, "How?", OPTIONS, stop=["a", "b"], explain=True, seed=-3)
    with clip.open("rb") as file:
        file.seek(100)
        client.ask(file, "Ü?", OPTIONS)
        assert not file.closed
    client.ask(Pipe(content), "How?", OPTIONS)
    form = wire.seen[0].form()
    assert form.pop("video") == [content.decode("latin-1")]
    expected = {"question": ["How?"], "options": OPTIONS, "stop": ["a", "b"], "explain": ["true"], "seed": ["-3"]}
    assert form == {**expected, "filename": ["video"]}
    assert (wire.seen[1].form()["video"], wire.seen[1].form()["question"]) == (
        [content[100:].decode("latin-1")],
        ["Ü?"],
    )
    assert wire.seen[2].headers["transfer-encoding"] == "chunked"
    assert wire.seen[2].form()["video"] == [content.decode("latin-1")]


def test_an_uploaded_video_and_a_url_are_named_and_not_sent(client: Client, wire: Wire) -> None:
    wire.script(*[Reply(answer())] * 2)
    client.ask(Video("any-id", 1.0, 1.0, 1, 1, 1), "How?")
    client.ask("https://example.org/clip.mp4", "How?")
    sources = [request.json()["video"] for request in wire.seen]
    assert sources == [{"id": "any-id"}, {"url": "https://example.org/clip.mp4"}]


@pytest.mark.parametrize("code", ["url_refused", "url_unfetchable"])
def test_a_url_that_the_service_does_not_fetch_is_named_and_asked_for_once(
    client: Client, wire: Wire, code: str
) -> None:
    wire.script(problem(422, code, field="video.url"))
    with pytest.raises(Unprocessable) as caught:
        client.ask("https://example.org/clip.mp4", "How?")
    assert (caught.value.code, caught.value.field, len(wire.seen)) == (code, "video.url", 1)


def test_a_path_is_uploaded_once_per_client_and_again_when_the_file_changes(
    client: Client, wire: Wire, clip: Path, tmp_path: Path
) -> None:
    other = "vid_" + "2" * 64
    wire.script(Reply(video(), 201), Reply(answer()), Reply(answer()), Reply(video(id=other), 201), Reply(answer()))
    client.ask(clip, "One?")
    (tmp_path / "link.mp4").symlink_to(clip)
    client.ask(str(tmp_path / "link.mp4"), "Two?")
    clip.write_bytes(b"another video")
    client.ask(clip, "Three?")
    assert [request.path.rpartition("/")[2] for request in wire.seen] == [
        "videos",
        "answers",
        "answers",
        "videos",
        "answers",
    ]
    assert wire.seen[0].form()["filename"] == ["clip.mp4"]
    assert [wire.seen[i].json()["video"]["id"] for i in (1, 2, 4)] == [VIDEO_ID, VIDEO_ID, other]
    wire.assert_over()


def test_an_upload_spares_the_next_question_its_own(client: Client, wire: Wire, clip: Path) -> None:
    wire.script(Reply(video(), 201), Reply(answer()))
    assert client.upload(clip).bytes == 1234
    client.ask(clip, "How?")
    assert [request.path for request in wire.seen] == ["/v1/videos", "/v1/answers"]


def test_two_who_ask_at_once_about_a_new_file_send_it_once(client: Client, wire: Wire, clip: Path) -> None:
    wire.script(Reply(video(), 201, delay=0.2), *[Reply(answer())] * 4)
    if isinstance(client, Blocking):
        client.together(*[lambda one: one.ask(clip, "How?")] * 4)
    else:
        threads = [threading.Thread(target=client.ask, args=(clip, "How?")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [request.path for request in wire.seen].count("/v1/videos") == 1
    wire.assert_over()


@pytest.mark.parametrize("how", ["ask", "stream"])
def test_a_file_that_the_service_dropped_is_uploaded_again_once(
    client: Client, wire: Wire, clip: Path, how: str
) -> None:
    from tests.clients.wire import event

    gone = problem(404, "unknown_video", "no video of this id is held; upload it first", field="video.id")
    good = Reply(answer()) if how == "ask" else Reply([event("answer", answer())])

    def ask() -> Answer:
        return client.ask(clip, "How?") if how == "ask" else client.stream(clip, "How?").answer()

    wire.script(Reply(video(), 201), gone, Reply(video(), 201), good)
    assert ask().text == "B"
    wire.assert_over()
    wire.script(gone, Reply(video(), 201), gone)
    with pytest.raises(UnknownVideo):
        ask()
    wire.assert_over()


def test_an_unknown_id_is_not_uploaded_by_anybody(client: Client, wire: Wire) -> None:
    wire.script(problem(404, "unknown_video", field="video.id", value=VIDEO_ID))
    with pytest.raises(UnknownVideo) as caught:
        client.ask(VIDEO_ID, "How?")
    assert (caught.value.field, caught.value.value) == ("video.id", VIDEO_ID)


def test_a_deleted_video_is_uploaded_again(client: Client, wire: Wire, clip: Path) -> None:
    wire.script(Reply(video(), 201), Reply(b"", 204), Reply(video(), 201), Reply(answer()))
    client.videos.delete(client.upload(clip))
    client.ask(clip, "How?")
    assert [request.method for request in wire.seen] == ["POST", "DELETE", "POST", "POST"]
    assert wire.seen[1].path == f"/v1/videos/{VIDEO_ID}"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((VIDEO_ID, "How?", "It grows."), TypeError, "options"),
        ((17, "How?"), TypeError, "int"),
        ((io.StringIO("text"), "How?"), TypeError, "binary"),
        (("nowhere.mp4", "How?"), FileNotFoundError, "nowhere.mp4"),
        ((".", "How?"), IsADirectoryError, "directory"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(
    client: Client, wire: Wire, arguments: tuple[Any, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        client.ask(*arguments)
    assert wire.seen == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "not JSON"),
        (b"[1]", "no JSON object"),
        ({**answer(), "usage": {"video_tokens": 1}}, "geometry_tokens"),
        ({name: value for name, value in answer().items() if name != "text"}, "text: expected text, got nothing"),
        ({**answer(), "timings": {"decoder": "fast"}}, "decoder: expected a number"),
        ({**answer(), "explanation": {"times": [0.0], "grid": [2, 1, 1], "attention": [[[1.0]]]}}, "grid"),
    ],
)
def test_an_answer_that_the_contract_does_not_know_is_a_broken_response(
    client: Client, wire: Wire, body: Any, said: str
) -> None:
    wire.script(Reply(body))
    with pytest.raises(BrokenResponse, match=said) as caught:
        client.ask(VIDEO_ID, "How?")
    assert caught.value.request_id == wire.seen[0].headers["x-request-id"]


def test_an_answer_of_an_older_service_has_no_spans_and_no_explanation(client: Client, wire: Wire) -> None:
    wire.script(Reply({name: value for name, value in answer(choice=None).items() if name != "spans"}))
    said = client.ask(VIDEO_ID, "How?")
    assert (dict(said.spans), said.explanation, said.choice) == ({}, None, None)


def test_a_file_name_cannot_break_out_of_its_header(client: Client, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / 'a"; name="question\r\n.mp4'
    path.write_bytes(b"video")
    wire.script(Reply(video(), 201))
    client.upload(path)
    form = wire.seen[0].form()
    assert form.keys() == {"video", "filename"}
    assert os.linesep not in form["filename"][0]
