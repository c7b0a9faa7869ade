"""Media URLs in the two routes that take them: `video.url` of answers, and `video_url` of chat completions."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from models.errors import NotAVideo
from models.layout import recognise
from serve.api import create_app
from serve.media.fetch import NO_VIDEO
from serve.messages import Ask, Reply, Said
from serve.settings import Ingress
from serve.store import VideoStore
from serve.trace import Made, Work
from tests.serve.backends import REPLY, BrokenBackend, SpeakingBackend, client
from tests.serve.fetching import SECRET, Names, fetcher, files, strict
from tests.serve.media_server import HOST, authority, ok, serving

CLIP = b"a video"


class Answering(SpeakingBackend):
    async def answer(self, ask: Ask) -> Made[Reply]:
        self.asks.append(ask)
        return Made(REPLY, {"decoder": Work(0.5, "miss")})


class Disappointed(BrokenBackend):
    """Finds no video in the bytes that were fetched."""

    async def answer(self, ask: Ask) -> Made[Reply]:
        raise NotAVideo("no video")

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        raise NotAVideo("no video")
        yield


def fetching_client(backend: BrokenBackend, root: Path, port: int = 443, **how: Any) -> httpx.AsyncClient:
    """Of a service that fetches from 127.0.0.1; given `names`, with the service's own rule."""
    fetching = strict(root, **how) if "names" in how else fetcher(root, port, **how)
    model, store = recognise(Path("models/tiny")).model, VideoStore(str(root), 1_000_000, 3600)
    app = create_app(backend, store, model, Ingress(deadline_seconds=20), fetcher=fetching)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost"
    )


def posted(http: httpx.AsyncClient, url: str, chat: bool = False, **fields: Any) -> httpx.Response:
    async def post() -> httpx.Response:
        async with http:
            return await ask(http, url, chat, **fields)

    return asyncio.run(post())


async def ask(http: httpx.AsyncClient, url: str, chat: bool = False, **fields: Any) -> httpx.Response:
    if not chat:
        return await http.post("/v1/answers", json={"video": {"url": url}, "question": "?", **fields})
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "?"}]
    return await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}], **fields})


