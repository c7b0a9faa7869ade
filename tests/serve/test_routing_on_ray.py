"""`serve.routing` in a real Ray Serve on this machine: three replicas that tell where a call went."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from serve.calls import call
from serve.routing import REPORT_SECONDS, ClipRouter
from serve.settings import Routing
from tests.processes import alive
from tests.serve.stages import Group, Place

APP = "routing"
ROUTING = Routing(factor=1.25, slack=2)
KEYS = [f"clip {number}" for number in range(60)]


@pytest.fixture(scope="module")
def handles() -> Iterator[dict[str, Any]]:
    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False, logging_level="error")
    try:
        serve.start(proxy_location="Disabled")
        small: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": 0.1},
            "max_ongoing_requests": 64,
            "health_check_period_s": 0.5,
            "graceful_shutdown_wait_loop_s": 0.1,
        }
        router = RequestRouterConfig(request_router_class=ClipRouter, request_router_kwargs=ROUTING.model_dump())
        place = serve.deployment(Place, name="place", num_replicas=3, request_router_config=router, **small)
        group = serve.deployment(Group, name="group", **small)
        serve.run(group.bind(place.bind()), name=APP, route_prefix=None)
        yield {name: serve.get_deployment_handle(name, APP) for name in ("place", "group")}
    finally:
        serve.shutdown()
        ray.shutdown()


async def hold(handles: dict[str, Any], keys: list[str | None], seconds: float = 0.0) -> list[tuple[int, int]]:
    """All at once: the process of each call's replica, and how many calls that had by then."""
    return await asyncio.gather(*(call(handles["place"].hold, seconds, clip=key) for key in keys))


def owners(handles: dict[str, Any]) -> dict[str, int]:
    """The process of the replica that each key goes to while nothing else is under way, or was just now."""
    time.sleep(REPORT_SECONDS)

    async def one_by_one() -> dict[str, int]:
        return {key: (await call(handles["place"].hold, clip=key))[0] for key in KEYS}

    return asyncio.run(one_by_one())


def test_a_key_goes_to_the_same_replica_from_every_process(handles: dict[str, Any]) -> None:
    first = owners(handles)
    assert len(set(first.values())) == 3
    assert owners(handles) == first
    from_another = asyncio.run(call(handles["group"].hold, KEYS[:3], 0.0))
    assert [process for process, _ in from_another] == [first[key] for key in KEYS[:3]]


def test_calls_without_a_key_go_everywhere(handles: dict[str, Any]) -> None:
    results = asyncio.run(hold(handles, [None] * 40, 0.2))
    assert len({process for process, _ in results}) == 3


def test_a_few_calls_about_a_hot_clip_stay_together(handles: dict[str, Any]) -> None:
    [owner] = {owners(handles)[KEYS[0]]}
    assert {process for process, _ in asyncio.run(hold(handles, [KEYS[0]] * ROUTING.slack, 0.3))} == {owner}


def test_a_hot_clip_spreads_and_no_replica_gets_more_than_the_bound(handles: dict[str, Any]) -> None:
    """A burst of calls that all stay: the worst case, because none of them has been answered when the last comes."""
    count = 48
    results = asyncio.run(hold(handles, [KEYS[0]] * count, 2.0))
    most = {process: max(now for at, now in results if at == process) for process, _ in results}
    assert sum(most.values()) == count  # all were under way at once
    assert max(most.values()) <= ROUTING.factor * count / 3 + ROUTING.slack
    assert len(most) == 3
    # The bound grows with the load, so that the next replica on the ring is filled nearly as the owner is.
    assert most[owners(handles)[KEYS[0]]] > min(most.values())


def test_calls_that_one_request_makes_side_by_side_all_arrive(handles: dict[str, Any]) -> None:
    """They share Ray's id of the request."""
    results = asyncio.run(asyncio.wait_for(call(handles["group"].hold, KEYS * 2, 0.1), 20))
    assert len(results) == 2 * len(KEYS)


def test_cancelled_calls_leave_no_load_behind(handles: dict[str, Any]) -> None:
    before = owners(handles)

    async def cancelled() -> None:
        tasks = [asyncio.create_task(call(handles["place"].hold, 30, clip=KEYS[0])) for _ in range(24)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.5)

    asyncio.run(cancelled())
    results = asyncio.run(hold(handles, [KEYS[0]] * ROUTING.slack, 0.2))
    assert {process for process, _ in results} == {before[KEYS[0]]}


def test_a_killed_replica_loses_no_call_and_only_its_keys_move(handles: dict[str, Any]) -> None:
    before = owners(handles)
    victim = before[KEYS[0]]

    async def under_load() -> list[tuple[int, int]]:
        results = []
        for round_ in range(6):
            calls = asyncio.create_task(hold(handles, list(KEYS), 0.2))
            await asyncio.sleep(0.1)
            if round_ == 1:
                os.kill(victim, signal.SIGKILL)
            results += await calls
        return results

    results = asyncio.run(under_load())
    assert len(results) == 6 * len(KEYS)  # and none raised
    assert not alive(victim)

    after = owners(handles)
    assert victim not in after.values()
    new = set(after.values()) - set(before.values())  # the replacement, when it is there already
    moved = {key for key in KEYS if after[key] != before[key]}
    assert moved >= {key for key in KEYS if before[key] == victim}
    assert {after[key] for key in moved if before[key] != victim} <= new

    end = time.monotonic() + 30
    while len(set((settled := owners(handles)).values())) < 3:
        assert time.monotonic() < end, "no replacement came"
        time.sleep(0.2)
    [replacement] = set(settled.values()) - set(before.values())
    stayed = [key for key in KEYS if before[key] != victim and settled[key] == before[key]]
    assert all(settled[key] in (before[key], replacement) for key in KEYS if before[key] != victim)
    assert len(stayed) > len([key for key in KEYS if before[key] != victim]) / 2
    assert Counter(settled.values())[replacement] > 0
