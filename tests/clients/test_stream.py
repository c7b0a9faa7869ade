"""Streams: tokens, the answer, errors in between, broken ones, and ones that nobody wants to hear to the end."""

from __future__ import annotations

import random

import pytest
from dsr_client import Answer, BrokenResponse, Busy, Client, ConnectionFailed, TimedOut, Token, Unprocessable
from dsr_client._events import EventDecoder

from tests.clients.wire import VIDEO_ID, Reply, Wire, answer, event, problem

WORDS = [event("token", {"text": word}) for word in ("It ", "turns ", "left.")]
WHOLE = answer(text="It turns left.", choice=None, probabilities={})


def test_tokens_come_one_by_one_and_the_answer_last(client: Client, wire: Wire) -> None:
    wire.script(Reply([b": keep-alive\n\n", *WORDS, event("news", {"a": 1}), b":\n\n", event("answer", WHOLE)]))
    with client.stream(VIDEO_ID, "How?", max_tokens=3) as events:
        *tokens, last = list(events)
    assert [token.text for token in tokens if isinstance(token, Token)] == ["It ", "turns ", "left."]
    assert isinstance(last, Answer)
    assert last.text == "It turns left."
    assert last.request_id == wire.seen[0].headers["x-request-id"]
    assert wire.seen[0].json() == {"video": {"id": VIDEO_ID}, "question": "How?", "max_tokens": 3, "stream": True}
    assert wire.seen[0].headers["accept"] == "text/event-stream"


def test_a_video_in_the_request_is_streamed_about_as_well(client: Client, wire: Wire) -> None:
    wire.script(Reply([event("answer", WHOLE)]))
    assert client.stream(b"video", "How?").answer().text == "It turns left."
    assert wire.seen[0].form()["stream"] == ["true"]


def test_the_first_token_does_not_wait_for_the_last(client: Client, wire: Wire) -> None:
    wire.script(Reply([*WORDS, *[b": keep-alive\n\n"] * 100], pause=0.05))
    with client.stream(VIDEO_ID, "How?", timeout=1) as events:
        assert isinstance(next(events), Token)
    assert wire.dropped.wait(5), "who closes a stream closes its connection, so that the service can stop"
    with pytest.raises(StopIteration):
        next(events)


def test_a_refusal_before_the_stream_is_retried_and_raised_as_ever(client: Client, wire: Wire) -> None:
    wire.script(problem(503, "not_ready"), Reply([event("answer", WHOLE)]))
    assert client.stream(VIDEO_ID, "How?").answer().text == "It turns left."
    wire.script(problem(422, "invalid_question", "the question is empty", field="question"))
    with pytest.raises(Unprocessable, match="the question is empty") as caught, client.stream(VIDEO_ID, "") as events:
        next(events)
    assert caught.value.field == "question"


def test_an_error_in_the_stream_is_raised_after_the_tokens_before_it(client: Client, wire: Wire) -> None:
    body = problem(429, "busy", "every queue is full", field="decoder").body
    assert isinstance(body, dict)
    wire.script(Reply([*WORDS[:2], event("error", body), event("answer", WHOLE)]))
    with client.stream(VIDEO_ID, "How?") as events:
        assert [next(events).text for _ in range(2)] == ["It ", "turns "]
        with pytest.raises(Busy, match="every queue is full") as caught:
            next(events)
    assert (caught.value.status, caught.value.field, caught.value.request_id) == (429, "decoder", "req_of_the_service")


def test_a_stream_that_ends_without_its_answer_is_broken(client: Client, wire: Wire) -> None:
    wire.script(Reply(WORDS[:2]), Reply([*WORDS, event("answer", WHOLE)[:-1]]))
    with pytest.raises(BrokenResponse, match="ended after 2 tokens") as caught:
        client.stream(VIDEO_ID, "How?").answer()
    assert caught.value.request_id == wire.seen[0].headers["x-request-id"]
    with pytest.raises(BrokenResponse, match="ended after 3 tokens"):
        client.stream(VIDEO_ID, "How?").answer()


def test_a_stream_goes_on_where_it_was_when_its_connection_breaks(client: Client, wire: Wire) -> None:
    other_words = [
        event("token", {"text": text}) for text in ("It tur", "ns le", "ft.")
    ]  # the same text in other parts
    wire.script(Reply(WORDS[:2], cut=True), Reply([*other_words, event("answer", WHOLE)]))
    with client.stream(VIDEO_ID, "How?", temperature=0.7) as events:
        *tokens, last = list(events)
    assert "".join(token.text for token in tokens if isinstance(token, Token)) == "It turns left."
    assert all(token.text for token in tokens)
    assert isinstance(last, Answer)
    first, again = (seen.json() for seen in wire.seen)
    assert first == again, "the same text comes only for the same seed"
    assert isinstance(first["seed"], int)


def test_a_stream_that_breaks_again_and_again_is_given_up(client: Client, wire: Wire) -> None:
    wire.script(*[Reply(WORDS[:1], cut=True)] * 3)
    with client.stream(VIDEO_ID, "How?") as events:
        assert next(events).text == "It "
        with pytest.raises(ConnectionFailed, match="broke"):
            next(events)
    assert len(wire.seen) == 3
    assert "seed" not in wire.seen[0].json(), "a greedy answer needs none"


def test_a_file_that_was_read_is_not_sent_again(client: Client, wire: Wire) -> None:
    wire.script(Reply(WORDS[:1], cut=True))
    with client.stream(b"video", "How?") as events:
        next(events)
        with pytest.raises(ConnectionFailed, match="broke"):
            next(events)
    assert len(wire.seen) == 1


def test_silence_in_a_stream_is_a_timeout_and_keep_alive_is_no_silence(client: Client, wire: Wire) -> None:
    alive = [b": keep-alive\n\n"] * 8
    wire.script(Reply([*alive, event("answer", WHOLE)], pause=0.15), Reply([*WORDS, *alive], pause=1.2))
    assert client.stream(VIDEO_ID, "How?", timeout=0.6).answer().text == "It turns left."
    with pytest.raises(TimedOut, match=r"sent nothing for 0\.6 s"):
        client.stream(VIDEO_ID, "How?", timeout=0.6).answer()


def test_a_service_that_does_not_stream_is_said_to(client: Client, wire: Wire) -> None:
    wire.script(Reply(WHOLE))
    with pytest.raises(BrokenResponse, match="application/json"):
        client.stream(VIDEO_ID, "How?").answer()


def test_a_stream_that_was_read_has_no_second_answer(client: Client, wire: Wire) -> None:
    wire.script(Reply([event("answer", WHOLE)]))
    events = client.stream(VIDEO_ID, "How?")
    events.answer()
    with pytest.raises(BrokenResponse, match="closed or was read"):
        events.answer()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_do_not_depend_on_how_their_bytes_arrive(end: bytes) -> None:
    lines = [
        "\ufeffevent: token",
        ": hello",
        "data: {",
        "data:  \u2028é",
        "data",
        "",
        "id: 7",
        "",
        "data:x",
        "",
        "data: cut",
    ]
    body = end.join(line.encode() for line in lines)
    expected = [("token", "{\n \u2028é\n"), ("message", "x")]
    draw = random.Random(3)
    for _ in range(200):
        cuts = sorted(draw.sample(range(1, len(body)), draw.randrange(0, 12)))
        decoder = EventDecoder()
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert [found for piece in pieces for found in decoder.feed(piece)] == expected, pieces
