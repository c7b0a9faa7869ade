"""`python -m tests.bench routing`: what routing by clip is worth with three decoders, before and after one is killed.

Twelve clips, and several rounds of new questions about each. Of the questions about a clip that was asked about before,
the share is given whose answer found the clip's keys and values in the decoder. Three decoders that are chosen without
regard to the clip each compute every clip: with Ray's default router the first figure is 0.8.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from ray import serve

from serve.local import APP, read_settings, running, wait_until_ready
from tests.bench.record import Record, median
from tests.bench.reference import OPTIONS, question
from tests.bench.service import unseen
from tests.processes import replicas

DECODERS = 3
CLIPS = 12
ROUNDS = 10
CLIENTS = 4
REPLACED_SECONDS = 180
SHARE = "of repeat questions, three decoders"


@dataclass
class Asked:
    """What came back from a number of rounds."""

    hits: list[bool] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return sum(self.hits) / len(self.hits)


class Clients:
    """Several at a time, each with a question that nobody has asked before."""

    def __init__(self, client: httpx.Client, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._threads = threads
        self._numbers = count()

    def first(self, video: bytes) -> str:
        """Asks about a new video; its id."""
        response = self._client.post(
            "/v1/answers", data=self._body(), files={"video": ("clip.mp4", video)}
        ).raise_for_status()
        return str(response.json()["video"]["id"])

    def rounds(self, videos: list[str], number: int, into: Asked) -> Asked:
        """`number` questions about each video, in turn."""
        for future in [self._ask(video, into) for _ in range(number) for video in videos]:
            future.result()
        return into

    def _ask(self, video: str, into: Asked) -> Future[None]:
        body = {**self._body(), "video": {"id": video}}

        def ask() -> None:
            start = time.perf_counter()
            try:
                response = self._client.post("/v1/answers", json=body).raise_for_status()
            except httpx.HTTPError as error:
                into.lost.append(str(error))
                return
            into.milliseconds.append(1000 * (time.perf_counter() - start))
            into.hits.append(response.json()["cache"]["decoder"] == "hit")

        return self._threads.submit(ask)

    def _body(self) -> dict[str, Any]:
        return {"question": question(next(self._numbers)), "options": OPTIONS}


def measure(checkpoint: str, clip: Path, port: int, store: str) -> Iterator[Record]:
    settings = read_settings(Path("deploy/serve-local.yaml"), checkpoint=checkpoint, store={"url": store})
    decoder = settings.decoder.model_copy(update={"replicas": DECODERS})
    settings = settings.model_copy(update={"decoder": decoder})
    with (
        running(settings, port) as url,
        httpx.Client(base_url=url, timeout=600) as client,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        wait_until_ready(url)
        clients = Clients(client, threads)
        videos = [clients.first(unseen(clip.read_bytes(), number)) for number in range(CLIPS)]
        before = clients.rounds(videos, ROUNDS, Asked())
        yield median("routing_hits", [before.share], "1", SHARE)
        yield median("routing_warm_answer", before.milliseconds, "ms", f"absolute, {CLIENTS} clients")

        with ThreadPoolExecutor(1) as killer:
            killed = killer.submit(_kill_one_soon)
            after = clients.rounds(videos, ROUNDS, Asked())
            killed.result()
        end = time.monotonic() + REPLACED_SECONDS
        while not _complete():
            if time.monotonic() > end:
                raise TimeoutError(f"no new decoder within {REPLACED_SECONDS} s")
            clients.rounds(videos, 1, after)
        clients.rounds(videos, 1, after)  # the share of the new decoder moves to it
        yield median("routing_hits_while_one_is_killed_and_replaced", [after.share], "1", SHARE)
        settled = clients.rounds(videos, ROUNDS, Asked())
        yield median("routing_hits_with_the_replacement", [settled.share], "1", SHARE)
        lost = before.lost + after.lost + settled.lost
        asked = len(lost) + sum(len(part.hits) for part in (before, after, settled))
        yield median("routing_lost", [len(lost)], f"requests of {asked}", "one of three decoders killed under load")


def _kill_one_soon() -> None:
    time.sleep(1)
    os.kill(min(replicas("decoder")), signal.SIGKILL)


def _complete() -> bool:
    """Whether Serve has all decoders again."""
    return serve.status().applications[APP].deployments["decoder"].replica_states.get("RUNNING") == DECODERS
