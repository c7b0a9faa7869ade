"""The routes alone, over a backend that hangs or fails: what no healthy stage can be made to do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.errors import NotAVideo
from models.layout import recognise
from models.video import VideoFacts
from serve.api import create_app
from serve.errors import StageLost, UnknownVideo
from serve.settings import Ingress
from serve.store import VideoStore
from tests.serve.backends import VIDEO, BrokenBackend, SpeakingBackend, client
from tests.serve.direct import until


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of server-sent events."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def asked(backend: BrokenBackend, store: Path, **fields: Any) -> httpx.Response:
    async def post() -> httpx.Response:
        async with client(backend, store) as http:
            return await http.post("/v1/answers", json={"video": {"id": VIDEO}, "question": "?", **fields})

    return asyncio.run(post())


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


def test_a_stream_is_tokens_and_then_the_answer(tmp_path: Path) -> None:
    response = asked(SpeakingBackend(), tmp_path, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    *tokens, (name, answer) = events(response.text)
    assert tokens == [("token", {"text": "It "}), ("token", {"text": "grows."})]
    assert (name, answer["text"], answer["cache"]) == ("answer", "It grows.", {"decoder": "miss", "selector": "hit"})
    assert set(answer["spans"]) == {"decoder"}, "a stage that did nothing has no span"
    assert answer["spans"]["decoder"]["end"] - answer["spans"]["decoder"]["start"] == pytest.approx(0.5, abs=0.1)


def test_what_fails_before_the_first_word_is_an_ordinary_problem(tmp_path: Path) -> None:
    response = asked(SpeakingBackend(before=UnknownVideo("gone", field="video.id")), tmp_path, stream=True)
    assert (response.status_code, response.json()["code"]) == (404, "unknown_video")
    assert response.headers["content-type"].startswith("application/problem+json")


def test_what_fails_after_the_first_word_is_an_error_event(tmp_path: Path) -> None:
    response = asked(SpeakingBackend(after=StageLost("decoder lost its replica 3 times")), tmp_path, stream=True)
    assert response.status_code == 200
    assert [name for name, _ in events(response.text)] == ["token", "error"]
    problem = events(response.text)[-1][1]
    assert (problem["code"], problem["status"]) == ("stage_lost", 503)
    assert problem["request_id"] == response.headers["x-request-id"]
    inside = events(asked(SpeakingBackend(after=RuntimeError("/secret/path")), tmp_path, stream=True).text)[-1][1]
    assert (inside["code"], "/secret" in str(inside)) == ("internal_error", False)


def test_a_stream_that_falls_silent_ends_at_the_deadline_and_ends_the_work(tmp_path: Path) -> None:
    backend = BrokenBackend()
    names = [name for name, _ in events(asked(backend, tmp_path, stream=True).text)]
    assert names == ["token", "token", "error"]
    assert backend.cancelled.is_set()


def test_a_request_may_ask_for_less_time_but_not_for_more(tmp_path: Path) -> None:
    assert asked(BrokenBackend(), tmp_path, timeout=0.05).json()["limit"] == 0.05
    assert asked(BrokenBackend(), tmp_path, timeout=9.0).json()["limit"] == 0.2


def test_a_drawn_answer_has_a_seed_and_a_certain_one_has_none(tmp_path: Path) -> None:
    backend = SpeakingBackend()
    for fields in ({"temperature": 1.0}, {"temperature": 1.0}, {"temperature": 1.0, "seed": 7}, {}):
        asked(backend, tmp_path, stream=True, **fields)
    first, second, given, none = (ask.seed for ask in backend.asks)
    assert first is not None
    assert first != second
    assert (given, none) == (7, None)


def test_videos_are_listed_by_page_told_of_and_deleted_with_what_was_made_of_them(tmp_path: Path) -> None:
    async def go() -> None:
        backend = SpeakingBackend()
        async with client(backend, tmp_path) as http:
            ids = []
            for number in range(5):
                posted = await http.post("/v1/videos", files={"video": ("x.mp4", b"%d" % number)})
                ids.append(posted.json()["id"])
            found, after = [], None
            while True:
                page = (await http.get("/v1/videos", params={"limit": 2, **({"after": after} if after else {})})).json()
                found += [video["id"] for video in page["videos"]]
                after = page["next"]
                if after is None:
                    break
            assert found == sorted(ids)
            facts = (await http.get(f"/v1/videos/{ids[0]}")).json()
            assert (facts["id"], facts["width"], facts["bytes"]) == (ids[0], 64, 1)
            assert (await http.delete(f"/v1/videos/{ids[0]}")).status_code == 204
            assert backend.flushed == [ids[0]]
            for method in ("GET", "DELETE"):
                gone = await http.request(method, f"/v1/videos/{ids[0]}")
                assert (gone.status_code, gone.json()["code"]) == (404, "unknown_video")
            assert (await http.get("/v1/videos", params={"after": "../etc"})).status_code == 400
            assert (await http.get("/v1/videos/..%2f..%2fetc%2fpasswd")).status_code == 404

    asyncio.run(go())


def test_what_all_replicas_report_is_added_up_in_the_metrics(tmp_path: Path) -> None:
    async def scrape(backend: BrokenBackend) -> str:
        async with client(backend, tmp_path) as http:
            return (await http.get("/metrics")).text

    text = asyncio.run(scrape(SpeakingBackend()))
    assert 'dsr_cache_hits_total{cache="prefixes",stage="decoder"} 7.0' in text
    assert 'dsr_cache_bytes{cache="prefixes",stage="decoder"} 130.0' in text
    assert 'dsr_stage_requests{stage="decoder",state="running"} 7.0' in text
    assert 'dsr_stage_replicas{stage="selector"} 0.0' in text
    alone = asyncio.run(scrape(BrokenBackend()))
    assert "dsr_requests_total" in alone, "stages that are away do not take the edge's figures with them"
    assert "dsr_cache_bytes" not in alone


def test_caches_are_flushed_only_where_the_settings_permit_it(tmp_path: Path) -> None:
    async def flush(allow: bool) -> tuple[int, list[str | None]]:
        backend = BrokenBackend()
        store, model = VideoStore(str(tmp_path), 1_000_000, 3600), recognise(Path("models/tiny")).model
        app = create_app(backend, store, model, Ingress(allow_flush=allow))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            return (await http.delete("/v1/caches")).status_code, backend.flushed

    assert asyncio.run(flush(True)) == (204, [None])
    assert asyncio.run(flush(False)) == (400, [])


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


class Rejecting(BrokenBackend):
    """Finds that a video is none when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.asked = asyncio.Event(), 0

    async def probe(self, video: str) -> VideoFacts:
        self.asked += 1
        await self.go.wait()
        raise NotAVideo("the file is empty")


def test_the_same_bytes_from_two_who_send_no_video_are_refused_to_both_for_what_they_are(tmp_path: Path) -> None:
    async def test() -> list[int]:
        backend = Rejecting()
        async with client(backend, tmp_path) as http:
            posts = [asyncio.create_task(http.post("/v1/videos", files={"video": ("x", b"no")})) for _ in range(2)]
            await until(lambda: backend.asked == 2)
            backend.go.set()
            return [(await post).status_code for post in posts]

    assert asyncio.run(test()) == [415, 415]
    assert list(tmp_path.rglob("vid_*")) == [], "the last of them deletes it"
