from __future__ import annotations

import asyncio
import contextvars
import gc
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from serve.cache import Cached, SingleFlight

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs it, and fails on a task that is left behind and on whatever the loop would only have logged."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        result = await coroutine
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    result = asyncio.run(watched())
    gc.collect()
    assert complaints == []
    return result


class Maker:
    """Counts its calls, and finishes when told to."""

    def __init__(self, value: str = "value", error: Exception | None = None) -> None:
        self.value, self.error = value, error
        self.started = self.finished = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        if self.error:
            raise self.error
        return self.value


async def until_waiting(tasks: list[asyncio.Task[Any]]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def asked(cache: Cached[str, str], make: Callable[[], Awaitable[str]], times: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(cache.get("key", make)) for _ in range(times)]


def strings(max_bytes: int = 100) -> Cached[str, str]:
    return Cached(max_bytes, len)


def test_many_callers_of_one_key_compute_once() -> None:
    async def scenario() -> None:
        cache, make = strings(), Maker()
        tasks = asked(cache, make, 50)
        await until_waiting(tasks)
        make.go.set()
        results = await asyncio.gather(*tasks)
        assert [value for value, _ in results] == ["value"] * 50
        assert [source for _, source in results] == ["miss"] + ["joined"] * 49
        assert await cache.get("key", make) == ("value", "hit")
        assert make.started == 1

    run(scenario())


def test_different_keys_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        cache, slow, fast = strings(), Maker("slow"), Maker("fast")
        fast.go.set()
        first = asyncio.create_task(cache.get("a", slow))
        assert await cache.get("b", fast) == ("fast", "miss")
        slow.go.set()
        assert await first == ("slow", "miss")

    run(scenario())


def test_a_failure_reaches_every_waiter_and_the_next_caller_computes_again() -> None:
    async def scenario() -> None:
        cache, make = strings(), Maker(error=ValueError("broken"))
        tasks = asked(cache, make, 3)
        await until_waiting(tasks)
        make.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in results] == ["broken"] * 3
        make.error = None
        assert await cache.get("key", make) == ("value", "miss")

    run(scenario())


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_a_cancelled_waiter_leaves_alone_even_the_one_who_started(leaver: int) -> None:
    async def scenario() -> None:
        cache, make = strings(), Maker()
        tasks = asked(cache, make, 3)
        await until_waiting(tasks)
        tasks[leaver].cancel()
        await asyncio.wait({tasks[leaver]})
        assert tasks[leaver].cancelled()
        make.go.set()
        stayed = [task for task in tasks if task is not tasks[leaver]]
        assert [(await task)[0] for task in stayed] == ["value"] * 2
        assert (make.started, make.cancelled) == (1, 0)

    run(scenario())


