"""Servers that flood, drip, lie about who they are, or do not speak HTTP: no video, in time, within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.errors import ExplainedError
from serve.errors import Deadline, TooLarge, Unfetchable
from serve.media.fetch import NO_VIDEO, Fetcher
from serve.settings import MediaUrls
from serve.store import VideoStore
from tests.serve.fetching import SECRET, Names, failing, failure, fetched, fetcher, files, only
from tests.serve.media_server import (
    CHUNKED,
    CLIP,
    HEAD,
    HOST,
    Answer,
    authority,
    endless,
    ok,
    redirect,
    serving,
    silence,
)

LIMIT = 100_000
KIB64 = b"x" * 65536


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(HEAD + b"\r\n", KIB64, id="until-close"),
        pytest.param(CHUNKED, b"10000\r\n" + KIB64 + b"\r\n", id="chunked"),
        pytest.param(HEAD + b"Content-Length: 99999999999\r\n\r\n", KIB64, id="announced"),
        pytest.param(HEAD + b"Content-Length: 100001\r\n\r\n", KIB64, id="announced-by-one"),
        pytest.param(HEAD + b"Content-Length: 99999999999\r\n" + b"\r\n", b"", id="announced-and-never-sent"),
    ],
)
def test_a_body_without_end_is_cut_at_the_limit(tmp_path: Path, head: bytes, piece: bytes) -> None:
    sent: list[int] = []
    error = failing(tmp_path, endless(head, piece, sent), max_bytes=LIMIT)
    assert (type(error), error.limit) == (TooLarge, LIMIT)
    assert isinstance(error.value, int)
    assert error.value > LIMIT
    assert sum(sent) < 20_000_000, "no more was taken in than buffers of sockets hold"


def test_a_body_of_just_the_limit_is_taken(tmp_path: Path) -> None:
    async def go() -> bytes:
        async with serving({"/clip.mp4": ok(CLIP[:LIMIT])}) as server:
            return await fetched(fetcher(tmp_path, server.port, max_bytes=LIMIT), server.url(), tmp_path)

    assert len(asyncio.run(go())) == LIMIT
    assert isinstance(failing(tmp_path / "more", ok(CLIP[: LIMIT + 1]), max_bytes=LIMIT), TooLarge)


def test_the_store_may_be_smaller_than_the_limit(tmp_path: Path) -> None:
    async def go() -> ExplainedError:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:
            fetching = fetcher(tmp_path, server.port)
            fetching._store = VideoStore(str(tmp_path), 1000, 3600)
            with pytest.raises(TooLarge) as caught:
                await fetching.keep(server.url(), "video.url")
            return caught.value

    assert asyncio.run(go()).limit == 1000
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(silence, id="no-answer"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nX: ", b"a", [], 0.02), id="head-by-the-byte"),
        pytest.param(endless(HEAD + b"\r\n", b"a", [], 0.02), id="body-by-the-byte"),
        pytest.param(endless(CHUNKED, b"1\r\na\r\n", [], 0.02), id="chunks-by-the-byte"),
        pytest.param(endless(CHUNKED + b"1;", b"a", [], 0.02), id="chunk-extension-by-the-byte"),
        pytest.param(endless(HEAD + b"Content-Length: 9\r\n\r\n", b"", [], 0.02), id="body-that-never-comes"),
    ],
)
def test_a_slow_drip_ends_at_the_deadline(tmp_path: Path, answer: Answer) -> None:
    began = time.monotonic()
    error = failing(tmp_path, answer, seconds=0.4)
    assert (type(error), error.limit) == (Deadline, 0.4)
    assert time.monotonic() - began < 10


def test_a_name_that_takes_for_ever_ends_at_the_deadline(tmp_path: Path) -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    fetching = fetcher(tmp_path, seconds=0.1)
    fetching._lookup = hang
    assert isinstance(asyncio.run(failure(fetching, f"https://{HOST}/", tmp_path)), Deadline)


def test_a_handshake_that_takes_for_ever_ends_at_the_deadline(tmp_path: Path) -> None:
    async def go() -> ExplainedError:
        async with serving({}, plain=True) as server:  # it waits for a request, and we for its certificate
            return await failure(fetcher(tmp_path, server.port, seconds=0.3), server.url(), tmp_path)

    assert isinstance(asyncio.run(go()), Deadline)


@pytest.mark.parametrize(
    ("names", "days"),
    [
        pytest.param(["evil.org"], 1, id="other-name"),
        pytest.param(["*.org"], 1, id="wildcard-too-wide"),
        pytest.param(["example.org"], 1, id="name-above"),
        pytest.param([HOST], -1, id="expired"),
    ],
)
def test_a_wrong_certificate_is_no_video(tmp_path: Path, names: list[str], days: int) -> None:
    async def go() -> None:
        async with serving({"/clip.mp4": ok(CLIP)}, tls=authority().context(names, days)) as server:
            error = await failure(fetcher(tmp_path, server.port), server.url(), tmp_path)
            assert (error.message, server.heads) == (NO_VIDEO, [])

    asyncio.run(go())


def test_an_unknown_authority_is_no_video(tmp_path: Path) -> None:
    async def go() -> None:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:
            fetching = Fetcher(
                MediaUrls(enabled=True, hosts=(HOST,), ports=(server.port,)),
                VideoStore(str(tmp_path), 10**9, 3600),
                lookup=Names(["127.0.0.1"]),
                may_connect=only("127.0.0.1"),
            )
            error = await failure(fetching, server.url(), tmp_path)
            assert (error.message, server.heads) == (NO_VIDEO, [])

    asyncio.run(go())


def test_a_server_without_tls_is_no_video(tmp_path: Path) -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    async def go() -> ExplainedError:
        listening = await asyncio.start_server(refusing, "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            return await failure(fetcher(tmp_path, port), f"https://{HOST}:{port}/", tmp_path)

    assert asyncio.run(go()).message == NO_VIDEO


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "GZIP", "x-bomb"])
def test_a_compressed_body_is_not_decoded(tmp_path: Path, coding: str) -> None:
    error = failing(tmp_path, ok(CLIP, f"Content-Encoding: {coding}"))
    assert (type(error), error.message) == (Unfetchable, "the URL's server sends the video compressed")


@pytest.mark.parametrize("status", ["204 No", "206 Partial", "304 Same", "401 No", "404 No", "500 Oh", "999 What"])
def test_another_status_is_said_by_its_number_alone(tmp_path: Path, status: str) -> None:
    head = f"HTTP/1.1 {status} of secret-host\r\nContent-Length: 6\r\nServer: secret\r\n\r\n".encode()
    error = failing(tmp_path, head + b"secret")
    assert (type(error), error.value) == (Unfetchable, int(status[:3]))
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"220 smtp.example.org ESMTP\r\n", id="smtp"),
        pytest.param(b"+PONG\r\n\r\n", id="redis"),
        pytest.param(b"HTTP 200 OK\r\n\r\n", id="no-version"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="upgrade"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + ok(CLIP), id="many-1xx"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, id="huge-head"),
        pytest.param(HEAD + b"X: a\r\n" * 50_000 + b"\r\n", id="many-headers"),
        pytest.param(HEAD + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n123456789", id="two-lengths"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", id="negative-length"),
        pytest.param(HEAD + b"Content-Length: 1e3\r\n\r\n", id="odd-length"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 500 + b"\r\n\r\n", id="length-without-end"),
        pytest.param(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="transfer-gzip"),
        pytest.param(CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", id="bad-chunk"),
        pytest.param(CHUNKED + b"fffffffffffffffffffff\r\n", id="chunk-without-end"),
        pytest.param(CHUNKED + b"1;" + b"a" * 200_000, id="huge-chunk-extension"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n", id="cut-chunks"),
        pytest.param(HEAD + b"Content-Length: 100\r\n\r\nonly this", id="cut-body"),
        pytest.param(HEAD + b" folded: x\r\n\r\n", id="bad-header"),
    ],
)
def test_what_is_no_http_is_no_video(tmp_path: Path, answer: bytes) -> None:
    error = failing(tmp_path, answer)
    assert (type(error), error.message, error.value) == (Unfetchable, NO_VIDEO, None)


def test_no_failure_tells_the_secret_in_the_url_nor_does_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[tuple[Answer, dict[str, Any]]] = [
        (b"+PONG\r\n", {}),
        (redirect(f"https://evil.org/?{SECRET}"), {"max_redirects": 1}),
        (redirect(f"http://{HOST}/?{SECRET}"), {"max_redirects": 1}),
        (ok(CLIP), {"max_bytes": 10}),
        (ok(CLIP), {"names": Names(["10.0.0.1"])}),
        (silence, {"seconds": 0.1}),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", {}),
    ]
    with caplog.at_level(logging.DEBUG):
        errors = [failing(tmp_path, answer, **settings) for answer, settings in answers]
    assert len(caplog.records) >= 5
    assert any("10.0.0.1" in record.getMessage() for record in caplog.records), "the operator is told the reason"
    assert "hush" not in caplog.text
    assert not any("hush" in f"{vars(error)}" or "10.0.0.1" in f"{vars(error)}" for error in errors)
