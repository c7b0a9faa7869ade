"""Replicas of every stage are killed under load: nobody loses an answer, and nobody gets a wrong one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time

import pytest
from dsr_client import AsyncClient

from tests.processes import replicas
from tests.soak.conftest import STAGES, Start
from tests.soak.load import OPTIONS, PATIENT, asking, known

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("KILLS", "100"))
REPLICAS = 2
LONGEST_RECOVERY = 120.0  # seconds, on two cores that a load and a start share


def test_killed_replicas_lose_no_answer_and_make_none_wrong(start: Start) -> None:
    url = start(**{stage: {"replicas": REPLICAS} for stage in STAGES})
    asyncio.run(_chaos(url))


async def _chaos(url: str) -> None:
    draw, recovery = random.Random(0), {stage: list[float]() for stage in STAGES}
    async with AsyncClient(url, retries=PATIENT) as client:
        questions = await known(client, 6, [(OPTIONS, False), ((), False), ((), True)])
        async with asking(client, questions, clients=4) as tally:
            for number in range(KILLS):
                stage = STAGES[number % len(STAGES)]
                os.kill(draw.choice(sorted(replicas(stage))), signal.SIGKILL)
                recovery[stage].append(await _recovered(client, stage))
                print(f"\r{number + 1} of {KILLS} kills, {tally}", end="", flush=True)
    print(f"\n{KILLS} kills: {tally}")
    for stage, seconds in recovery.items():
        print(f"  {stage}: back after {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s")
    assert (tally.failed, tally.wrong) == ([], [])
    assert len(tally.seconds) > KILLS


async def _recovered(client: AsyncClient, stage: str) -> float:
    """Seconds until the stage has all its replicas again, each loaded and tested."""
    killed = time.monotonic()
    await asyncio.sleep(0.2)
    while True:
        there = len(await asyncio.to_thread(replicas, stage))
        if there == REPLICAS and (await client.health()).ready:
            return time.monotonic() - killed
        assert time.monotonic() - killed < LONGEST_RECOVERY, f"{stage} has {there} replicas"
        await asyncio.sleep(0.25)
