"""What is sent again and what is not, how long a client waits for it, and how long it waits for anything."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from dsr_client import Busy, Client, ConnectionFailed, NotReady, Retries, TimedOut
from dsr_client._after import retry_after

from tests.clients.conftest import Connect
from tests.clients.wire import VIDEO_ID, Pipe, Reply, Wire, answer, problem, video

BUSY = problem(429, "busy", "every queue is full", {"Retry-After": "0"})
LOADING = problem(503, "not_ready", "the encoder is still loading")


def test_a_refusal_is_asked_again_with_the_same_body_and_id(client: Client, wire: Wire) -> None:
    wire.script(BUSY, LOADING, Reply(answer()))
    assert client.ask(b"video", "How?").text == "B"
    first, *others = wire.seen
    for request in others:
        assert request.body == first.body
        assert request.headers["x-request-id"] == first.headers["x-request-id"]
    assert first.form()["video"] == ["video"]


def test_a_service_that_is_lost_under_a_request_is_asked_again(client: Client, wire: Wire) -> None:
    wire.script(Reply(lost=True), Reply(lost=True), Reply(answer()))
    assert client.ask(b"video", "How?").text == "B"
    assert len({request.body for request in wire.seen}) == 1
    assert len({request.headers["x-request-id"] for request in wire.seen}) == 1


def test_a_service_that_is_lost_each_time_is_a_broken_connection(client: Client, wire: Wire) -> None:
    wire.script(*[Reply(lost=True)] * 3)
    with pytest.raises(ConnectionFailed, match="broke"):
        client.ask(VIDEO_ID, "How?")
    wire.assert_over()


def test_after_two_retries_the_refusal_is_an_error(client: Client, wire: Wire) -> None:
    wire.script(LOADING, LOADING, problem(429, "busy", headers={"Retry-After": "7"}))
    with pytest.raises(Busy) as caught:
        client.ask(VIDEO_ID, "How?")
    assert caught.value.retry_after == 7
    assert len(wire.seen) == 3


def test_no_retries_means_none(connect: Connect, wire: Wire) -> None:
    wire.script(LOADING)
    with pytest.raises(NotReady, match="still loading"):
        connect(wire.url, retries=0).ask(VIDEO_ID, "How?")
    wire.assert_over()


@pytest.mark.parametrize("status", [400, 404, 408, 413, 415, 422, 500, 502, 504])
def test_other_errors_are_not_asked_again(client: Client, wire: Wire, status: int) -> None:
    wire.script(problem(status, "some_code"))
    with pytest.raises(Exception, match="it is so"):
        client.ask(VIDEO_ID, "How?")
    assert len(wire.seen) == 1


def test_retry_after_is_obeyed_and_capped(connect: Connect, wire: Wire) -> None:
    client = connect(wire.url, retries=Retries(count=2, first_pause=0, longest_retry_after=0.3))
    wire.script(
        problem(503, "not_ready", headers={"Retry-After": "3600"}),
        problem(429, "busy", headers={"Retry-After": "0.1"}),
        Reply(answer()),
    )
    start = time.monotonic()
    client.ask(VIDEO_ID, "How?")
    assert 0.4 <= time.monotonic() - start < 5


def test_pauses_grow_to_their_limit_and_differ() -> None:
    retries = Retries(count=9, first_pause=1, longest_pause=8)
    for done, span in enumerate((1, 2, 4, 8, 8, 8)):
        pauses = {retries.pause(done) for _ in range(50)}
        assert len(pauses) > 40, "clients that were refused together must not come back together"
        assert span / 2 <= min(pauses) <= max(pauses) <= span
    assert retries.pause(1000) <= 8


def test_retry_after_reads_seconds_and_dates_and_nothing_else() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert retry_after({"retry-after": "2"}) == 2
    assert 95 < (retry_after({"retry-after": format_datetime(soon, usegmt=True)}) or 0) <= 100
    assert retry_after({"retry-after": format_datetime(soon - timedelta(days=1), usegmt=True)}) == 0
    assert [retry_after({"retry-after": text}) for text in ("", "soon", "nan", "inf")] == [None] * 4
    assert retry_after({"retry-after": "-5"}) == 0


def test_a_service_that_starts_meanwhile_is_reached(connect: Connect) -> None:
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        client = connect(
            f"http://127.0.0.1:{late.getsockname()[1]}", retries=Retries(count=8, first_pause=0.1, longest_pause=0.2)
        )
        threading.Timer(0.3, late.listen).start()
        threading.Thread(target=_answer_once, args=(late,), daemon=True).start()
        assert client.ask(VIDEO_ID, "How?").model == "dsr-tiny"


def _answer_once(server: socket.socket) -> None:
    time.sleep(0.4)
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        body = json.dumps(answer()).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def test_nobody_there_is_said_with_the_url_and_how_to_change_it(connect: Connect) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="is the service running there") as caught:
            connect(url).ask(VIDEO_ID, "How?")
    assert url in str(caught.value)
    assert "DSR_URL" in str(caught.value)
    assert caught.value.request_id is not None
    assert caught.value.status is None


def test_a_body_that_can_be_read_only_once_is_sent_only_once(client: Client, wire: Wire) -> None:
    wire.script(BUSY)
    with pytest.raises(Busy):
        client.upload(Pipe(b"video"))
    assert len(wire.seen) == 1
    wire.script(BUSY, Reply(video(), 201))
    assert client.upload(io.BytesIO(b"video")).id == VIDEO_ID
    assert wire.seen[2].form()["video"] == ["video"]


def test_a_silent_service_is_a_timeout_that_says_how_long(client: Client, wire: Wire) -> None:
    wire.script(Reply(answer(), delay=1.5))
    start = time.monotonic()
    with pytest.raises(TimedOut, match=r"sent nothing for 0\.3 s") as caught:
        client.ask(VIDEO_ID, "How?", timeout=0.3)
    assert time.monotonic() - start < 1.4
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ConnectionFailed)
    assert caught.value.request_id == wire.seen[0].headers["x-request-id"]
    assert len(wire.seen) == 1, "what may be working is not asked again"


def test_a_service_that_takes_no_more_is_a_write_timeout(connect: Connect, tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        big = tmp_path / "big.mp4"
        with big.open("wb") as file:
            file.truncate(100_000_000)
        client = connect(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(TimedOut, match="took nothing more"):
            client.upload(big, timeout=httpx.Timeout(30, write=0.3))


def test_a_broken_connection_is_not_a_timeout(client: Client, wire: Wire) -> None:
    wire.script(Reply([b'{"id": "ans_1"'], cut=True))
    with pytest.raises(ConnectionFailed, match="broke") as caught:
        client.ask(VIDEO_ID, "How?")
    assert not isinstance(caught.value, TimedOut)
    assert len(wire.seen) == 1, "an answer had begun"


def test_negative_retries_are_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="count is -1"):
        connect(retries=-1)
