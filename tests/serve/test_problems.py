from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request

from models import errors as model_errors
from models.errors import InputError, InvalidQuestion, NotAVideo, OutOfLimits, Undecodable
from serve import errors
from serve.errors import ServiceError
from serve.problems import REDACTED, TABLE, describe, install, presentable
from serve.schemas import AnswerRequest, Problem

ID = "vid_" + "0a" * 32


def raising(error: Exception) -> FastAPI:
    app = FastAPI()
    install(app, max_body_bytes=10_000)

    @app.get("/raise")
    async def fail() -> None:
        raise error

    return app


def ask(app: FastAPI, method: str = "GET", path: str = "/raise", **how: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **how)

    return asyncio.run(send())


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = response.json()
    assert list(said) == list(Problem.model_fields)
    assert said["status"] == response.status_code
    assert said["request_id"] == response.headers["x-request-id"]
    assert said["type"] == f"urn:dsr:problem:{said['code']}"
    return said


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("no"), 422, "invalid_input"),
        (NotAVideo("no"), 415, "not_a_video"),
        (Undecodable("no"), 422, "undecodable_video"),
        (OutOfLimits("no", field="frames"), 422, "out_of_limits"),
        (OutOfLimits("no", field="bytes"), 413, "too_large"),
        (OutOfLimits("no", field="video.bytes"), 413, "too_large"),
        (OutOfLimits("no", field="header_bytes"), 422, "out_of_limits"),
        (InvalidQuestion("no"), 422, "invalid_question"),
        (errors.Malformed("no"), 400, "malformed_request"),
        (errors.NotSupported("no"), 400, "not_supported"),
        (errors.Unauthorized("no"), 401, "unauthorized"),
        (errors.UnknownVideo("no"), 404, "unknown_video"),
        (errors.TooLarge("no"), 413, "too_large"),
        (errors.UrlRefused("no"), 422, "url_refused"),
        (errors.Unfetchable("no"), 422, "url_unfetchable"),
        (errors.Busy("no"), 429, "busy"),
        (errors.NotReady("no"), 503, "not_ready"),
        (errors.StageLost("no"), 503, "stage_lost"),
        (errors.Deadline("no"), 504, "deadline_exceeded"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(415), 415, "unsupported_media_type"),
        (HTTPException(418, {"not": "text"}), 418, "http_418"),
        (RuntimeError("/srv/secret/path"), 500, "internal_error"),
    ],
)
def test_each_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    said = problem(ask(raising(error)))
    assert (said["status"], said["code"]) == (status, code)


def test_field_value_and_limit_are_said() -> None:
    said = problem(ask(raising(OutOfLimits("31 frames; the limit is 30", field="frames", value=31, limit=30))))
    assert (said["field"], said["value"], said["limit"]) == ("frames", 31, 30)
    assert said["detail"] == "31 frames; the limit is 30"


def all_kinds(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(kind for child in root.__subclasses__() for kind in all_kinds(child))]


def test_the_table_has_every_type_and_the_status_that_the_type_itself_has() -> None:
    ours = [
        k for k in all_kinds(InputError) + all_kinds(ServiceError) if k.__module__ in ("models.errors", "serve.errors")
    ]
    assert set(ours) == set(TABLE)
    for kind in all_kinds(ServiceError):
        if issubclass(kind, ServiceError) and kind in TABLE:
            assert TABLE[kind][0] == kind.status
    assert model_errors.CheckpointError not in TABLE


def test_a_subclass_that_the_table_has_not_is_answered_as_its_parent() -> None:
    class Narrower(OutOfLimits):
        code = "narrower"

    said = problem(ask(raising(Narrower("no"))))
    assert (said["status"], said["title"], said["code"]) == (422, "Out of limits", "narrower")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret path /srv/x"), model_errors.CheckpointError("/srv/weights is missing"), KeyError("internal")],
)
def test_an_unexpected_error_tells_the_client_nothing_and_the_log_everything(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "serve.problems"):
        response = ask(raising(error))
    said = problem(response)
    assert said["code"] == "internal_error"
    assert str(error) not in response.text
    assert "Error" not in said["detail"]
    [record] = caplog.records
    assert said["request_id"] in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_expected_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for error in (NotAVideo("no"), errors.Busy("no"), HTTPException(503)):
        ask(raising(error))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.Busy("full"), "1"),
        (errors.Busy("full", retry_after=0.2), "1"),
        (errors.Busy("full", retry_after=6.1), "7"),
        (errors.NotReady("loading"), "5"),
        (HTTPException(503), "5"),
        (HTTPException(429, headers={"Retry-After": "9"}), "9"),
        (errors.Deadline("late"), None),
        (NotAVideo("no"), None),
    ],
)
def test_429_and_503_say_when_to_come_back_in_whole_seconds(error: Exception, seconds: str | None) -> None:
    assert ask(raising(error)).headers.get("retry-after") == seconds


def test_the_frameworks_headers_are_kept() -> None:
    response = ask(raising(RuntimeError()), "POST")
    assert problem(response)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET"
    assert ask(raising(errors.Unauthorized("no"))).headers["www-authenticate"].startswith("Bearer, Basic")


