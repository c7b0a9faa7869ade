"""Fetching from a real HTTPS server on loopback: what arrives, and from where; and that names do not rebind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serve.errors import NotSupported
from serve.media.fetch import NO_VIDEO, Fetcher
from serve.settings import MediaUrls
from serve.store import VideoStore
from tests.serve.fetching import Names, failure, fetched, fetcher, files, only
from tests.serve.media_server import (
    CLIP,
    HEAD,
    HOST,
    endless,
    ok,
    redirect,
    serving,
)


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
    off = Fetcher(MediaUrls(hosts=(HOST,)), VideoStore(str(tmp_path), 1000, 3600), lookup=(names := Names(["8.8.8.8"])))
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


KIB64 = b"x" * 65536


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
