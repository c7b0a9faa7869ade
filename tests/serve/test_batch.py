"""Batches of plain numbers, which are doubled in the real worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest
import torch

from serve.batch import Batcher
from serve.errors import OutOfMemory
from serve.trace import Stopwatch
from serve.worker import TorchWorker
from tests.serve.direct import occupied, until

T = TypeVar("T")


@pytest.fixture(scope="module")
def worker() -> TorchWorker:
    return TorchWorker(threads=1)


class Doubler:
    """Notes every pass. It fails on a negative number, and takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.passes: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.passes.append(list(items))
        time.sleep(self.seconds)
        if any(item < 0 for item in items):
            raise ValueError(f"cannot double {[item for item in items if item < 0]}")
        return [2 * item for item in items]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            result = await coroutine
        assert asyncio.all_tasks() == {asyncio.current_task()}  # no driver without work
        return result

    return asyncio.run(bounded())


def ask(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.run(Stopwatch(), item)) for item in items]


async def ask_while_busy(worker: TorchWorker, batcher: Batcher[int, int], *items: int) -> list[int | BaseException]:
    async with occupied(worker):
        tasks = ask(batcher, *items)
        await until(lambda: len(batcher._waiting) == len(items))
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_comes_while_the_worker_is_busy_is_one_batch_in_order(worker: TorchWorker) -> None:
    double = Doubler()
    batcher = Batcher(worker, double, 10)
    assert run(ask_while_busy(worker, batcher, 3, 1, 2)) == [6, 2, 4]
    assert double.passes == [[3, 1, 2]]


