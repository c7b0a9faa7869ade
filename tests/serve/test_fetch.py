"""Fetching from a real HTTPS server on loopback, from an honest one to the most hostile that there is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from models.errors import ExplainedError
from serve.errors import Deadline, NotSupported, TooLarge, Unfetchable
from serve.media.fetch import NO_VIDEO, Fetcher
from serve.settings import MediaUrls
from serve.store import FileStore
from tests.serve.fetching import SECRET, Names, failure, fetcher, files, only
from tests.serve.media_server import HOST, Answer, authority, ok, redirect, serving

CLIP = bytes(range(256)) * 4000
HEAD = b"HTTP/1.1 200 OK\r\n"
LIMIT = 100_000


async def fetched(fetching: Fetcher, url: str, root: Path) -> bytes:
    video = await fetching.keep(url, "video.url")
    return (root / video).read_bytes()


def failing(root: Path, answer: Answer, **settings: Any) -> ExplainedError:
    """What a fetch of `answer` fails with."""

    async def go() -> ExplainedError:
        async with serving({f"/clip.mp4?{SECRET}": answer}) as server:
            return await failure(fetcher(root, server.port, **settings), server.url(f"/clip.mp4?{SECRET}"), root)

    return asyncio.run(go())


def test_a_video_is_fetched_and_stored_with_the_request_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def go() -> None:
        async with serving({"/a%20b?x=/%2F&y=?": ok(CLIP)}) as server:
            url = server.url("/a%20b?x=/%2F&y=?#part", host="MEDIA.example.ORG")
            assert await fetched(fetcher(tmp_path, server.port), url, tmp_path) == CLIP
        assert server.names == [HOST]
        first, *headers = server.heads[0].strip().split("\r\n")
        assert first == "GET /a%20b?x=/%2F&y=? HTTP/1.1"
        assert sorted(headers) == [
            "Accept-Encoding: identity",
            "Accept: */*",
            "Connection: close",
            f"Host: {HOST}:{server.port}",
            "User-Agent: dsr-serve",
        ]

    asyncio.run(go())
    assert len(files(tmp_path)) == 1


def by_chunks(size: int) -> bytes:
    chunks = [CLIP[start : start + size] for start in range(0, len(CLIP), size)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(CLIP), id="length"),
        pytest.param(HEAD + b"\r\n" + CLIP, id="until-close"),
        pytest.param(by_chunks(100), id="small-chunks"),
        pytest.param(by_chunks(10**6), id="large-chunks"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(CLIP), id="early-hints"),
        pytest.param(ok(CLIP, "Content-Encoding: identity"), id="identity"),
    ],
)
def test_every_form_of_a_body_is_read(tmp_path: Path, answer: bytes) -> None:
    async def go() -> bytes:
        async with serving({"/clip.mp4": answer}) as server:
            return await fetched(fetcher(tmp_path, server.port), server.url(), tmp_path)

    assert asyncio.run(go()) == CLIP


def test_nothing_is_fetched_where_it_is_off(tmp_path: Path) -> None:
    off = Fetcher(MediaUrls(hosts=(HOST,)), FileStore(str(tmp_path), 1000, 3600), lookup=(names := Names(["8.8.8.8"])))
    error = asyncio.run(failure(off, f"https://{HOST}/", tmp_path))
    assert (type(error), names.asked) == (NotSupported, [])


def test_a_rebinding_name_leads_to_the_checked_address_alone(tmp_path: Path) -> None:
    """The name first has an address that is allowed, and from then on one that is not, where a trap listens."""

    async def go() -> None:
        async with (
            serving({"/clip.mp4": ok(CLIP)}, address="127.0.0.2") as honest,
            serving({"/clip.mp4": ok(b"secret")}, address="127.0.0.1", port=honest.port) as trap,
        ):
            names = Names(["127.0.0.2"], ["127.0.0.1"])
            fetching = fetcher(tmp_path, honest.port, names, only("127.0.0.2"))
            assert await fetched(fetching, honest.url(), tmp_path) == CLIP
            assert (len(names.asked), honest.connections, trap.connections) == (1, 1, 0)

    asyncio.run(go())


def test_a_rebinding_name_is_caught_at_the_next_hop(tmp_path: Path) -> None:
    async def go() -> None:
        async with (
            serving({"/clip.mp4": redirect("/next.mp4")}, address="127.0.0.2") as honest,
            serving({"/next.mp4": ok(b"secret")}, address="127.0.0.1", port=honest.port) as trap,
        ):
            names = Names(["127.0.0.2"], ["127.0.0.1"])
            fetching = fetcher(tmp_path, honest.port, names, only("127.0.0.2"), max_redirects=3)
            error = await failure(fetching, honest.url(), tmp_path)
            assert (error.message, len(names.asked), trap.connections) == (NO_VIDEO, 2, 0)

    asyncio.run(go())


def test_nothing_is_looked_up_again_while_connecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> bytes:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:

            def look_up(*_: Any, **__: Any) -> None:
                raise AssertionError("a second look-up")

            monkeypatch.setattr("socket.getaddrinfo", look_up)
            return await fetched(fetcher(tmp_path, server.port), server.url(), tmp_path)

    assert asyncio.run(go()) == CLIP


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.9"], ["127.0.0.9", "127.0.0.1"]])
def test_mixed_answers_lead_nowhere(tmp_path: Path, addresses: list[str]) -> None:
    async def go() -> None:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:
            error = await failure(fetcher(tmp_path, server.port, Names(addresses)), server.url(), tmp_path)
            assert (error.message, server.connections) == (NO_VIDEO, 0)

    asyncio.run(go())


def test_the_next_address_is_tried_where_the_first_is_closed(tmp_path: Path) -> None:
    async def go() -> bytes:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:
            names = Names(["127.0.0.3", "127.0.0.1"])
            fetching = fetcher(tmp_path, server.port, names, only("127.0.0.1", "127.0.0.3"))
            return await fetched(fetching, server.url(), tmp_path)

    assert asyncio.run(go()) == CLIP


def test_a_redirect_is_not_followed_by_default(tmp_path: Path) -> None:
    error = failing(tmp_path, redirect("/other.mp4"))
    assert (type(error), error.limit) == (Unfetchable, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_where_they_are_allowed_and_checked_each(tmp_path: Path, status: int) -> None:
    async def go() -> None:
        async with serving({"/2?q=1": ok(CLIP)}) as server:
            server.answers["/clip.mp4"] = redirect("/1", status)
            server.answers["/1"] = redirect(server.url("/2?q=1", host="other.example.org"), status)
            names = Names(["127.0.0.1"])
            fetching = fetcher(tmp_path, server.port, names, max_redirects=2)
            assert await fetched(fetching, server.url(), tmp_path) == CLIP
            assert names.asked == [HOST, HOST, "other.example.org"]
            assert server.names == names.asked

    asyncio.run(go())


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("http://{host}:{port}/x", id="downgrade-to-http"),
        pytest.param("http://169.254.169.254/latest/meta-data/", id="metadata-http"),
        pytest.param("https://169.254.169.254/latest/meta-data/", id="metadata-https"),
        pytest.param("https://127.0.0.1:{port}/x", id="loopback"),
        pytest.param("https://2130706433:{port}/x", id="loopback-decimal"),
        pytest.param("https://[::1]:{port}/x", id="loopback-v6"),
        pytest.param("https://localhost:{port}/x", id="localhost"),
        pytest.param("https://evil.org:{port}/x", id="unlisted-host"),
        pytest.param("https://{host}:22/x", id="unlisted-port"),
        pytest.param("https://{host}/x", id="port-443-unlisted"),
        pytest.param("https://user:pw@{host}:{port}/x", id="user"),
        pytest.param("https://{host}:{port}\\@127.0.0.1/x", id="backslash"),
        pytest.param("//evil.org:{port}/x", id="relative-scheme"),
        pytest.param("//{host}:{port}/x", id="relative-scheme-same-host"),
        pytest.param("/\\evil.org/x", id="slash-backslash"),
        pytest.param("x", id="relative-path"),
        pytest.param("?x", id="relative-query"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("data:video/mp4;base64,AAAA", id="data"),
        pytest.param("gopher://127.0.0.1:6379/_FLUSHALL", id="gopher"),
        pytest.param("", id="empty"),
        pytest.param("https://{host}:{port}/\u00fc", id="not-ascii"),
        pytest.param("https://{host}:{port}/x, https://evil.org/", id="two-in-one"),
    ],
)
def test_a_redirect_to_elsewhere_is_refused_and_not_repeated(tmp_path: Path, location: str) -> None:
    async def go() -> None:
        async with serving({"/x": ok(b"secret")}) as server:
            place = location.format(host=HOST, port=server.port)
            server.answers["/clip.mp4"] = redirect(place)
            names = Names(["127.0.0.1"])
            error = await failure(fetcher(tmp_path, server.port, names, max_redirects=5), server.url(), tmp_path)
            assert error.message == "the URL redirects to where this service fetches no videos"
            assert (type(error), error.value, error.limit) == (Unfetchable, None, None)
            assert (len(names.asked), server.connections) == (1, 1)

    asyncio.run(go())


def test_a_redirect_to_a_listed_host_at_a_forbidden_address_is_not_followed(tmp_path: Path) -> None:
    async def go() -> None:
        async with serving({}) as server:
            server.answers["/clip.mp4"] = redirect(server.url("/x", host="other.example.org"))
            names = Names(["127.0.0.1"], ["10.0.0.1"])
            error = await failure(fetcher(tmp_path, server.port, names, max_redirects=1), server.url(), tmp_path)
            assert (error.message, server.connections) == (NO_VIDEO, 1)

    asyncio.run(go())


def test_a_redirect_loop_ends_at_the_limit(tmp_path: Path) -> None:
    async def go() -> None:
        async with serving({"/clip.mp4": redirect("/clip.mp4")}) as server:
            error = await failure(fetcher(tmp_path, server.port, max_redirects=3), server.url(), tmp_path)
            assert (error.limit, server.connections) == (3, 4)

    asyncio.run(go())


def endless(head: bytes, piece: bytes, sent: list[int], wait: float = 0) -> Callable[..., Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            sent.append(len(piece))
            await asyncio.sleep(wait)

    return answer


KIB64 = b"x" * 65536
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


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
            fetching._store = FileStore(str(tmp_path), 1000, 3600)
            with pytest.raises(TooLarge) as caught:
                await fetching.keep(server.url(), "video.url")
            return caught.value

    assert asyncio.run(go()).limit == 1000
    assert files(tmp_path) == []


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


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
    assert time.monotonic() - began < 4


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


def test_redirects_share_one_deadline(tmp_path: Path) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        writer.write(redirect(f"/clip.mp4?{SECRET}"))
        await writer.drain()

    assert isinstance(failing(tmp_path, slow, seconds=0.6, max_redirects=10), Deadline)


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
                FileStore(str(tmp_path), 10**9, 3600),
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


def test_so_many_are_fetched_at_once_and_the_others_wait(tmp_path: Path) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(ok(CLIP))
        await writer.drain()

    async def go() -> int:
        async with serving({"/clip.mp4": slow}) as server:
            fetching = fetcher(tmp_path, server.port, at_once=2)
            await asyncio.gather(*(fetching.keep(server.url(), "video.url") for _ in range(5)))
            assert server.connections == 5
            return server.most

    assert asyncio.run(go()) <= 2


def test_a_client_that_leaves_takes_its_fetch_with_it(tmp_path: Path) -> None:
    async def go() -> None:
        begun, over = asyncio.Event(), asyncio.Event()

        async def answer(writer: asyncio.StreamWriter) -> None:
            try:
                begun.set()
                await endless(HEAD + b"\r\n", KIB64, [])(writer)
            finally:
                over.set()

        async with serving({"/clip.mp4": answer}) as server:
            task = asyncio.create_task(fetcher(tmp_path, server.port).keep(server.url(), "video.url"))
            await asyncio.wait_for(begun.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(over.wait(), 5)

    asyncio.run(go())
    assert files(tmp_path) == []
