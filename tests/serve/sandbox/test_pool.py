"""Jobs, and what becomes of them when a decoder is slow, dies, lies or loses its caller."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import video
from models.errors import InputError, NotAVideo, OutOfLimits, Undecodable
from models.video import Limits, Sampling
from serve.errors import StageLost
from serve.sandbox.launcher import Launcher, SandboxError
from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.clips import make_clip
from tests.processes import alive, descendants
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
    assert type(there.value) is type(here.value)
    assert there.value.__dict__ == here.value.__dict__


@pytest.mark.parametrize("order", ["leap 0", "abort", "exit 0", "exit 7", "signal 9", "signal 31"])
def test_a_decoder_that_dies_is_one_refusal_and_nobody_elses_trouble(
    order: str, run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    async def both() -> list[Any]:
        with orders.file(clip_bytes) as good, orders.file(b"DO " + order.encode()) as bad:
            jobs = [pool.read(file, Sampling(), Limits()) for file in (good, bad, good, good)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    first, died, *others = run(both())
    assert isinstance(died, Undecodable)
    assert (died.message, died.field) == ("the video cannot be decoded", "video")
    for clip in (first, *others):
        assert np.array_equal(clip.frames, first.frames)
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
    with orders.file(b"DO " + order.encode()) as file, pytest.raises(Undecodable) as refusal:
        run(pool.read(file, Sampling(), Limits()))
    assert refusal.value.message == "the video cannot be decoded"
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


def test_children_that_end_with_their_zygote_are_no_videos_fault(
    run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    zygote = _below(os.getpid(), "serve.sandbox.zygote")
    os.kill(zygote, signal.SIGKILL)
    with orders.file(clip_bytes) as file:
        assert run(pool.read(file, Sampling(), Limits())).sampled == 32


def test_a_child_that_dies_while_it_waits_is_no_videos_fault(
    run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    child = int(run(orders.give(pool, "pid")))
    os.kill(child, signal.SIGKILL)
    _until(lambda: not alive(child))
    with orders.file(clip_bytes) as file:
        assert run(pool.read(file, Sampling(), Limits())).sampled == 32


def test_children_that_cannot_be_started_fail_the_health_check(
    run: Run[Any], orders: Orders, clip_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Pool(TIGHT.model_copy(update={"videos_per_child": 1}), 1, MISBEHAVING)

    def fail(self: Launcher) -> None:
        raise SandboxError("no process can be started: Cannot allocate memory")

    with orders.file(clip_bytes) as file:
        with monkeypatch.context() as patch:
            patch.setattr(Launcher, "start", fail)
            for _ in range(2):  # the children that were ready
                run(own.read(file, Sampling(), Limits()))
            with pytest.raises(StageLost, match="no process can be started"):
                run(own.read(file, Sampling(), Limits()))
            with pytest.raises(SandboxError, match="Cannot allocate memory"):
                own.check()
        assert run(own.read(file, Sampling(), Limits())).sampled == 32
    own.check()
    own.close()


def test_a_pool_that_cannot_start_says_why() -> None:
    with pytest.raises(SandboxError, match=r"did not get ready[\s\S]*No module named 'tests.serve.sandbox.absent'"):
        Pool(Sandbox(), 1, "tests.serve.sandbox.absent")


def test_many_jobs_leave_no_descriptor_no_process_and_no_memory_behind(
    run: Run[Any], pool: Pool, orders: Orders, clip_bytes: bytes
) -> None:
    async def some(times: int) -> None:
        for _ in range(times):
            with orders.file(clip_bytes) as good, orders.file(b"DO exit 1") as bad, orders.file(b"not") as other:
                jobs = [pool.read(good, Sampling(4), Limits()), pool.probe(bad, Limits()), pool.probe(other, Limits())]
                results = await asyncio.gather(*jobs, return_exceptions=True)
            assert [type(result).__name__ for result in results] == ["Clip", "Undecodable", "NotAVideo"]

    run(some(5))
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), _children(), _memory()
    run(some(40))
    gc.collect()
    after = len(os.listdir("/proc/self/fd")), _children(), _memory()
    assert after[0] <= before[0] + 1  # a child of three may not have its memory yet
    assert after[1] == before[1] == 4  # the zygote, two that may work, one that stands ready
    assert after[2] < before[2] + 20_000  # KiB


def test_a_closed_pool_leaves_no_process_and_refuses(run: Run[Any], orders: Orders, clip_bytes: bytes) -> None:
    own = Pool(TIGHT, 2, MISBEHAVING)
    processes = set(descendants()) - {os.getpid()}
    pid = run(orders.give(own, "pid"))
    assert int(pid) in processes
    own.close()
    assert not (set(descendants()) & {int(pid)})
    with orders.file(clip_bytes) as file, pytest.raises(StageLost, match="closed"):
        run(own.read(file, Sampling(), Limits()))


def test_what_is_under_way_when_the_pool_is_closed_fails_at_once(run: Run[Any], orders: Orders) -> None:
    own = Pool(TIGHT, 1, MISBEHAVING)

    async def closed_meanwhile() -> None:
        with orders.file(b"DO sleep 30") as slow:
            waiting = asyncio.create_task(own.read(slow, Sampling(), Limits()))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own.close)
            with pytest.raises(StageLost, match="closed"):
                await asyncio.wait_for(waiting, 5)

    run(closed_meanwhile())


def test_a_parent_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import time\nfrom serve.sandbox.pool import Pool\nfrom serve.settings import Sandbox\n"
        "pool = Pool(Sandbox(), 2)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        started = set(descendants(parent.pid)) - {parent.pid}
        assert len(started) == 4
        parent.kill()
    _until(lambda: not any(alive(pid) for pid in started))


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


def _children() -> int:
    _until(lambda: len(_pids()) <= 4)
    return len(_pids())


def _pids() -> list[int]:
    return [pid for pid, command in descendants().items() if "serve.sandbox.zygote" in command and alive(pid)]


def _below(root: int, name: str) -> int:
    """The topmost of our processes that runs `name`."""
    found = [pid for pid, command in descendants(root).items() if name in command]
    return next(pid for pid in found if set(found) <= set(descendants(pid)))


def _memory() -> int:
    """Resident, KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
