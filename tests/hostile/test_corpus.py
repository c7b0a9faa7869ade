"""Every hostile file ends in a clip or a refusal that tells nothing, and good clips in between are read right."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from models import video
from models.video import Clip
from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.clips import make_clip
from tests.hostile.case import Case
from tests.hostile.corpus import corpus
from tests.hostile.judge import SAMPLING, complaint, outcome
from tests.processes import alive, descendants

TOGETHER = 2


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(Sandbox(), TOGETHER)
    yield pool
    pool.close()


def test_the_corpus_is_large_and_the_same_on_every_run() -> None:
    cases = corpus()
    assert len(cases) >= 500
    assert len({case.name for case in cases}) == len(cases)
    assert {case.expected for case in cases} == {"answered", "refused", "either"}
    before = {case.name: case.data for case in cases}
    corpus.cache_clear()
    again = {case.name: case.data for case in corpus()}
    assert [name for name in before if before[name] != again.get(name)] == []


def test_every_hostile_file_is_answered_or_refused_as_it_should(pool: Pool) -> None:
    good = make_clip(size=(160, 120))
    expected = video.read(good, SAMPLING)
    waiting = iter(enumerate(corpus()))
    ends: Counter[str] = Counter()
    complaints: list[str] = []

    async def one(number: int, case: Case) -> None:
        result = await outcome(pool, case.data)
        ends[f"{case.expected}: {'clip' if isinstance(result, Clip) else result.code}"] += 1
        if wrong := complaint(case, result):
            complaints.append(wrong)
        if number % 25 == 0:
            clip = await outcome(pool, good)
            assert isinstance(clip, Clip)
            assert np.array_equal(clip.frames, expected.frames)

    async def worker() -> None:
        for number, case in waiting:
            await one(number, case)

    async def everything() -> None:
        await asyncio.gather(*(worker() for _ in range(TOGETHER)))

    asyncio.run(everything())
    assert not complaints, "\n".join(complaints)
    assert sum(ends.values()) == len(corpus())
    assert ends["answered: clip"] >= 40
    assert ends["refused: not_a_video"] >= 150
    assert ends["refused: undecodable_video"] >= 50
    assert ends["refused: out_of_limits"] >= 15
    processes = [pid for pid, name in descendants().items() if "serve.sandbox" in name and alive(pid)]
    assert len(processes) <= 1 + TOGETHER + 1 + 1, processes  # zygote, at work, ready; one may be about to end
    assert len(os.listdir("/proc/self/fd")) < 100
