"""The processes behind a pool: who dies, who is replaced, and that nobody and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import thread
from pathlib import Path
from typing import Any

import pytest

from models.video import Limits, Sampling
from serve.errors import StageLost
from serve.sandbox.launcher import Launcher, SandboxError
from serve.sandbox.pool import Pool
from serve.settings import Sandbox
from tests.processes import alive, descendants
from tests.serve.sandbox.conftest import MISBEHAVING, TIGHT, Orders, Run


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


def test_a_forgotten_pool_is_collected_within_an_executors_lock() -> None:
    """As the garbage collector may do: with this lock held, nothing can be submitted to any executor."""
    before = set(descendants())
    pools = [Pool(Sandbox(), 1)]
    started = set(descendants()) - before
    assert started
    done = threading.Event()

    def forget() -> None:
        with thread._global_shutdown_lock:
            pools.clear()
            gc.collect()
        done.set()

    threading.Thread(target=forget, daemon=True).start()
    assert done.wait(30), "the collector waits for a lock that it holds itself"
    end = time.monotonic() + 10
    while any(alive(pid) for pid in started):
        assert time.monotonic() < end, "processes of a forgotten pool live on"
        time.sleep(0.05)
