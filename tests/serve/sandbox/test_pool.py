"""Jobs, and what becomes of them when a decoder is slow, dies, lies or loses its caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import video
from models.errors import InputError, NotAVideo, OutOfLimits, Undecodable
from models.video import Limits, Sampling
from serve.sandbox.pool import Pool
from tests.clips import make_clip
from tests.serve.sandbox.conftest import MISBEHAVING, TIGHT, Orders, Run

CLIPS: dict[str, Callable[[], bytes]] = {
    "fits": lambda: make_clip(),
    "resized": lambda: make_clip(size=(640, 360), seconds=1),
    "rotated": lambda: make_clip(size=(320, 180), seconds=1, rotation=90),
    "vp9": lambda: make_clip(size=(320, 180), seconds=1, container="webm"),
    "avi": lambda: make_clip(size=(320, 180), seconds=1, container="avi"),
    "uneven": lambda: make_clip(times=[0, 0.1, 0.5, 0.6, 2.0]),
    "odd": lambda: make_clip(times=[0, 0.1, 0.2]),
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(None, 5.0), Sampling(4, max_pixels=28 * 28 * 9)])
def test_a_clip_is_what_it_is_in_process(
    name: str, sampling: Sampling, run: Run[Any], pool: Pool, orders: Orders
) -> None:
    data = CLIPS[name]()
    here = video.read(data, sampling)
    with orders.file(data) as file:
        there = run(pool.read(file, sampling, Limits()))
        facts = run(pool.probe(file, Limits()))
    assert np.array_equal(there.frames, here.frames)
    assert np.array_equal(there.times, here.times)
    assert (there.facts, there.sampled, there.sampling) == (here.facts, here.sampled, sampling)
    assert (there.frames.dtype, there.times.dtype) == (here.frames.dtype, here.times.dtype)
    assert there.frames.flags.writeable
    assert facts == video.probe(data)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"no video", Limits()),
        (b"", Limits()),
        (make_clip(seconds=0.2)[:-500], Limits()),
        (make_clip(seconds=0.2), Limits(max_side=50)),
        (make_clip(seconds=0.2), Limits(max_bytes=100)),
    ],
)
def test_a_refusal_is_what_it_is_in_process(
    data: bytes, limits: Limits, run: Run[Any], pool: Pool, orders: Orders
) -> None:
    with pytest.raises(InputError) as here:
        video.read(data, Sampling(), limits)
    with orders.file(data) as file, pytest.raises(InputError) as there:
        run(pool.read(file, Sampling(), limits))
    assert pool.refused[here.value.code] > 0
    assert type(there.value) is type(here.value)
    assert there.value.__dict__ == here.value.__dict__


@pytest.mark.parametrize("order", ["leap 0", "abort", "exit 0", "exit 7", "signal 9", "signal 31"])
def test_a_decoder_that_dies_is_one_refusal_and_nobody_elses_trouble(
    order: str, run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    before = pool.refused["died"]

    async def both() -> list[Any]:
        with orders.file(clip_bytes) as good, orders.file(b"DO " + order.encode()) as bad:
            jobs = [pool.read(file, Sampling(), Limits()) for file in (good, bad, good, good)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    first, died, *others = run(both())
    assert isinstance(died, Undecodable)
    assert (died.message, died.field) == ("the video cannot be decoded", "video")
    for clip in (first, *others):
        assert np.array_equal(clip.frames, first.frames)
    assert pool.refused["died"] == before + 1
    pool.check()


def test_a_slow_decoder_is_killed_at_its_deadline_and_others_go_on(
    run: Run[Any], orders: Orders, clip_bytes: bytes
) -> None:
    own = Pool(TIGHT.model_copy(update={"deadline_seconds": 0.5}), 2, MISBEHAVING)

    async def both() -> tuple[float, float, Undecodable]:
        start = time.monotonic()
        with orders.file(clip_bytes) as good, orders.file(b"DO sleep 30") as slow:
            waiting = asyncio.create_task(own.read(slow, Sampling(), Limits()))
            await own.read(good, Sampling(), Limits())
            read = time.monotonic() - start
            with pytest.raises(Undecodable) as refusal:
                await waiting
            return read, time.monotonic() - start, refusal.value

    read, refused, error = run(both())
    own.close()
    assert error.message == "decoding the video takes longer than 0.5 s, which is the limit"
    assert error.limit == 0.5
    assert own.refused == {"deadline": 1}
    assert refused >= 0.5
    assert read < 10 > refused


LIES = [
    "say nonsense",
    "say [1, 2]",
    'say {"facts": 1}',
    'say {"refused": {"code": "internal_error", "message": "x", "field": null, "value": null, "limit": null}}',
    "flood 100000",
]


@pytest.mark.parametrize("order", LIES)
def test_a_lie_reaches_the_log_and_not_the_caller(
    order: str, run: Run[Any], pool: Pool, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    before = pool.refused["lied"]
    with orders.file(b"DO " + order.encode()) as file, pytest.raises(Undecodable) as refusal:
        run(pool.read(file, Sampling(), Limits()))
    assert refusal.value.message == "the video cannot be decoded"
    assert pool.refused["lied"] == before + 1
    assert any(record.message.startswith("a decoder lied") for record in caplog.records)


def test_a_caller_that_leaves_takes_its_decoder_with_it(run: Run[Any], orders: Orders, clip_bytes: bytes) -> None:
    own = Pool(TIGHT, 1, MISBEHAVING)

    async def leave() -> None:
        with orders.file(b"DO sleep 30") as slow, orders.file(clip_bytes) as good:
            for seconds in (0.0, 0.3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(own.read(slow, Sampling(), Limits()), seconds)
            assert (await asyncio.wait_for(own.read(good, Sampling(), Limits()), 10)).sampled == 32

    run(leave())
    own.close()


def test_who_waits_is_served_in_the_order_of_coming(run: Run[Any], orders: Orders, clip_bytes: bytes) -> None:
    own = Pool(TIGHT, 1, MISBEHAVING)
    done: list[int] = []

    async def one(number: int) -> None:
        with orders.file(clip_bytes) as file:
            await own.probe(file, Limits())
        done.append(number)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))

    run(all_of_them())
    own.close()
    assert done == list(range(8))


def test_a_decoder_is_replaced_after_its_share_of_videos(run: Run[Any], orders: Orders) -> None:
    own = Pool(TIGHT.model_copy(update={"videos_per_child": 3}), 1, MISBEHAVING)
    users = [run(orders.give(own, "pid")) for _ in range(9)]
    own.close()
    assert [users.count(user) for user in dict.fromkeys(users)] == [3, 3, 3]


def test_after_damage_nobody_gets_the_decoder_that_saw_it(run: Run[Any], pool: Pool, orders: Orders) -> None:
    before = run(orders.give(pool, "pid"))
    assert run(orders.give(pool, "pid")) == before
    with orders.file(make_clip(seconds=0.2)[:-500]) as file, pytest.raises(Undecodable):
        run(pool.read(file, Sampling(), Limits()))
    assert run(orders.give(pool, "pid")) != before


def test_what_is_over_the_limits_is_refused_before_a_child_is_used_up(
    run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    before = run(orders.give(pool, "pid"))
    with orders.file(clip_bytes) as file:
        for limits, kind in ((Limits(max_seconds=0.1), OutOfLimits), (Limits(max_bytes=10), OutOfLimits)):
            with pytest.raises(kind):
                run(pool.read(file, Sampling(), limits))
    with orders.file(b"text") as file, pytest.raises(NotAVideo):
        run(pool.read(file, Sampling(), Limits()))
    assert run(orders.give(pool, "pid")) == before
