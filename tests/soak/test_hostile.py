"""Ten thousand hostile files to the real service, and ordinary questions in between."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from dsr_client import AsyncClient

from tests.hostile.case import CODES
from tests.hostile.corpus import corpus
from tests.hostile.fuzz import mutant
from tests.hostile.judge import TELLS
from tests.processes import replicas
from tests.soak.conftest import STAGES, Start
from tests.soak.figures import hand_over
from tests.soak.load import OPTIONS, PATIENT, QUESTION, Asked, ask, known
from tests.soak.test_endurance import GROWTH, SLACK_BYTES, Samples, growth

pytestmark = pytest.mark.fuzz

INPUTS = int(os.environ.get("HOSTILE_INPUTS", "10000"))
TOGETHER = 4
ORDINARY_EVERY, SAMPLED_EVERY = 25, 100
ALLOWED = {"too_large", *CODES}  # the codes of a refusal
SAYS = ("detail", "field", "value", "limit")  # what a problem takes from elsewhere; the rest is ours alone


@dataclass
class Verdict:
    ends: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    ordinary: int = 0

    def judge(self, name: str, response: httpx.Response) -> None:
        body = response.json()
        if response.status_code == 200:
            self.ends["answered"] += 1
            return
        self.ends[f"{response.status_code} {body.get('code')}"] += 1
        said = json.dumps({key: body.get(key) for key in SAYS})
        if response.status_code >= 500 or body.get("code") not in ALLOWED or TELLS.search(said):
            self.complaints.append(f"{name}: {response.status_code} {said}")


def files() -> Iterator[tuple[str, bytes]]:
    yield from ((case.name, case.data) for case in corpus())
    yield from ((f"mutant {number}", mutant(number)) for number in itertools.count())


def test_hostile_files_are_refused_and_ordinary_ones_answered(start: Start) -> None:
    # Caches that are full after the first hundred clips: what grows later is a leak.
    small = {"cache_bytes": 4_000_000}
    url = start(frames=small, encoder=small, selector={**small, "token_cache_bytes": 500_000}, decoder=small)
    before = {stage: replicas(stage) for stage in STAGES}
    verdict, samples = asyncio.run(_feed(url))
    print(f"\n{INPUTS} inputs: {dict(verdict.ends)}; {verdict.ordinary} ordinary questions answered in between")
    hand_over("inputs", hostile_inputs=verdict.ends.total(), hostile_complaints=len(verdict.complaints))
    hand_over("questions", hostile_ordinary_right=verdict.ordinary)
    for name, values in samples.bytes.items():
        first, last = growth(values)
        print(f"  {name}: {first / 1e6:.1f} -> {last / 1e6:.1f} MB ({last / first - 1:+.2%})")
        hand_over("share", **{f"hostile_growth_{name}": last / first - 1})
        assert last <= first * (1 + GROWTH) + SLACK_BYTES, name
    assert verdict.complaints == []
    assert {stage: replicas(stage) for stage in STAGES} == before, "a replica died"
    assert verdict.ordinary >= INPUTS // ORDINARY_EVERY - TOGETHER


async def _feed(url: str) -> tuple[Verdict, Samples]:
    verdict, samples, inputs, began = Verdict(), Samples(), itertools.islice(files(), INPUTS), time.monotonic()
    async with AsyncClient(url, retries=PATIENT) as client, httpx.AsyncClient(base_url=url, timeout=180) as http:
        questions = await known(client, 3, [(OPTIONS, False)])

        async def work() -> None:
            for name, data in inputs:
                verdict.judge(name, await _ask(http, data))
                done = verdict.ends.total()
                if done % ORDINARY_EVERY == 0:
                    await _ordinary(client, questions[done % len(questions)], verdict)
                if done % SAMPLED_EVERY == 0:
                    await asyncio.to_thread(samples.take)
                    print(f"\r{done} of {INPUTS} in {time.monotonic() - began:.0f} s", end="", flush=True)

        await asyncio.gather(*(work() for _ in range(TOGETHER)))
    return verdict, samples


async def _ask(http: httpx.AsyncClient, data: bytes) -> httpx.Response:
    """All of the way, for what can be decoded."""
    form = {"question": QUESTION, "options": list(OPTIONS), "frames": "4"}
    while True:
        response = await http.post("/v1/answers", data=form, files={"video": ("clip.mp4", data)})
        if response.status_code != 429:
            return response
        await asyncio.sleep(int(response.headers["retry-after"]))


async def _ordinary(client: AsyncClient, question: Asked, verdict: Verdict) -> None:
    verdict.ordinary += question.is_right(await ask(client, question))
