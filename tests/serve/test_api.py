"""The routes alone, over a backend that hangs or fails: what no healthy stage can be made to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from models.layout import recognise
from models.video import VideoFacts
from serve.api import create_app
from serve.errors import NotReady, StageLost
from serve.messages import Ask, Reply
from serve.settings import Ingress
from serve.store import FileStore
from serve.trace import Made

VIDEO = "vid_" + "0" * 64


class BrokenBackend:
    """Never answers, fails to probe, is not ready."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def answer(self, ask: Ask) -> Made[Reply]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("unreachable")

    async def probe(self, video: str) -> VideoFacts:
        raise StageLost("frames lost its replica 3 times")

    async def ready(self) -> Sequence[str]:
        raise NotReady("not ready: decoder", field="stages", value="decoder")


def client(backend: BrokenBackend, store: Path, checkpoint: str = "models/tiny") -> httpx.AsyncClient:
    settings = Ingress(deadline_seconds=0.2, max_body_bytes=100_000)
    app = create_app(backend, FileStore(str(store), 1_000_000, 3600), recognise(Path(checkpoint)).model, settings)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


def test_a_hung_stage_is_cancelled_at_the_deadline_and_answered_504(tmp_path: Path) -> None:
    async def ask() -> httpx.Response:
        backend = BrokenBackend()
        async with client(backend, tmp_path) as http:
            response = await http.post("/v1/answers", json={"video": {"id": VIDEO}, "question": "?"})
        await asyncio.wait_for(backend.cancelled.wait(), 1)
        return response

    response = asyncio.run(ask())
    assert response.status_code == 504
    problem = response.json()
    assert (problem["code"], problem["limit"]) == ("deadline_exceeded", 0.2)


def test_an_overloaded_or_unready_service_says_when_to_come_back(tmp_path: Path) -> None:
    async def ask() -> list[httpx.Response]:
        async with client(BrokenBackend(), tmp_path) as http:
            return [
                await http.get("/readyz"),
                await http.post("/v1/videos", files={"video": ("x.mp4", b"anything")}),
            ]

    unready, lost = asyncio.run(ask())
    assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
    assert (lost.status_code, lost.json()["code"]) == (503, "stage_lost")
    assert all(int(response.headers["retry-after"]) >= 1 for response in (unready, lost))


def test_geometry_asked_of_a_model_without_it_is_refused_and_not_ignored(tmp_path: Path) -> None:
    async def ask(**fields: str) -> httpx.Response:
        async with client(BrokenBackend(), tmp_path, "models/tiny/decoder") as http:
            return await http.post("/v1/answers", json={"video": {"id": VIDEO}, "question": "?", **fields})

    refused = asyncio.run(ask(geometry="gsm"))
    assert (refused.status_code, refused.json()["field"]) == (400, "geometry")
    assert asyncio.run(ask()).status_code == 504, "a request that does not name geometry goes on"


def test_every_request_is_counted_with_its_route_status_and_problem(tmp_path: Path) -> None:
    async def ask() -> str:
        async with client(BrokenBackend(), tmp_path) as http:
            await http.get("/livez")
            await http.get("/nowhere/at/all")
            await http.post("/v1/answers", content=b"x" * 200_000, headers={"content-type": "application/json"})
            return (await http.get("/metrics")).text

    text = asyncio.run(ask())
    assert 'dsr_requests_total{route="/livez",status="200"}' in text
    assert 'dsr_requests_total{route="unmatched",status="404"}' in text
    assert 'dsr_rejects_total{code="too_large"}' in text
    assert "at/all" not in text


@pytest.mark.parametrize("route", ["/v1/answers", "/v1/videos"])
def test_the_openapi_document_describes_both_forms_of_a_body(tmp_path: Path, route: str) -> None:
    async def fetch() -> dict[str, object]:
        async with client(BrokenBackend(), tmp_path) as http:
            document: dict[str, object] = (await http.get("/openapi.json")).json()
            return document

    operation = asyncio.run(fetch())["paths"][route]["post"]  # type: ignore[index]
    kinds = set(operation["requestBody"]["content"])
    assert kinds == ({"application/json", "multipart/form-data"} if route == "/v1/answers" else {"multipart/form-data"})
    assert "$defs" not in str(operation)
    assert {"413", "415", "422", "429", "503"} <= set(operation["responses"])
