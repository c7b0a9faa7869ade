"""Replicas of every stage are killed under load: nobody loses an answer, and nobody gets a wrong one."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import statistics
import time
from dataclasses import dataclass, field

import httpx
import pytest
from dsr_client import AsyncClient

from tests.processes import replicas
from tests.soak.conftest import STAGES, Start
from tests.soak.figures import hand_over, hand_over_tally
from tests.soak.load import OPTIONS, PATIENT, Tally, asking, known

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("KILLS", "100"))
REPLICAS = 2
LONGEST_RECOVERY = 120.0  # seconds, on two cores that a load and a start share


def test_killed_replicas_lose_no_answer_and_make_none_wrong(start: Start) -> None:
    url = start(**{stage: {"replicas": REPLICAS} for stage in STAGES})
    asyncio.run(_chaos(url))


async def _chaos(url: str) -> None:
    killed = Killed()
    async with AsyncClient(url, retries=PATIENT) as client, httpx.AsyncClient(base_url=url, timeout=30) as http:
        questions = await known(client, 6, [(OPTIONS, False), ((), False), ((), True)])
        async with asking(client, questions, clients=4) as tally:
            # One replica of each stage is away at a time, and so up to five at once.
            await asyncio.gather(*(_kill(http, stage, killed, tally) for stage in STAGES))
    print(f"\n{killed.count} kills: {tally}")
    for stage, seconds in killed.recovery.items():
        print(f"  {stage}: back after {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s")
        hand_over("s", **{f"chaos_recovery_{stage}": statistics.median(seconds)})
    hand_over("kills", chaos_kills=killed.count)
    hand_over_tally("chaos", tally)
    assert (tally.failed, tally.wrong) == ([], [])
    assert len(tally.seconds) > KILLS


@dataclass
class Killed:
    """Seconds until a stage had all its replicas again, for each kill."""

    recovery: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    @property
    def count(self) -> int:
        return sum(map(len, self.recovery.values()))


async def _kill(http: httpx.AsyncClient, stage: str, killed: Killed, tally: Tally) -> None:
    draw = random.Random(stage)
    for _ in range(KILLS // len(STAGES)):
        await asyncio.sleep(draw.uniform(0.5, 2.0))
        victim = draw.choice(sorted(await asyncio.to_thread(replicas, stage)))
        os.kill(victim, signal.SIGKILL)
        killed.recovery[stage].append(await _recovered(http, stage, victim))
        print(f"\r{killed.count} of {KILLS} kills, {tally}", end="", flush=True)


async def _recovered(http: httpx.AsyncClient, stage: str, victim: int) -> float:
    """Seconds until the stage has all its replicas again, each loaded and tested."""
    start = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        there = await asyncio.to_thread(replicas, stage)
        if len(there - {victim}) == REPLICAS and (stage == "ingress" or await _answering(http, stage) == REPLICAS):
            return time.monotonic() - start
        assert time.monotonic() - start < LONGEST_RECOVERY, f"{stage} has {len(there)} replicas"


async def _answering(http: httpx.AsyncClient, stage: str) -> int:
    """Replicas of a stage that answer. The ingress, which is asked, may die in the middle."""
    try:
        text = (await http.get("/metrics")).text
    except httpx.TransportError:
        return 0
    found = re.search(rf'^dsr_stage_replicas{{stage="{stage}"}} (\S+)', text, re.M)
    return int(float(found[1])) if found else 0
