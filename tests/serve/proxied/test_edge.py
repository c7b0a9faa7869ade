"""The real service behind Ray's own proxy, as in a cluster: what a stranger's headers cannot do, and how it says that a
replica died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from serve.proxy import CONTROL
from tests.clips import make_clip
from tests.fresh import free_port
from tests.processes import replicas
from tests.serve.service.asking import QUESTION, ask_by_id
from tests.serve.service.test_streams import LONG, at_decoder, streamed, under_way


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """In place of the other tests', whose ingress answers by itself."""
    pytest.importorskip("ray")
    from serve.local import read_settings, running, wait_until_ready

    store = {"url": str(tmp_path_factory.mktemp("store"))}
    settings = read_settings(Path("deploy/serve-local.yaml"), store=store)
    with running(settings, free_port(), proxied=True) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(url)
        yield client


@pytest.fixture(scope="module")
def video(service: httpx.Client) -> str:
    clip = make_clip(None, seconds=2, fps=9, size=(200, 160))
    return str(service.post("/v1/videos", files={"video": ("clip.mp4", clip)}).json()["id"])


@pytest.mark.parametrize("value", ["0.001", "0", "-1", "inf"])
def test_rays_time_limit_is_not_the_clients_to_set(service: httpx.Client, video: str, value: str) -> None:
    body = {"video": {"id": video}, "question": QUESTION, "max_tokens": 2}
    response = service.post("/v1/answers", json=body, headers={"X-Request-Timeout-Seconds": value})
    assert response.status_code == 200, response.text  # Ray itself answers 408 after a thousandth of a second


def test_who_leaves_ends_its_work_whatever_its_headers_say(service: httpx.Client, video: str) -> None:
    headers = {"X-Request-Disconnect-Disabled": "?1"}
    body = {"video": {"id": video}, "question": QUESTION, "stream": True, **LONG}
    with service.stream("POST", "/v1/answers", json=body, headers=headers) as response:
        lines = response.iter_lines()  # which leaves when it is thrown away
        next(lines)
        assert under_way(service) == 1
    end = time.monotonic() + 5
    while under_way(service):
        assert time.monotonic() < end, "the work goes on without its client"
        time.sleep(0.05)


def test_the_headers_of_every_spelling_are_taken_away(service: httpx.Client, video: str) -> None:
    """By hand: HTTP libraries refuse some of these."""
    host = urlsplit(str(service.base_url))
    names = [name for header in CONTROL for name in (header, header.upper(), header.replace(b"-", b"_"))]
    lines = b"".join(name + b": 0.001\r\n" for name in names)
    with contextlib.closing(socket.create_connection((host.hostname or "", host.port or 0), timeout=30)) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n")
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert ask_by_id(service, video).status_code == 200


def test_a_slow_stream_of_one_is_no_trouble_for_another(service: httpx.Client, video: str) -> None:
    with streamed(service, video, **LONG) as events:
        next(events)
        assert ask_by_id(service, video).status_code == 200


def test_an_ingress_that_dies_under_a_request_is_a_problem_that_says_when_to_come_back(
    service: httpx.Client,
) -> None:
    clip = make_clip(None, seconds=8, fps=8, size=(420, 420))  # takes seconds, in which the ingress can be killed
    large = service.post("/v1/videos", files={"video": ("clip.mp4", clip)}).json()["id"]
    body = {"video": {"id": large}, "question": QUESTION}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(service.post, "/v1/answers", json=body, headers={"X-Request-ID": "of-the-lost-one"})
        until(lambda: at_decoder(service) == 1, seconds=20)
        for pid in replicas("ingress"):
            os.kill(pid, signal.SIGKILL)
        lost = asked.result(timeout=60)
    assert (lost.status_code, lost.json()["code"]) == (503, "stage_lost"), lost.text
    assert int(lost.headers["retry-after"]) >= 1
    assert lost.json()["request_id"] == "of-the-lost-one"
    until(lambda: service.get("/readyz").status_code == 200, seconds=90)
    until(lambda: at_decoder(service) == 0, seconds=60)  # Ray tells the decoder that nobody waits any more


def test_rays_side_routes_tell_nothing(service: httpx.Client) -> None:
    for path in ("/-/routes", "/-/routes/"):
        response = service.get(path)
        assert (response.status_code, response.content) == (404, b"")
    assert service.get("/-/healthz").text == "success"


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
