"""`python -m tests.bench capacity`: the capacity model's prediction beside a measured run of the same load.

Stage times are measured first: cold and warm answers one at a time, and warm ones eight at a time, which tells a
pass's fixed part from what each question adds. Then clips and questions come at random times, as the model draws them,
and both tell the median and the 95th percentile.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx

from deploy.capacity.model import Deployment, Load, Simulation, Times
from serve.local import read_settings, running, wait_until_ready
from tests.bench.crowd import _ask, _uploaded
from tests.bench.record import Record, median
from tests.bench.service import unseen

ALONE, TOGETHER = 9, 8
UTILISATION = 0.5  # of the cores, by the measured times
SECONDS = 240.0
SIMULATED_RUNS = 20
PER_CLIP, GAP = 2.6, 8.0
CORES = 2


def measure(checkpoint: str, clip: Path, port: int, store: str) -> Iterator[Record]:
    video = clip.read_bytes()
    settings = read_settings(Path("deploy/serve-local.yaml"), checkpoint=checkpoint, store={"url": store})
    with running(settings, port) as url, httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(url)
        times = _times(client, [_uploaded(client, unseen(video, n)) for n in range(ALONE + 1)])
        yield from (median(f"capacity_{name}", [value], "s", "measured alone") for name, value in vars(times).items())
        cold = sum(vars(times).values())
        load = Load(UTILISATION * CORES / (cold / PER_CLIP), PER_CLIP, GAP)
        seconds = _played(client, video, load)
    runs = [Simulation(times, Deployment(cores=CORES), load, seed).run(SECONDS) for seed in range(SIMULATED_RUNS)]
    for name, q in (("median", 0.5), ("p95", 0.95)):
        predicted = statistics.median(run.quantile(q) for run in runs)
        measured = sorted(seconds)[int(q * len(seconds))]
        yield median(
            f"capacity_{name}_measured", [measured], "s", f"{load.rate:.2f} questions/s, {len(seconds)} answers"
        )
        yield median(f"capacity_{name}_predicted_over_measured", [predicted / measured], "x", "the run")


def _times(client: httpx.Client, videos: list[str]) -> Times:
    cold = [_timed(client, video, 0) for video in videos][1:]  # every stage's first call is slow
    warm = [_timed(client, video, 1) for video in videos][1:]
    with ThreadPoolExecutor(TOGETHER) as threads:
        crowd = [
            a for n in range(2, 8) for a in threads.map(lambda v, n=n: _timed(client, v, n), videos[1 : 1 + TOGETHER])
        ]
    one, many = _stage(warm, "decoder"), _stage(crowd, "decoder")
    each = max(0.0, (many - one) / (TOGETHER - 1))
    select, shared = _stage(warm, "selector"), _stage(crowd, "selector")  # a batch's time is shared by its questions
    select_each = max(0.0, (TOGETHER * shared - select) / (TOGETHER - 1))
    return Times(
        frames_clip=_stage(cold, "frames"),
        encoder_clip=_stage(cold, "encoder"),
        selector_clip=max(0.0, _stage(cold, "selector") - select),
        selector_pass=max(0.0, select - select_each),
        selector_each=select_each,
        decoder_clip=max(0.0, _stage(cold, "decoder") - one),
        decoder_pass=max(0.0, one - each),
        decoder_each=each,
        edge=statistics.median(a["wall"] - a["timings"]["decoder"] - a["timings"]["selector"] for a in warm),
    )


def _timed(client: httpx.Client, video: str, number: int) -> dict[str, Any]:
    start = time.perf_counter()
    answer = _ask(client, video, number)
    return {**answer, "wall": time.perf_counter() - start}


def _stage(answers: list[dict[str, Any]], stage: str) -> float:
    return statistics.median(answer["timings"][stage] for answer in answers)


def _played(client: httpx.Client, video: bytes, load: Load) -> list[float]:
    """Seconds of the answers after a fifth of the time, as the model counts them. Clips are uploaded before."""
    draw, asks, at = Random(0), list[tuple[float, int, int]](), 0.0
    clips = 0
    while (at := at + draw.expovariate(load.rate / load.per_clip)) < SECONDS:
        moment, number = at, 0
        while True:
            asks.append((moment, clips, number))
            if draw.random() < 1 / load.per_clip:
                break
            moment, number = moment + draw.expovariate(1 / load.gap), number + 1
        clips += 1
    videos = [_uploaded(client, unseen(video, 1000 + n)) for n in range(clips)]
    seconds, lock, start = list[float](), threading.Lock(), time.monotonic()

    def ask(when: float, clip: int, number: int) -> None:
        time.sleep(max(0.0, start + when - time.monotonic()))
        began = time.perf_counter()
        _ask(client, videos[clip], number)
        if when >= SECONDS / 5:
            with lock:
                seconds.append(time.perf_counter() - began)

    with ThreadPoolExecutor(256) as threads:
        list(threads.map(lambda one: ask(*one), sorted(ask_ for ask_ in asks if ask_[0] < SECONDS)))
    return seconds
