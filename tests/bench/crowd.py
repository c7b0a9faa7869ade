"""`python -m tests.bench crowd`: many users at once, against the model asked one by one, in process.

16 clients ask 2.6 questions about each of a number of clips that the service has never seen, in an order in which the
questions about a clip lie apart, as those of different users do. Then one client streams. Each round has a service of
its own, which has ended when the model is asked: nothing runs beside it, and both see the machine as it is then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx

from serve.local import running, wait_until_ready
from serve.settings import DType, Settings
from tests.bench.record import Record, median
from tests.bench.reference import OPTIONS, question, references
from tests.bench.service import laptop, unseen

CLIENTS = 16
PER_CLIP = (3, 2, 3, 2, 3)  # 2.6 on average
CLIPS = 15
ROUNDS = 3
STREAMS = 5  # of a round
STREAM_TOKENS = 32
# By default all but a few of sixteen cold clips at once are told to come later. Here it is measured how many are
# answered; who is refused is `tests/soak/test_overload.py`.
PATIENT = {"deadline_seconds": 600, "admission": {"patches": 1e9, "answers": 1000}}


def measure(checkpoint: str, clip: Path, port: int, store: str, dtype: DType = "float32") -> Iterator[Record]:
    plain, recorded = list(references(checkpoint, dtype)), clip.read_bytes()
    settings = laptop(checkpoint, store, dtype, ingress=PATIENT)
    rates, streams = [], []
    gains: list[list[float]] = [[] for _ in plain]
    for _ in range(ROUNDS):
        rate, ratios = _round(settings, port, recorded)
        rates.append(rate)
        for gain, reference in zip(gains, plain, strict=True):
            gain.append(rate * reference.seconds(recorded))
        streams += ratios
    yield median("crowd_questions_per_second", rates, "1/s", "absolute")
    for gain, reference in zip(gains, plain, strict=True):
        baseline = f"{reference.baseline} one after the other, {reference.model.config.name}"
        yield median(f"crowd_speedup{reference.suffix}", gain, "x", baseline)
    yield median("first_token_over_one_token_answer", streams, "x", "an answer of one token, warm")


def _round(settings: Settings, port: int, recorded: bytes) -> tuple[float, list[float]]:
    """Answers per second with 16 clients, and the times to a stream's first token over those of a one-token answer."""
    with running(settings, port) as url, httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(url)
        videos = [_uploaded(client, unseen(recorded, number)) for number in range(CLIPS + 1)]
        _ask(client, videos[-1], 0)  # every stage's first call is slow
        rate = _crowd(client, videos[:-1])
        times = [_first_token(client, videos[0], number) for number in range(STREAMS)]
    return rate, [first / one for first, one in times]


def _crowd(client: httpx.Client, videos: list[str]) -> float:
    """Answers per second."""
    asked = [(video, n) for place, video in enumerate(videos) for n in range(PER_CLIP[place % len(PER_CLIP)])]
    Random(0).shuffle(asked)
    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(lambda one: _ask(client, *one), asked))
    return len(asked) / (time.perf_counter() - start)


def _first_token(client: httpx.Client, video: str, number: int) -> tuple[float, float]:
    """Seconds to the first token of a stream, and of a whole answer of one token, each about a question of its own."""
    body = {"video": {"id": video}, "temperature": 2.0, "seed": number}  # at 0, this model may end at once
    start = time.perf_counter()
    first = None
    streamed = {**body, "question": question(1000 + number), "stream": True, "max_tokens": STREAM_TOKENS}
    with client.stream("POST", "/v1/answers", json=streamed) as response:
        for line in response.iter_lines():
            if first is None and line.startswith("event: "):
                first = time.perf_counter() - start
    start = time.perf_counter()
    client.post("/v1/answers", json={**body, "question": question(2000 + number), "max_tokens": 1}).raise_for_status()
    return first or 0.0, time.perf_counter() - start


def _uploaded(client: httpx.Client, video: bytes) -> str:
    response = client.post("/v1/videos", files={"video": ("clip.mp4", video)}).raise_for_status()
    return str(response.json()["id"])


def _ask(client: httpx.Client, video: str, number: int) -> dict[str, Any]:
    body = {"video": {"id": video}, "question": question(number), "options": OPTIONS}
    found: dict[str, Any] = json.loads(client.post("/v1/answers", json=body).raise_for_status().text)
    return found
