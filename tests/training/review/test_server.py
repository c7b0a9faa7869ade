"""The server: who may reach it, what it saves, what it gives away, and parts of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.training.review.conftest import RECORDS
from training.review import page
from training.review.decisions import FILE as DECISIONS
from training.review.decisions import read
from training.review.items import id_of
from training.review.server import ReviewServer

ID = id_of(RECORDS[0])


@pytest.fixture
def folder(asked: Path, tmp_path: Path) -> Path:
    page.write(RECORDS, asked.parent, asked.parent, tmp_path / "review", "a set")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "review"


@pytest.fixture
def client(folder: Path) -> Iterator[httpx.Client]:
    with ReviewServer(folder) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with httpx.Client(base_url=server.url) as client:
            yield client
        server.shutdown()
        thread.join()


def test_a_decision_is_saved_and_given_back(client: httpx.Client, folder: Path) -> None:
    assert client.get("decisions").json() == []
    body = {"id": ID, "decision": "drop", "note": "the box is <wrong>"}
    assert client.post("decisions", json=body).json() == {"saved": 1}
    [saved] = client.get("decisions").json()
    assert {name: saved[name] for name in body} == body
    assert saved["at"].endswith("+00:00"), "the server's time"
    assert read(folder / DECISIONS)[ID].note == "the box is <wrong>"
    assert len((folder / DECISIONS).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b'{"id": "0000000000000000", "decision": "keep"}', 400, "no question of this page"),
        (b'{"id": "%s", "decision": "burn"}' % ID.encode(), 400, "'burn' is none of"),
        (b'{"id": ["x"], "decision": "keep"}', 400, "must be text"),
        (b"not JSON", 400, "Expecting value"),
        (b"[]", 400, "an object with id and decision"),
        (b" " * 10_001, 413, "10001 bytes, at most 10000"),
    ],
)
def test_what_is_no_decision_is_refused(client: httpx.Client, folder: Path, body: bytes, status: int, why: str) -> None:
    reply = client.post("decisions", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    assert why in reply.json()["error"]
    assert not (folder / DECISIONS).exists()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_a_page_of_another_site_cannot_decide(
    client: httpx.Client, folder: Path, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"id": ID, "decision": "drop"})
    reply = client.post("decisions", content=body, headers={"Content-Type": "application/json"} | headers)
    assert reply.status_code == status
    assert not (folder / DECISIONS).exists()
    if "Host" in headers:
        assert client.get("decisions", headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "clips", "none.html", "clips/%00"])
def test_only_files_of_the_page_are_given(client: httpx.Client, path: str) -> None:
    request = client.build_request("GET", "x")
    request.url = request.url.copy_with(raw_path=f"/{path}".encode())
    assert client.send(request).status_code == 404


def test_a_part_of_a_clip_can_be_asked_for(client: httpx.Client, asked: Path) -> None:
    whole = (asked.parent / "one.mp4").read_bytes()
    [file] = [name for name in ("clips/0.mp4", "clips/1.mp4") if client.get(name).content == whole]
    part = client.get(file, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    assert client.get(file, headers={"Range": "bytes=10-"}).content == whole[10:]
    beyond = client.get(file, headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["Connection"]) == (416, "close")
    assert client.get("").headers["Content-Type"] == "text/html"


def test_a_folder_without_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no page of questions"):
        ReviewServer(tmp_path)
