"""A few random inputs by default; `-m fuzz` for many. DSR_FUZZ_FIRST and DSR_FUZZ_INPUTS choose the range."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.hostile.fuzz import Result, fuzz, mutant

FIRST = int(os.environ.get("DSR_FUZZ_FIRST", "0"))
INPUTS = int(os.environ.get("DSR_FUZZ_INPUTS", "10000"))
GROWTH = 48  # MiB that the parent may gain: allocator and interpreter, not a clip per input


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(Sandbox(), 2)
    yield pool
    pool.close()


def check(result: Result, inputs: int) -> None:
    assert not result.complaints, "\n".join(result.complaints)
    # A decoder may die of a bug in it. That one fails otherwise, or is taken for a liar, is a bug of ours.
    ours = [said for said in result.deaths if said.startswith(("a decoder failed", "a decoder lied"))]
    assert not ours, (ours, result.broken)
    assert result.inputs == sum(result.ends.values()) == inputs
    assert result.parent_mb[-1] - result.parent_mb[min(1, len(result.parent_mb) - 1)] < GROWTH, result.parent_mb
    assert result.decoders <= 5  # zygote, two at work, one ready, one that is ending
    for kind in ("clip", "not_a_video", "undecodable_video"):
        assert result.ends[kind] > 0, result.ends


def test_an_input_is_the_same_on_every_run() -> None:
    assert mutant(7) == mutant(7) != mutant(8)


def test_some_random_damage(pool: Pool) -> None:
    check(asyncio.run(fuzz(pool, 0, 100, together=2, show=False)), 100)


@pytest.mark.fuzz
def test_much_random_damage(pool: Pool) -> None:
    check(asyncio.run(fuzz(pool, FIRST, INPUTS, together=2)), INPUTS)
