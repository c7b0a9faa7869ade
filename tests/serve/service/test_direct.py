"""The real service whose ingress answers by itself: nobody stands before it, and what that means when it dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from dsr_client import Answer, Client, Retries

from tests.clips import make_clip
from tests.processes import descendants, replicas
from tests.serve.service.asking import OPTIONS, QUESTION, ask_by_id
from tests.serve.service.test_streams import at_decoder


def test_no_proxy_runs(service: httpx.Client) -> None:
    commands = descendants().values()
    assert not [command for command in commands if "ProxyActor" in command]
    assert [command for command in commands if "ServeReplica:dsr:ingress" in command]
    assert service.get("/-/routes").status_code == service.get("/-/healthz").status_code == 404


def test_headers_that_ray_would_obey_mean_nothing(service: httpx.Client) -> None:
    headers = {"X-Request-Timeout-Seconds": "0.001", "X-Request-Disconnect-Disabled": "?1", "X-Session-Id": "x"}
    body = {"video": {"id": new(service, 7.0)}, "question": QUESTION, "options": OPTIONS}
    assert service.post("/v1/answers", json=body, headers=headers).status_code == 200


def test_an_ingress_that_dies_under_a_request_costs_the_sdks_users_only_time(service: httpx.Client) -> None:
    large = new(service, 8.0)
    with (
        Client(str(service.base_url), retries=Retries(count=30, longest_pause=2.0)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(client.ask, large, QUESTION, OPTIONS)
        _until(lambda: at_decoder(service) == 1, seconds=20)
        for pid in replicas("ingress"):
            os.kill(pid, signal.SIGKILL)
        answer = asked.result(timeout=90)
    assert isinstance(answer, Answer)
    assert answer.probabilities == pytest.approx(ask_by_id(service, large).json()["probabilities"], abs=1e-4)
    assert at_decoder(service) == 0


def new(service: httpx.Client, seconds: float) -> str:
    """A clip that no stage has seen: to decode and encode it takes seconds, in which the ingress can be killed."""
    clip = make_clip(None, seconds=seconds, fps=8, size=(420, 420))
    return str(service.post("/v1/videos", files={"video": ("clip.mp4", clip)}).json()["id"])


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
