"""Ten times as many questions as the service can answer: what it can, it still answers; all others know when to return.

Every question is cold (nothing is cached) and the model is the benchmarks' one, so that an answer's work is far above
what a refusal costs on the same two cores: on a GPU it is, and the edge has cores of its own there.

Rates are of a service at work: counting begins when the first answers are out and the queue is full, for what is half
done when a count ends is lost to it. The peak is taken before and after, as a shared machine's speed drifts by more in
ten minutes than what is looked for.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from models.config import ModelConfig
from tests.bench.service import unseen
from tests.clips import make_clip
from tests.soak.conftest import Start
from tests.soak.figures import hand_over
from tests.soak.load import OPTIONS, QUESTION
from training.embedded import make

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("OVERLOAD_SECONDS", "180"))
PEAK_SECONDS = 90.0  # each of the two times
PEAK_CLIPS = 300  # for a service that answers up to 2.5 a second
FIRST_SECONDS = 30.0  # of every load, not counted
CLIENTS = 4  # that find the peak: with 2 it is the same, and with 16 there are refusals
# An answer of 16 frames takes about 2.8 s of one core, and a refusal 20 ms, the client's part included: ten refusals
# for each answer would themselves take 7 % of the two cores, and with 32 frames, which are as many as a service samples
# by default, take half of that.
FRAMES = 32
FPS = 16
TIMES = 10
NO_CACHE = {"cache_bytes": 0}
WAIT_SECONDS = 20.0  # the service's own bound for the queue in this test


@dataclass
class Seen:
    """Statuses, and seconds of those that were answered; refusals without a time to come back."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rude: list[str] = field(default_factory=list)

    def note(self, response: httpx.Response, seconds: float) -> None:
        self.statuses[response.status_code] += 1
        if response.status_code == 200:
            self.seconds.append(seconds)
        elif response.status_code not in (429, 503) or int(response.headers.get("retry-after", 0)) < 1:
            self.rude.append(f"{response.status_code} {response.text[:200]}")


def test_goodput_stays_level_at_ten_times_the_capacity(start: Start, tmp_path: Path) -> None:
    make(tmp_path / "checkpoint", ModelConfig.preset("bench"))
    url = start(
        checkpoint=str(tmp_path / "checkpoint"),
        frames=NO_CACHE,
        encoder=NO_CACHE,
        selector={**NO_CACHE, "token_cache_bytes": 0},
        ingress={"admission": {"wait_seconds": WAIT_SECONDS}},
    )
    asyncio.run(_overload(url))


async def _overload(url: str) -> None:
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        before = await _peak(http, await _uploaded(http, PEAK_CLIPS, 0))
        # Each is asked about once: a clip that comes again is warm to the service, and costs it next to nothing.
        videos = await _uploaded(http, int(TIMES * before * (FIRST_SECONDS + SECONDS)), PEAK_CLIPS)
        seen, during = await _flood(http, videos, TIMES * before)
        after = await _peak(http, await _uploaded(http, PEAK_CLIPS, PEAK_CLIPS + len(videos)))
    peak = (before + after) / 2
    late = sorted(seen.seconds)[int(0.99 * (len(seen.seconds) - 1))]
    print(f"\npeak {before:.3f}/s before and {after:.3f}/s after; at {TIMES} times that", end=" ")
    print(f"{during:.3f}/s ({during / peak:.0%})")
    print(f"  statuses {dict(seen.statuses)}; 99 % of the answers within {late:.1f} s")
    hand_over("share", overload_goodput=during / peak)
    hand_over("requests", overload_refused=seen.statuses[429], overload_rude=len(seen.rude))
    hand_over("s", overload_p99=late)
    assert seen.rude == []
    assert during >= 0.9 * peak
    assert late <= 3 * WAIT_SECONDS


async def _uploaded(http: httpx.AsyncClient, count: int, first: int) -> list[str]:
    """The same clip under `count` ids, from number `first` on."""
    clip, videos = make_clip(None, seconds=FRAMES / FPS, fps=FPS, size=(448, 252)), []
    for number in range(first, first + count):
        posted = await http.post("/v1/videos", files={"video": ("clip.mp4", unseen(clip, number))})
        videos.append(str(posted.json()["id"]))
    return videos


async def _flood(http: httpx.AsyncClient, videos: list[str], rate: float) -> tuple[Seen, float]:
    """Asks about each at its time, whatever became of the others; gives all that was seen, and the answers per second
    once the queue was full."""
    seen, waiting = Seen(), set[asyncio.Task[None]]()
    start = since = time.monotonic()
    first = 0
    for number, video in enumerate(videos):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        if number / rate < FIRST_SECONDS:
            first, since = len(seen.seconds), time.monotonic()
        task = asyncio.create_task(_ask(http, video, seen))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    during = (len(seen.seconds) - first) / (time.monotonic() - since)
    await asyncio.gather(*waiting)
    return seen, during


async def _peak(http: httpx.AsyncClient, videos: list[str]) -> float:
    """Answers per second to clients that ask one question after the other, once all have their first."""
    seen, left = Seen(), iter(videos)
    end = time.monotonic() + FIRST_SECONDS + PEAK_SECONDS

    async def one() -> None:
        while time.monotonic() < end:
            video = next(left, None)
            assert video, f"{PEAK_CLIPS} clips are too few for this service"
            await _ask(http, video, seen)

    clients = [asyncio.create_task(one()) for _ in range(CLIENTS)]
    await asyncio.sleep(FIRST_SECONDS)
    first, since = len(seen.seconds), time.monotonic()
    await asyncio.sleep(PEAK_SECONDS)
    rate = (len(seen.seconds) - first) / (time.monotonic() - since)
    await asyncio.gather(*clients)
    assert seen.rude == []
    assert seen.statuses[429] == 0
    return rate


async def _ask(http: httpx.AsyncClient, video: str, seen: Seen) -> None:
    body = {"video": {"id": video}, "question": QUESTION, "options": OPTIONS, "frames": FRAMES}
    start = time.perf_counter()
    response = await http.post("/v1/answers", json=body)
    seen.note(response, time.perf_counter() - start)