@pytest.mark.parametrize("chat", [False, True], ids=["answers", "chat"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_url_is_asked_about_as_an_upload_is(tmp_path: Path, chat: bool, stream: bool) -> None:
    backend = Answering()

    async def go() -> httpx.Response:
        async with serving({"/clip.mp4": ok(CLIP)}) as server, fetching_client(backend, tmp_path, server.port) as http:
            return await ask(http, server.url(), chat, stream=stream)

    response = asyncio.run(go())
    assert response.status_code == 200, response.text
    [asked] = backend.asks
    assert [path.name for path in files(tmp_path)] == [asked.clip.video]
    assert (tmp_path / asked.clip.video).read_bytes() == CLIP


def test_openais_client_may_give_a_url(tmp_path: Path) -> None:
    async def go() -> str:
        async with serving({"/clip.mp4": ok(CLIP)}) as server:
            http: Any = fetching_client(SpeakingBackend(), tmp_path, server.port)
            async with openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=http) as asked:
                part: Any = {"type": "video_url", "video_url": {"url": server.url()}}
                content: Any = [part, {"type": "text", "text": "?"}]
                found = await asked.chat.completions.create(
                    model="dsr-tiny", messages=[{"role": "user", "content": content}]
                )
                return found.choices[0].message.content or ""

    assert asyncio.run(go()) == "It grows."


@pytest.mark.parametrize(
    ("url", "status", "code", "value"),
    [
        pytest.param(f"https://evil.org/?{SECRET}", 422, "url_refused", "evil.org", id="unlisted-host"),
        pytest.param(f"http://{HOST}/?{SECRET}", 422, "url_refused", None, id="http"),
        pytest.param(f"https://169.254.169.254/?{SECRET}", 422, "url_refused", None, id="metadata"),
        pytest.param(f"https://user:hush@{HOST}/?{SECRET}", 422, "url_refused", None, id="user"),
        pytest.param(f"https:/{HOST}/?{SECRET}", 422, "url_refused", None, id="one-slash"),
        pytest.param(f"file:///etc/passwd?{SECRET}", 422, "url_refused", None, id="file"),
        pytest.param(f"https://{HOST}/?{SECRET}", 422, "url_unfetchable", None, id="inner-address"),
    ],
)
@pytest.mark.parametrize("chat", [False, True], ids=["answers", "chat"])
def test_what_cannot_be_fetched_is_a_problem_that_repeats_no_secret(
    tmp_path: Path, chat: bool, url: str, status: int, code: str, value: str | None
) -> None:
    http = fetching_client(BrokenBackend(), tmp_path, names=Names(["10.0.0.1"]))
    response = posted(http, url, chat)
    problem = response.json()["error"] if chat else response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    if chat:
        assert (problem["param"], problem["type"]) == ("video_url", "invalid_request_error")
    else:
        assert (problem["field"], problem["value"]) == ("video.url", value)
    assert "hush" not in response.text
    assert "10.0.0.1" not in response.text
    assert files(tmp_path) == []


@pytest.mark.parametrize("chat", [False, True], ids=["answers", "chat"])
def test_every_way_not_to_reach_a_host_has_the_same_answer(tmp_path: Path, chat: bool) -> None:
    """No such name, an inner address, a closed port, a wrong certificate: who asks cannot tell them apart."""

    async def said(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
        async with http:
            response = await ask(http, url, chat)
        problem: dict[str, Any] = response.json()
        problem.pop("request_id", None)
        return {"status": response.status_code, **problem}

    async def go() -> list[dict[str, Any]]:
        async with serving({}) as server:
            closed = server.port
        async with serving({}, tls=authority().context(["evil.org"])) as liar:
            return [
                await said(fetching_client(BrokenBackend(), tmp_path, names=Names([])), f"https://{HOST}/"),
                await said(fetching_client(BrokenBackend(), tmp_path, names=Names(["10.0.0.1"])), f"https://{HOST}/"),
                await said(fetching_client(BrokenBackend(), tmp_path, names=Names(["::1"])), f"https://{HOST}/"),
                await said(fetching_client(BrokenBackend(), tmp_path, closed), f"https://{HOST}:{closed}/"),
                await said(fetching_client(BrokenBackend(), tmp_path, liar.port), liar.url()),
            ]

    first, *others = asyncio.run(go())
    assert NO_VIDEO in str(first)
    assert all(other == first for other in others)


@pytest.mark.parametrize("chat", [False, True], ids=["answers", "chat"])
@pytest.mark.parametrize(
    "url", [f"https://{HOST}/?{SECRET}", "http://127.0.0.1/", "https:/x?hush", "file:///etc/passwd"]
)
def test_without_the_setting_no_url_is_fetched(tmp_path: Path, chat: bool, url: str) -> None:
    response = posted(client(BrokenBackend(), tmp_path), url, chat)
    problem = response.json()["error"] if chat else response.json()
    assert (response.status_code, problem["code"]) == (400, "not_supported")
    assert problem["param" if chat else "field"] == ("video_url" if chat else "video.url")
    assert "hush" not in response.text


@pytest.mark.parametrize("chat", [False, True], ids=["answers", "chat"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_is_fetched_and_no_video_does_not_stay(tmp_path: Path, chat: bool, stream: bool) -> None:
    async def go() -> httpx.Response:
        async with (
            serving({"/clip.mp4": ok(b"<html>an inner page</html>")}) as server,
            fetching_client(Disappointed(), tmp_path, server.port) as http,
        ):
            return await ask(http, server.url(), chat, stream=stream)

    response = asyncio.run(go())
    assert response.status_code == 415
    assert "inner page" not in response.text
    assert files(tmp_path) == []


def test_the_requests_own_timeout_bounds_the_fetch(tmp_path: Path) -> None:
    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def go() -> httpx.Response:
        async with (
            serving({"/clip.mp4": silence}) as server,
            fetching_client(BrokenBackend(), tmp_path, server.port) as http,
        ):
            return await ask(http, server.url(), timeout=0.1)

    response = asyncio.run(go())
    assert (response.status_code, response.json()["limit"]) == (504, 0.1)


@pytest.mark.parametrize("coding", ["base64", "percent"])
def test_a_data_url_larger_than_a_body_may_be_is_refused_before_it_is_decoded(tmp_path: Path, coding: str) -> None:
    bomb = base64.b64encode(bytes(150_000)).decode() if coding == "base64" else "%00" * 50_000
    url = f"data:video/mp4;base64,{bomb}" if coding == "base64" else f"data:video/mp4,{bomb}"
    response = posted(client(BrokenBackend(), tmp_path), url, chat=True)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    assert files(tmp_path) == []
