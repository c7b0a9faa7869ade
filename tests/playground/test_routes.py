"""What the routes hand out: the listed files, with the headers that lock the page in, and nothing else."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from serve import problems
from serve.playground import routes
from serve.playground.routes import HERE, POLICY, TYPES, playground
from tests.playground.canned import SAMPLE

FILES = sorted(path.name for path in HERE.iterdir() if path.suffix in TYPES)


def application(sample: Path | None = SAMPLE) -> FastAPI:
    app = FastAPI()
    playground(app, sample)
    return app


def get(
    path: str, app: FastAPI | None = None, method: str = "GET", headers: dict[str, str] | None = None
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app or application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def test_the_page_is_at_the_root_and_locked_in() -> None:
    response = get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in response.headers["permissions-policy"]
    assert "unsafe" not in POLICY


def test_nothing_in_the_page_needs_another_origin_or_an_inline_line() -> None:
    text = {name: (HERE / name).read_text() for name in FILES}
    for name, content in text.items():
        outside = re.findall(r"https?://[^\s\"']+", content)
        assert set(outside) <= {"http://www.w3.org/2000/svg"}, name
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]* src=)", text["index.html"])
    assert "innerHTML" not in "".join(text.values())


def test_every_file_that_the_page_names_is_served_and_every_served_file_is_named() -> None:
    text = "".join((HERE / name).read_text() for name in FILES)
    named = set(re.findall(r"[\"'](?:\./|playground/)([a-z]+\.[a-z]+)[\"']", text))
    assert named == set(FILES) - {"index.html"}


@pytest.mark.parametrize("name", sorted(set(FILES) - {"index.html"}))
def test_a_file_has_its_type_and_is_not_sent_twice(name: str) -> None:
    response = get(f"/playground/{name}")
    assert response.status_code == 200
    assert response.content == (HERE / name).read_bytes()
    assert response.headers["content-type"] == TYPES[Path(name).suffix]
    assert response.headers["cache-control"] == "no-cache"
    etag = response.headers["etag"]
    again = get(f"/playground/{name}", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert get(f"/playground/{name}", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/playground/",
        "/playground/index.html",
        "/playground/routes.py",
        "/playground/__init__.py",
        "/playground/..%2Froutes.py",
        "/playground/%2e%2e/api.py",
        "/playground/..%2F..%2F..%2Fetc%2Fpasswd",
        "/playground/sample/manifest.json",
        "/playground/sample/..%2Fconfig.json",
        "/playground/sample/%2Fetc%2Fpasswd",
        "/playground/sample",
    ],
)
def test_what_is_not_listed_is_not_served(path: str) -> None:
    assert get(path).status_code == 404


def test_the_sample_clip_comes_in_ranges() -> None:
    whole = (SAMPLE / "clip.mp4").read_bytes()
    response = get("/playground/sample/clip.mp4", headers={"range": "bytes=100-199"})
    assert (response.status_code, response.content) == (206, whole[100:200])
    assert response.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    assert response.headers["content-type"] == "video/mp4"
    assert get("/playground/sample/clip.mp4").content == whole
    head = get("/playground/sample/clip.mp4", method="HEAD")
    assert (head.headers["content-length"], head.content) == (str(len(whole)), b"")


@pytest.mark.parametrize("name", ["clip.mp4", "question.json"])
def test_a_checkpoint_without_a_sample_has_none(name: str, tmp_path: Path) -> None:
    assert get(f"/playground/sample/{name}", application(None)).status_code == 404
    assert get(f"/playground/sample/{name}", application(tmp_path)).status_code == 404


def test_in_the_service_the_routes_answer_problems_and_stay_out_of_the_api_document() -> None:
    app = FastAPI()
    problems.install(app, max_body_bytes=1000)
    playground(app, SAMPLE)
    missing = get("/playground/other.js", app)
    assert missing.headers["content-type"] == problems.MEDIA_TYPE
    assert missing.json()["code"] == "not_found"
    assert get("/", app, method="POST").status_code == 405
    assert get("/openapi.json", app).json()["paths"] == {}


def test_the_embedded_sample_is_what_the_routes_expect() -> None:
    question = get("/playground/sample/question.json").json()
    assert question["question"]
    assert len(question["options"]) >= 2
    assert set(routes.SAMPLE) <= {path.name for path in SAMPLE.iterdir()}
