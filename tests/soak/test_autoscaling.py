"""A load that steps up and down: two stages follow it by their own work, soon after the step and without flapping.

`AUTOSCALING_PLOT=trace.png` writes the trace as a picture.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from ray import serve

from serve.local import APP
from tests.clips import make_clip
from tests.processes import replicas
from tests.soak.conftest import Start
from tests.soak.figures import hand_over
from tests.soak.load import OPTIONS, QUESTION

pytestmark = pytest.mark.soak

FEW, MANY = 1, 24  # clients
QUIET, BUSY, AFTER = 15.0, 60.0, 60.0  # seconds
MOST = 3
UP, DOWN, WINDOW = 2.0, 10.0, 4.0
NOTICED = 4.0  # reports and the controller's rounds come once a second
START_SECONDS = 60.0  # of two replicas of two stages at once, on two cores that the load keeps busy
SCALED = ("encoder", "decoder")
FRAMES = 32


@dataclass
class Trace:
    """Moments in seconds since the start, and what there was: clients, replicas by stage, failures.

    `wanted`: those that run or are started, as Serve says; `stages`: the processes that run.
    """

    began: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    wanted: dict[str, list[int]] = field(default_factory=lambda: {stage: [] for stage in SCALED})
    stages: dict[str, list[int]] = field(default_factory=lambda: {stage: [] for stage in SCALED})
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    def take(self, clients: int) -> None:
        self.seconds.append(time.monotonic() - self.began)
        self.clients.append(clients)
        deployments = serve.status().applications[APP].deployments
        for stage in SCALED:
            states = deployments[stage].replica_states
            self.wanted[stage].append(
                sum(states.get(state, 0) for state in ("RUNNING", "STARTING", "PENDING_MIGRATION"))
            )
            self.stages[stage].append(len(replicas(stage)))

    def first(self, counts: list[int], count: int, after: float) -> float:
        """Seconds after the moment `after` until there are `count`; infinite when there never are."""
        moments = zip(self.seconds, counts, strict=True)
        return next((at - after for at, there in moments if at >= after and there == count), float("inf"))

    def turns(self, stage: str) -> int:
        """How often the number of replicas went the other way."""
        steps = [b - a for a, b in itertools.pairwise(self.wanted[stage]) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


def test_stages_follow_a_step_of_the_load(start: Start) -> None:
    scale = {"least": 1, "most": MOST, "up_seconds": UP, "down_seconds": DOWN, "window_seconds": WINDOW}
    url = start(
        frames={"cache_bytes": 0},
        encoder={"cache_bytes": 0, "autoscale": {**scale, "target": 6_000}},  # three cold clips
        selector={"cache_bytes": 0, "token_cache_bytes": 0},
        decoder={"autoscale": {**scale, "target": 6}},
        ingress={"admission": {"patches": 1e9, "answers": 1000}},  # the queue is to be seen by the stages
    )
    trace = asyncio.run(_step(url))
    _show(trace)
    hand_over("answers", autoscaling_answers=trace.answered, autoscaling_lost=len(trace.failed))
    assert trace.failed == []
    for stage in SCALED:
        decided, reached = (trace.first(counts[stage], MOST, QUIET) for counts in (trace.wanted, trace.stages))
        hand_over("s", **{f"autoscaling_decided_{stage}": decided, f"autoscaling_reached_{stage}": reached - decided})
        assert decided <= UP + WINDOW + NOTICED, f"{stage} follows after {decided:.0f} s"
        assert reached <= decided + START_SECONDS, f"{stage} has its replicas after {reached:.0f} s"
        assert trace.stages[stage][-1] == 1, f"{stage} does not come down"
        assert trace.turns(stage) == 1, f"{stage} goes up and down: {trace.wanted[stage]}"


async def _step(url: str) -> Trace:
    trace = Trace()
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=200)) as http:
        videos = await _uploaded(http)
        async with _clients(http, videos, FEW, trace):
            await _watch(trace, FEW, QUIET)
            async with _clients(http, videos, MANY, trace):
                await _watch(trace, MANY, BUSY)
            await _watch(trace, FEW, AFTER)
    return trace


async def _uploaded(http: httpx.AsyncClient) -> list[str]:
    clips = [make_clip(None, seconds=3.5 + 0.1 * n, fps=10, size=(112, 112)) for n in range(12)]
    posted = [await http.post("/v1/videos", files={"video": ("clip.mp4", clip)}) for clip in clips]
    return [str(response.json()["id"]) for response in posted]


@asynccontextmanager
async def _clients(http: httpx.AsyncClient, videos: list[str], count: int, trace: Trace) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def one(number: int) -> None:
        while not over.is_set():
            body = {"video": {"id": videos[number % len(videos)]}, "question": QUESTION, "options": OPTIONS}
            response = await http.post("/v1/answers", json={**body, "frames": FRAMES})
            number += count
            if response.status_code == 200:
                trace.answered += 1
            else:
                trace.failed.append(response.text)

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def _watch(trace: Trace, clients: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.to_thread(trace.take, clients)
        await asyncio.sleep(1)


def _show(trace: Trace) -> None:
    print(f"\n{trace.answered} answered, {len(trace.failed)} failed")
    for stage in SCALED:
        for what, counts in (("decided", trace.wanted[stage]), ("running", trace.stages[stage])):
            up = [trace.first(counts, count, QUIET) for count in range(2, MOST + 1)]
            print(f"  {stage} {what}: {', '.join(f'{n} after {s:.0f} s' for n, s in enumerate(up, 2))}; {counts}")
    if "AUTOSCALING_PLOT" in os.environ:
        _plot(trace, Path(os.environ["AUTOSCALING_PLOT"]))


def _plot(trace: Trace, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    axes.step(trace.seconds, trace.clients, color="lightgrey", where="post", label="clients")
    axes.set(xlabel="seconds", ylabel="clients")
    counts = axes.twinx()
    for stage in SCALED:
        [line] = counts.step(trace.seconds, trace.stages[stage], where="post", label=f"{stage}: replicas")
        counts.step(trace.seconds, trace.wanted[stage], ":", color=line.get_color(), where="post", label="and wanted")
    counts.set(ylabel="replicas", ylim=(0, MOST + 1))
    figure.legend(loc="upper left")
    figure.savefig(path)
