"""`python -m tests.bench capacity`: the capacity model's prediction beside a measured run of the same questions.

Stage times are measured first, with one thread each: cold and warm answers one at a time, and warm ones eight at a
time, which tells a pass's fixed part from what each question adds. How many cores this machine has for two who work at
once is measured too. Then questions come at random times, and the model plays the very same ones.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from deploy.capacity.model import Deployment, Load, Simulation, Times, arrivals
from deploy.capacity.plan import demand
from serve.engine import chunk_for
from serve.local import read_settings, running, wait_until_ready
from serve.settings import Settings
from tests.bench.crowd import _uploaded
from tests.bench.record import Record, median
from tests.bench.reference import OPTIONS, question
from tests.bench.service import unseen

ALONE, TOGETHER = 9, 8
FRAMES = 8
UTILISATION = 0.5  # of the cores, by the measured times
SECONDS = 300.0
PER_CLIP, GAP = 2.6, 8.0
STAGES = ("frames", "encoder", "selector", "decoder")


def measure(checkpoint: str, clip: Path, port: int, store: str) -> Iterator[Record]:
    video, cores = clip.read_bytes(), _cores()
    yield median("capacity_cores", [cores], "cores", f"what one of {os.cpu_count()} does alone")
    settings = _settings(checkpoint, store)
    with running(settings, port) as url, httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(url)
        known = [_uploaded(client, unseen(video, n)) for n in range(ALONE + 1)]
        times = _times(client, known, settings.decoder.chunk_tokens or chunk_for(settings.decoder.device))
        yield from (median(f"capacity_{name}", [value], "s", "measured alone") for name, value in vars(times).items())
        load = Load(UTILISATION * cores / _seconds_each(times), PER_CLIP, GAP)
        questions = arrivals(load, SECONDS)
        seconds = _played(client, video, questions)
    predicted = Simulation(times, Deployment(cores=cores)).run(questions, SECONDS)
    for name, q in (("median", 0.5), ("p95", 0.95)):
        measured = sorted(seconds)[int(q * len(seconds))]
        what = f"{load.rate:.2f} questions/s, {len(seconds)} answers"
        yield median(f"capacity_{name}_measured", [measured], "s", what)
        yield median(f"capacity_{name}_predicted_over_measured", [predicted.quantile(q) / measured], "x", "the run")


def _settings(checkpoint: str, store: str) -> Settings:
    settings = read_settings(Path("deploy/serve-local.yaml"), checkpoint=checkpoint, store={"url": store})
    return settings.model_copy(
        update={stage: getattr(settings, stage).model_copy(update={"threads": 1}) for stage in STAGES}
    )


def _seconds_each(times: Times) -> float:
    """Of one core, for a question of the load."""
    return sum(demand(times, Load(1.0, PER_CLIP)).values()) + times.edge


def _cores() -> float:
    """What all cores do together, against one of them alone."""
    count = os.cpu_count() or 1
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as processes:
        list(processes.map(_loops, [1.0] * count))  # torch is loaded
        alone = processes.submit(_loops, 5.0).result()
        return sum(processes.map(_loops, [5.0] * count)) / alone


def _loops(seconds: float) -> int:
    import torch

    torch.set_num_threads(1)
    one, end, count = torch.randn(512, 512), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        one @ one
        count += 1
    return count


def _times(client: httpx.Client, videos: list[str], chunk_tokens: int) -> Times:
    cold = [_timed(client, video, 0) for video in videos][1:]  # every stage's first call is slow
    warm = [_timed(client, video, 1) for video in videos][1:]
    with ThreadPoolExecutor(TOGETHER) as threads:
        crowd = [
            a for n in range(2, 8) for a in threads.map(lambda v, n=n: _timed(client, v, n), videos[1 : 1 + TOGETHER])
        ]
    one, many = _stage(warm, "decoder"), _stage(crowd, "decoder")
    each = max(0.0, (many - one) / (TOGETHER - 1))
    prefix = max(0.0, _stage(cold, "decoder") - one)
    select, shared = _stage(warm, "selector"), _stage(crowd, "selector")  # a batch's time is shared by its questions
    select_each = max(0.0, (TOGETHER * shared - select) / (TOGETHER - 1))
    return Times(
        frames_clip=_stage(cold, "frames"),
        encoder_clip=_stage(cold, "encoder"),
        selector_clip=max(0.0, _stage(cold, "selector") - select),
        selector_pass=max(0.0, select - select_each),
        selector_each=select_each,
        decoder_clip=prefix,
        decoder_pass=max(0.0, one - each),
        decoder_each=each,
        edge=statistics.median(a["wall"] - a["timings"]["decoder"] - a["timings"]["selector"] for a in warm),
        decoder_chunk=prefix * min(1.0, chunk_tokens / cold[0]["usage"]["video_tokens"]),
    )


def _ask(client: httpx.Client, video: str, number: int) -> dict[str, Any]:
    body = {"video": {"id": video}, "question": question(number), "options": OPTIONS, "frames": FRAMES}
    found: dict[str, Any] = json.loads(client.post("/v1/answers", json=body).raise_for_status().text)
    return found


def _timed(client: httpx.Client, video: str, number: int) -> dict[str, Any]:
    start = time.perf_counter()
    answer = _ask(client, video, number)
    return {**answer, "wall": time.perf_counter() - start}


def _stage(answers: list[dict[str, Any]], stage: str) -> float:
    return statistics.median(answer["timings"][stage] for answer in answers)


def _played(client: httpx.Client, video: bytes, questions: list[tuple[float, int]]) -> list[float]:
    """Seconds of the answers after a fifth of the time, as the model counts them. Clips are uploaded before."""
    videos = [_uploaded(client, unseen(video, 1000 + n)) for n in range(1 + max(clip for _, clip in questions))]
    seconds, lock, start = list[float](), threading.Lock(), time.monotonic()

    def ask(number: int, when: float, clip: int) -> None:
        time.sleep(max(0.0, start + when - time.monotonic()))
        began = time.perf_counter()
        _ask(client, videos[clip], number)
        if when >= SECONDS / 5:
            with lock:
                seconds.append(time.perf_counter() - began)

    with ThreadPoolExecutor(len(questions)) as threads:
        list(threads.map(lambda one: ask(one[0], *one[1]), enumerate(questions)))
    return seconds
