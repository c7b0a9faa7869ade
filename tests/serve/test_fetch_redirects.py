"""Redirects: not followed by default; where they are, each is checked as the first URL was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serve.errors import Deadline, Unfetchable
from serve.media.fetch import NO_VIDEO
from tests.serve.fetching import SECRET, Names, failing, failure, fetched, fetcher
from tests.serve.media_server import (
    CLIP,
    HOST,
    ok,
    redirect,
    serving,
)


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


def test_redirects_share_one_deadline(tmp_path: Path) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        writer.write(redirect(f"/clip.mp4?{SECRET}"))
        await writer.drain()

    assert isinstance(failing(tmp_path, slow, seconds=0.6, max_redirects=10), Deadline)
