"""What stands around Ray's proxy, over applications that answer as Ray does."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problems import MEDIA_TYPE
from serve.proxy import CONTROL, AroundRay, middlewares


def ask(app: ASGIApp, path: str = "/v1/answers", headers: dict[str, str] | None = None) -> httpx.Response:
    async def get() -> httpx.Response:
        assert [getattr(middleware.cls, "__name__", "") for middleware in middlewares()] == ["AroundRay"]
        transport = httpx.ASGITransport(AroundRay(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get(path, headers=headers)

    return asyncio.run(get())


@pytest.mark.parametrize("status", [500, 502, 503])
def test_rays_own_failures_become_problems(status: int) -> None:
    response = ask(PlainTextResponse("ActorDiedError: /tmp/ray/session", status), headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.headers["content-type"]) == (503, MEDIA_TYPE)
    assert (response.json()["code"], response.json()["request_id"]) == ("stage_lost", "mine")
    assert response.headers["x-request-id"] == "mine"
    assert int(response.headers["retry-after"]) >= 1
    assert "ray" not in response.text.lower()


def test_an_insane_request_id_is_not_repeated() -> None:
    response = ask(PlainTextResponse("", 500), headers={"X-Request-ID": "a" * 200})
    assert response.headers["x-request-id"].startswith("req_")


def test_an_application_that_fails_before_it_has_said_anything_is_one_of_them() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the replica is gone")

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        """As Ray's proxy is when a replica dies."""

    for app in (broken, silent):
        response = ask(app)
        assert (response.status_code, response.json()["code"]) == (503, "stage_lost")


def test_a_full_queue_is_429_with_a_time() -> None:
    response = ask(PlainTextResponse("Request dropped due to backpressure", 429, {"retry-after": "1"}))
    assert (response.status_code, response.json()["code"]) == (429, "busy")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("answer", [
    PlainTextResponse("dsr_requests_total 1"),
    PlainTextResponse("success", 200),
    JSONResponse({"code": "internal_error"}, 500, media_type=MEDIA_TYPE),
    JSONResponse({"error": {}}, 503),
    PlainTextResponse("not found", 404),
])  # fmt: skip
def test_all_else_stays_as_it_is(answer: PlainTextResponse | JSONResponse) -> None:
    response = ask(answer)
    assert (response.status_code, response.content) == (answer.status_code, answer.body)


def test_control_headers_are_gone_in_every_spelling_and_others_stay() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await PlainTextResponse("")(scope, receive, send)

    names = [name.decode() for name in CONTROL]
    ask(app, headers=dict.fromkeys([*names, *(n.upper().replace("-", "_") for n in names), "x-request-id"], "1"))
    assert b"x-request-id" in seen
    assert not {name.replace(b"_", b"-") for name in seen} & CONTROL


@pytest.mark.parametrize("path", ["/-/routes", "/-/routes/"])
def test_what_is_deployed_is_not_told(path: str) -> None:
    assert ask(PlainTextResponse("{}"), path).status_code == 404
    assert ask(PlainTextResponse("success"), "/-/healthz").text == "success"