def parsing() -> FastAPI:
    app = FastAPI()
    install(app, max_body_bytes=10_000)

    @app.post("/parse")
    async def parse(body: AnswerRequest, verbose: bool = False) -> None:
        assert not verbose

    return app


@pytest.mark.parametrize(
    ("how", "status", "code", "field"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed_request", None),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 400, "malformed_request", None),
        ({}, 400, "malformed_request", None),
        ({"json": {"question": "?"}}, 400, "malformed_request", "video"),
        ({"json": {"question": "?", "video": {"id": ID, "x": 1}}}, 400, "malformed_request", "video.x"),
        ({"json": {"question": "?", "video": {"id": ID}, "frames": 9999}}, 422, "out_of_limits", "frames"),
        ({"json": {"question": "", "video": {"id": ID}}}, 422, "invalid_question", "question"),
        ({"json": {"question": "?", "video": {"id": ID}, "geometry": "x"}}, 422, "invalid_input", "geometry"),
        (
            {"json": {"question": "?", "video": {"id": ID}}, "params": {"verbose": "x"}},
            400,
            "malformed_request",
            "verbose",
        ),
    ],
)
def test_what_fastapi_refuses_has_our_statuses(how: dict[str, Any], status: int, code: str, field: str | None) -> None:
    said = problem(ask(parsing(), "POST", "/parse", **how))
    assert (said["status"], said["code"], said["field"]) == (status, code, field)


def test_numbers_that_json_cannot_hold_are_said_as_text() -> None:
    body = '{"question": "?", "video": {"id": "x"}, "temperature": %s}'
    for number, text in (("1e999", "inf"), ("NaN", "nan")):
        response = ask(parsing(), "POST", "/parse", content=body % number, headers={"content-type": "application/json"})
        assert problem(response)["value"] == text
    huge = InputError("no", value=10**30, limit=2**53)
    assert json.loads(describe(huge, "r").model_dump_json())["value"] == str(10**30)
    assert describe(huge, "r").limit == 2**53


def test_the_code_of_the_problem_is_left_for_the_metrics() -> None:
    app, seen = raising(errors.Busy("full")), []

    class Spy:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            seen.append(scope["state"]["problem_code"])

    app.add_middleware(Spy)
    ask(app)
    assert seen == ["busy"]


def test_a_client_that_went_away_is_not_logged_as_our_error(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    install(app, max_body_bytes=100)

    @app.post("/read")
    async def read(request: Request) -> None:
        await request.body()

    async def scenario() -> list[int]:
        sent: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "path": "/read", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        return sent

    assert asyncio.run(scenario())[0] == 400
    assert caplog.records == []


KEY = "0123456789abcdef0123456789ABCDEF"


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "aBcDeFgHiJkLmNoPqR",
        "sk-" + "proj-abcdefghijklmnop",
        "ghp_" + "a1b2c3d4e5f6g7h8",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "Bearer abcdef123",
        "basic dXNlcjpwdw==",
        KEY,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END",
        "api_key=abc",
        "X-Signature: abc",
        "password: hunter2",
        '"access_token": "abc"',
    ],
)
def test_what_looks_like_a_secret_is_not_sent_back(secret: str) -> None:
    error = InputError(f"this is wrong: {secret}", field="question", value=f"look: {secret} here")
    said = describe(error, "r").model_dump_json()
    assert REDACTED in said
    for part in secret.split():
        if len(part) > 9:
            assert part not in said


def test_the_credentials_in_a_url_are_not_sent_back_but_its_host_is() -> None:
    text = presentable("https://user:pw@example.org/a.mp4?X-Amz-Signature=abc&part=1", 200)
    assert "example.org/a.mp4" in text
    for part in ("user", "pw", "abc"):
        assert part not in text


@pytest.mark.parametrize("field", ["password", "hf_token", "authorization", "headers.cookie", "api-key"])
def test_the_value_of_a_field_that_holds_secrets_is_not_sent_back(field: str) -> None:
    assert describe(InputError("no", field=field, value="x"), "r").value == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"no video {ID} is held",
        "prompt and answer need 9000 tokens, the model has 8192: ask for fewer frames or tokens",
        "max_tokens: Input should be less than or equal to 4096",
        "How does the distance between the red car and the camera change?",
        "https://example.org/videos/2024/clip-17.mp4",
        "internationalisation-and-localisation-of-everything",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert presentable(text, 200) == text


def test_long_texts_are_cut_and_strange_ones_made_harmless() -> None:
    assert presentable("é" * 300, 200) == "é" * 199 + "…"
    assert presentable("a\x00\x1b[31mb\r\nc\u202e", 200) == "a  [31mb  c "
    assert presentable("\ud800", 200) == "?"
    said = problem(ask(raising(InputError("\ud800" * 5000, field="\x00" * 5000, value="\ud800x"))))
    assert said["value"] == "?x"
    assert len(said["detail"]) <= 600
    assert len(said["field"]) <= 200


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "a1" * 10**6, "-" * 10**6, "://" * 10**6, "token" * 10**6, "eyJ" * 10**6]
)
def test_no_text_takes_long_to_clean(text: str) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(1):
            await asyncio.to_thread(presentable, text, 600)

    asyncio.run(scenario())