def test_an_idle_worker_starts_at_once_and_what_comes_meanwhile_goes_in_the_next_pass(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler(seconds=0.2)
        batcher = Batcher(worker, double, 10)
        first = ask(batcher, 1)
        await until(lambda: len(double.passes) == 1)
        later = ask(batcher, 2, 3)
        await asyncio.sleep(0.05)
        later += ask(batcher, 4)
        assert await asyncio.gather(*first, *later) == [2, 4, 6, 8]
        assert double.passes == [[1], [2, 3, 4]]

    run(scenario())


def test_costs_of_a_batch_are_bounded_and_a_dearer_item_goes_alone(worker: TorchWorker) -> None:
    double = Doubler()
    batcher = Batcher(worker, double, 10, cost=lambda item: item)
    assert run(ask_while_busy(worker, batcher, 6, 4, 1, 50, 2, 9)) == [12, 8, 2, 100, 4, 18]
    # 2 would fit beside 1, but 50 came before it; 9 does not fit beside 2.
    assert double.passes == [[6, 4], [1], [50], [2], [9]]


def test_only_items_of_one_kind_share_a_pass_and_the_oldest_goes_first(worker: TorchWorker) -> None:
    double = Doubler()
    batcher = Batcher(worker, double, 10, kind=lambda item: item % 2)
    assert run(ask_while_busy(worker, batcher, 1, 2, 3, 4)) == [2, 4, 6, 8]
    assert double.passes == [[1, 3], [2, 4]]


def test_a_failing_batch_is_tried_in_halves_and_only_the_culprit_fails(worker: TorchWorker) -> None:
    double = Doubler()
    batcher = Batcher(worker, double, 10)
    first, culprit, last = run(ask_while_busy(worker, batcher, 1, -2, 3))
    assert (first, last) == (2, 6)
    assert isinstance(culprit, ValueError)
    assert str(culprit) == "cannot double [-2]"
    assert double.passes == [[1, -2, 3], [1], [-2, 3], [-2], [3]]


def test_an_item_that_fails_alone_is_not_tried_again(worker: TorchWorker) -> None:
    double = Doubler()
    [error] = run(ask_while_busy(worker, Batcher(worker, double, 10), -1))
    assert isinstance(error, ValueError)
    assert double.passes == [[-1]]


def test_a_wrong_number_of_results_fails_instead_of_mixing_them_up(worker: TorchWorker) -> None:
    batcher: Batcher[int, int] = Batcher(worker, lambda items: [0] * 3, 10)
    errors = run(ask_while_busy(worker, batcher, 1, 2))
    assert [str(error) for error in errors] == ["3 results for a batch of 1"] * 2


def test_a_cancelled_item_that_has_not_started_is_dropped(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler()
        batcher = Batcher(worker, double, 10)
        async with occupied(worker):
            tasks = ask(batcher, 1, 2, 3)
            await until(lambda: len(batcher._waiting) == 3)
            tasks[0].cancel()
            await asyncio.wait({tasks[0]})
        assert await asyncio.gather(*tasks[1:]) == [4, 6]
        assert tasks[0].cancelled()
        assert double.passes == [[2, 3]]

    run(scenario())


def test_when_every_caller_leaves_nothing_is_computed_and_the_next_is_served(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler()
        batcher = Batcher(worker, double, 10)
        async with occupied(worker):
            tasks = ask(batcher, 1, 2)
            await until(lambda: len(batcher._waiting) == 2)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert await batcher.run(Stopwatch(), 3) == 6
        assert double.passes == [[3]]

    run(scenario())


def test_a_caller_that_leaves_during_its_pass_does_not_hurt_the_others(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler(seconds=0.2)
        batcher = Batcher(worker, double, 10)
        async with occupied(worker):
            tasks = ask(batcher, 1, 2)
            await until(lambda: len(batcher._waiting) == 2)
        await until(lambda: len(double.passes) == 1)
        tasks[0].cancel()
        assert await tasks[1] == 4
        assert tasks[0].cancelled()
        assert double.passes == [[1, 2]]

    run(scenario())


def test_shares_of_the_seconds_add_up_to_those_of_the_pass_by_cost(worker: TorchWorker) -> None:
    async def scenario() -> tuple[float, float, float]:
        batcher = Batcher(worker, Doubler(seconds=0.2), 10, cost=lambda item: item)
        watches = [Stopwatch(), Stopwatch()]
        async with occupied(worker):
            tasks = [asyncio.create_task(batcher.run(watch, item)) for watch, item in zip(watches, (1, 3), strict=True)]
            await until(lambda: len(batcher._waiting) == 2)
            start = time.perf_counter()
        await asyncio.gather(*tasks)
        return watches[0].seconds, watches[1].seconds, time.perf_counter() - start

    small, large, wall = run(scenario())
    assert large == pytest.approx(3 * small)
    assert 0.2 <= small + large <= wall


def test_lingering_gathers_what_comes_soon_but_a_full_batch_does_not_wait(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler()
        batcher = Batcher(worker, double, 3, linger_seconds=20.0)
        tasks = ask(batcher, 1)
        await asyncio.sleep(0.02)
        assert double.passes == []
        tasks += ask(batcher, 2, 3)
        assert await asyncio.gather(*tasks) == [2, 4, 6]
        assert double.passes == [[1, 2, 3]]

    start = time.perf_counter()
    run(scenario())
    assert time.perf_counter() - start < 15


def test_lingering_ends_after_its_time(worker: TorchWorker) -> None:
    async def scenario() -> None:
        start = time.perf_counter()
        assert await Batcher(worker, Doubler(), 3, linger_seconds=0.05).run(Stopwatch(), 1) == 2
        assert time.perf_counter() - start >= 0.05

    run(scenario())


def test_without_a_worker_callers_get_its_error_and_do_not_wait() -> None:
    gone = TorchWorker(threads=1)
    gone._thread.shutdown()

    async def scenario() -> list[int | BaseException]:
        return await asyncio.gather(*ask(Batcher(gone, Doubler(), 10), 1, 2), return_exceptions=True)

    assert [type(error) for error in run(scenario())] == [RuntimeError] * 2


def test_under_many_concurrent_callers_everyone_gets_their_own_result_in_few_passes(worker: TorchWorker) -> None:
    async def scenario() -> None:
        double = Doubler(seconds=0.005)
        batcher = Batcher(worker, double, 16)

        async def caller(number: int) -> None:
            for turn in range(5):
                assert await batcher.run(Stopwatch(), 10 * number + turn) == 2 * (10 * number + turn)

        await asyncio.gather(*(caller(number) for number in range(16)))
        assert sum(len(batch) for batch in double.passes) == 80
        assert len(double.passes) <= 20  # 5 turns of 16; one by one there would be 80
        assert max(len(batch) for batch in double.passes) <= 16

    run(scenario())


class Crammed(Doubler):
    """A device whose memory is enough for `most` items at a time."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def __call__(self, items: Sequence[int]) -> list[int]:
        found = super().__call__(items)
        if len(items) > self.most:
            raise self.error
        return found


CPU_WORDS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to …"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError(CPU_WORDS)])
def test_when_memory_is_short_the_batch_shrinks(worker: TorchWorker, error: Exception) -> None:
    crammed = Crammed(2, error)
    assert run(ask_while_busy(worker, Batcher(worker, crammed, 10), 1, 2, 3, 4)) == [2, 4, 6, 8]
    assert crammed.passes == [[1, 2, 3, 4], [1, 2], [3, 4]]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError(CPU_WORDS)])
def test_what_does_not_fit_alone_is_told_to_come_back(worker: TorchWorker, error: Exception) -> None:
    [refused] = run(ask_while_busy(worker, Batcher(worker, Crammed(0, error), 10), 1))
    assert isinstance(refused, OutOfMemory)
    assert refused.status == 503
    assert "alloc" not in str(refused)


def test_a_real_allocation_that_fails_is_known_as_one(worker: TorchWorker) -> None:
    with pytest.raises(OutOfMemory):
        run(worker.run(Stopwatch(), lambda: torch.empty(2**55, dtype=torch.uint8)))