def test_when_every_waiter_is_cancelled_so_is_the_computation() -> None:
    async def scenario() -> None:
        cache, make = strings(), Maker()
        tasks = asked(cache, make, 3)
        await until_waiting(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        assert (make.cancelled, make.finished) == (1, 0)
        make.go.set()
        assert await cache.get("key", make) == ("value", "miss")

    run(scenario())


def test_who_comes_after_the_last_waiter_left_does_not_join_the_dying_computation() -> None:
    async def scenario() -> None:
        cache, cleaned, dying_value = strings(), asyncio.Event(), "dying"

        async def slow_to_die() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                await cleaned.wait()
            return dying_value

        leaver = asyncio.create_task(cache.get("key", slow_to_die))
        await until_waiting([leaver])
        leaver.cancel()
        await asyncio.wait({leaver})
        fresh = Maker("fresh")
        first = asyncio.create_task(cache.get("key", fresh))
        await until_waiting([first])
        cleaned.set()
        await until_waiting([first])
        second = asyncio.create_task(cache.get("key", fresh))
        await until_waiting([second])
        fresh.go.set()
        assert await first == ("fresh", "miss")
        assert await second == ("fresh", "joined")
        assert fresh.started == 1

    run(scenario())


def test_a_computation_that_fails_after_everyone_left_does_not_complain_to_the_loop() -> None:
    async def scenario() -> None:
        cache = strings()

        async def fails_when_cancelled() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("broken while cleaning up") from None
            return "never"

        task = asyncio.create_task(cache.get("key", fails_when_cancelled))
        await until_waiting([task])
        task.cancel()
        await asyncio.wait({task})

    run(scenario())


def test_the_computation_runs_in_no_callers_context() -> None:
    request = contextvars.ContextVar("request", default="none")

    async def scenario() -> None:
        async def make() -> str:
            return request.get()

        request.set("first caller's")
        assert await strings().get("key", make) == ("none", "miss")

    run(scenario())


def test_a_flush_forgets_what_is_under_way_but_its_waiters_get_it() -> None:
    async def scenario() -> None:
        cache, old, new = strings(), Maker("old"), Maker("new")
        waiter = asyncio.create_task(cache.get("key", old))
        await until_waiting([waiter])
        cache.drop_where(lambda key: True)
        new.go.set()
        assert await cache.get("key", new) == ("new", "miss")
        old.go.set()
        assert await waiter == ("old", "miss")
        assert await cache.get("key", new) == ("new", "hit")

    run(scenario())


def test_some_keys_can_be_forgotten_and_what_is_under_way_for_the_others_is_kept() -> None:
    async def scenario() -> None:
        cache, make, again = strings(), Maker("value"), Maker("again")
        again.go.set()
        await cache.get("a/kept", again)
        await cache.get("b/kept", again)
        waiters = [asyncio.create_task(cache.get(key, make)) for key in ("a/under way", "b/under way")]
        await until_waiting(waiters)
        cache.drop_where(lambda key: key.startswith("a/"))
        make.go.set()
        assert await asyncio.gather(*waiters) == [("value", "miss")] * 2
        assert [key in cache for key in ("a/kept", "a/under way", "b/kept", "b/under way")] == [
            False,
            False,
            True,
            True,
        ]

    run(scenario())


def test_a_forgotten_computation_does_not_replace_what_came_after_it() -> None:
    async def scenario() -> None:
        cache, old, new = strings(), Maker("old"), Maker("new")
        waiter = asyncio.create_task(cache.get("key", old))
        await until_waiting([waiter])
        cache.drop_where(lambda key: key == "key")
        later = asyncio.create_task(cache.get("key", new))
        await until_waiting([later])
        old.go.set()
        assert await waiter == ("old", "miss")
        assert "key" not in cache
        new.go.set()
        assert await later == ("new", "miss")
        assert await cache.get("key", old) == ("new", "hit")

    run(scenario())


def test_after_a_flush_the_last_waiter_still_cancels_what_it_waits_for() -> None:
    async def scenario() -> None:
        cache, make = strings(), Maker()
        waiter = asyncio.create_task(cache.get("key", make))
        await until_waiting([waiter])
        cache.drop_where(lambda key: True)
        waiter.cancel()
        await asyncio.wait({waiter})
        await asyncio.sleep(0)
        assert make.cancelled == 1

    run(scenario())


def test_a_value_too_large_to_keep_still_reaches_its_waiters() -> None:
    async def scenario() -> None:
        cache, make = strings(max_bytes=2), Maker("too large")
        make.go.set()
        assert await cache.get("key", make) == ("too large", "miss")
        assert await cache.get("key", make) == ("too large", "miss")
        assert cache.stats.rejected == 2

    run(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_random_cancellations_and_failures_leave_the_right_values_and_nothing_behind(seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        cache: Cached[int, str] = Cached(20, len)

        async def make(key: int) -> str:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            if rng.random() < 0.2:
                raise ValueError(str(key))
            return str(key) * 4

        async def caller(key: int) -> str:
            value, source = await cache.get(key, lambda: make(key))
            assert source in ("hit", "joined", "miss")
            return value

        tasks: dict[asyncio.Task[str], int] = {}
        for _ in range(500):
            key = rng.randrange(9)
            tasks[asyncio.create_task(caller(key))] = key
            if rng.random() < 0.3:
                rng.choice(list(tasks)).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            assert cache.stats.bytes <= 20
        await asyncio.wait(tasks)
        for task, key in tasks.items():
            if not task.cancelled():
                assert str(task.exception()) == str(key) if task.exception() else task.result() == str(key) * 4

    run(scenario())


def test_a_single_flight_holds_nothing_when_it_is_over() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str, str] = SingleFlight()
        make = Maker()
        make.go.set()
        assert await flights.run("key", make) == ("value", False)
        assert len(flights) == 0

    run(scenario())
