"""Half an hour of everything: memory, descriptors, threads and shared memory stay where they are after the warm-up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from dsr_client import AsyncClient

from tests.clips import make_clip
from tests.processes import descendants
from tests.soak.conftest import Start
from tests.soak.figures import hand_over, hand_over_tally
from tests.soak.load import OPTIONS, PATIENT, QUESTION, asking, known

pytestmark = pytest.mark.soak

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
WARM_UP = 0.3  # of the time: caches fill up to their bounds, allocators find their size
SAMPLE_SECONDS = 5.0
GROWTH = 0.02
STAGE = re.compile(r"ray::ServeReplica:dsr:(\w+)|ray::(ProxyActor)|serve\.(sandbox)")
SLACK_BYTES = 4_000_000  # one arena of an allocator, in a process of 300 MB


@dataclass
class Samples:
    """Of each kind of process, at each moment: summed bytes, open files and threads."""

    bytes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    threads: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    shared: list[int] = field(default_factory=list)

    def take(self) -> None:
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for pid, command in descendants().items():
            match = STAGE.search(command)
            if match is None:
                continue
            try:
                found = _of_process(pid)
            except (FileNotFoundError, ProcessLookupError):  # a child that was recycled meanwhile
                continue
            name = next(group for group in match.groups() if group)
            totals[name] = [a + b for a, b in zip(totals[name], found, strict=True)]
        for name, (size, files, threads) in totals.items():
            self.bytes[name].append(size)
            self.files[name].append(files)
            self.threads[name].append(threads)
        self.shared.append(sum(1 for _ in Path("/dev/shm").iterdir()))


def _of_process(pid: int) -> tuple[int, int, int]:
    """Private bytes (what is shared with the object store is not the process's own), descriptors, threads."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.M)) * 1024
    return private, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def test_nothing_grows_after_the_warm_up(start: Start) -> None:
    url = start(frames={"cache_bytes": 20_000_000}, encoder={"cache_bytes": 20_000_000}, ingress={"allow_flush": True})
    samples = asyncio.run(_endure(url))
    report = {name: growth(values) for name, values in samples.bytes.items()}
    for name, (before, after) in report.items():
        files, threads = growth(samples.files[name]), growth(samples.threads[name])
        print(
            f"  {name}: {before / 1e6:.1f} -> {after / 1e6:.1f} MB ({after / before - 1:+.2%}); "
            f"files {files[0]:.0f} -> {files[1]:.0f}, threads {threads[0]:.0f} -> {threads[1]:.0f}"
        )
        hand_over("share", **{f"endurance_growth_{name}": after / before - 1})
        hand_over("more", **{f"endurance_files_{name}": files[1] - files[0]})
        hand_over("more", **{f"endurance_threads_{name}": threads[1] - threads[0]})
    for name, (before, after) in report.items():
        assert after <= before * (1 + GROWTH) + SLACK_BYTES, name
        for what in (samples.files[name], samples.threads[name]):
            first, last = growth(what)
            assert last <= first + 3, name
    first, last = growth(samples.shared)
    assert last <= first + 1, "segments of shared memory"


async def _endure(url: str) -> Samples:
    samples, end, sampled = Samples(), time.monotonic() + 60 * MINUTES, 0.0
    draw = random.Random(0)
    async with AsyncClient(url, retries=PATIENT) as client, httpx.AsyncClient(base_url=url, timeout=60) as http:
        questions = await known(client, 6, [(OPTIONS, False), ((), False), ((), True)])
        async with asking(client, questions, clients=2) as tally:
            while time.monotonic() < end:
                await _passer_by(http, draw)
                if time.monotonic() - sampled > SAMPLE_SECONDS:
                    sampled = time.monotonic()
                    await asyncio.to_thread(samples.take)
                    print(f"\r{(end - sampled) / 60:.1f} min left, {tally}", end="", flush=True)
    print(f"\n{tally}")
    hand_over_tally("endurance", tally)
    assert (tally.failed, tally.wrong) == ([], [])
    return samples


async def _passer_by(http: httpx.AsyncClient, draw: random.Random) -> None:
    """One of the things that happen to a service, at random: a new clip, a wrong file, someone who leaves."""
    what = draw.randrange(4)
    if what == 0:
        clip = make_clip(None, seconds=1 + draw.random() * 2, fps=10, size=(112, 84))
        posted = await http.post("/v1/videos", files={"video": ("clip.mp4", clip)})
        video = posted.raise_for_status().json()["id"]
        (await http.post("/v1/answers", json={"video": {"id": video}, "question": QUESTION})).raise_for_status()
        (await http.delete(f"/v1/videos/{video}")).raise_for_status()
    elif what == 1:
        refused = await http.post("/v1/videos", files={"video": ("clip.mp4", draw.randbytes(20_000))})
        assert refused.status_code == 415
    elif what == 2:
        clip = make_clip(None, seconds=1, fps=8 + draw.randrange(5), size=(84, 84))
        body = {"question": QUESTION, "max_tokens": "200"}
        with contextlib.suppress(httpx.TimeoutException):
            await http.post("/v1/answers", data=body, files={"video": ("clip.mp4", clip)}, timeout=0.2)
    else:
        (await http.get("/metrics")).raise_for_status()
    await asyncio.sleep(0.2)


def growth(values: list[int]) -> tuple[float, float]:
    """Medians of the first and the last third after the warm-up."""
    kept = values[int(WARM_UP * len(values)) :]
    third = max(1, len(kept) // 3)
    return statistics.median(kept[:third]), statistics.median(kept[-third:])
