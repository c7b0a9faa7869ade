"""`serve.calls` against a real Ray Serve on this machine, with stages that misbehave on demand."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest
import ray
import torch
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import DeploymentUnavailableError

from models.errors import OutOfLimits
from serve.calls import _meant, call
from serve.errors import Busy, NotReady, StageLost, UnknownVideo
from serve.tensors import pack, unpack
from tests.processes import descendants
from tests.serve.stages import Front, Stage, notes

APP = "calls"


async def until(path: str, expected: list[str]) -> None:
    end = time.monotonic() + 60  # the tests before have killed replicas, and a busy machine starts one in half a minute
    while notes(path) != expected:
        assert time.monotonic() < end, f"expected {expected}, got {notes(path)}"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def handles() -> Iterator[dict[str, Any]]:
    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False, logging_level="error")
    try:
        serve.start(proxy_location="Disabled")
        small: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": 0.1},
            "health_check_period_s": 0.5,  # Serve sees a dead replica at its next health check
            "graceful_shutdown_wait_loop_s": 0.1,
        }
        stage = serve.deployment(Stage, name="stage", num_replicas=2, **small)
        narrow = serve.deployment(
            Stage,
            name="narrow",
            max_ongoing_requests=1,
            max_queued_requests=1,
            backpressure_config=BackpressureConfig(status_code=429, retry_after_s=7),
            **small,
        )
        front = serve.deployment(Front, name="front", **small)
        serve.run(front.bind(stage.bind(), narrow.bind()), name=APP, route_prefix=None)
        yield {name: serve.get_deployment_handle(name, APP) for name in ("stage", "front", "narrow")}
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(params=[False, True], ids=["by-reference", "by-value"])
def by_value(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes")


def test_arguments_and_result_pass(handles: dict[str, Any], by_value: bool) -> None:
    assert asyncio.run(call(handles["stage"].add, 2, 3, by_value=by_value)) == 5


@pytest.mark.parametrize(
    ("sent", "times"), [pytest.param(1, 6_000_000, id="result"), pytest.param(6_000_000, 1, id="argument")]
)
def test_what_is_too_large_to_go_by_value_arrives_all_the_same(handles: dict[str, Any], sent: int, times: int) -> None:
    data = asyncio.run(call(handles["stage"].echo, b"x" * sent, times, by_value=True))
    assert len(data) == 6_000_000


def test_a_call_outlives_the_replica_that_dies_under_it(handles: dict[str, Any], path: str, by_value: bool) -> None:
    assert asyncio.run(call(handles["stage"].die, path, 1, by_value=by_value)) == "alive"
    assert notes(path) == ["called"] * 2


def test_a_call_gives_up_after_its_attempts(handles: dict[str, Any], path: str, by_value: bool) -> None:
    with pytest.raises(StageLost, match="stage lost its replica 1 times"):
        asyncio.run(call(handles["stage"].die, path, 99, attempts=1, by_value=by_value))
    assert notes(path) == ["called"]


@pytest.mark.parametrize("hops", [1, 2])
def test_an_error_arrives_as_it_was_raised_and_is_not_tried_again(
    handles: dict[str, Any], path: str, hops: int, by_value: bool
) -> None:
    error = OutOfLimits("31 frames; the limit is 30", field="frames", value=31, limit=30)
    method = handles["stage"].fail if hops == 1 else handles["front"].passes_so
    way = [] if hops == 1 else [by_value, "fail"]
    with pytest.raises(OutOfLimits) as caught:
        asyncio.run(call(method, *way, path, error, by_value=by_value))
    assert type(caught.value) is OutOfLimits
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == "31 frames; the limit is 30"
    assert notes(path) == ["called"]


@pytest.mark.parametrize("error", [UnknownVideo("none", field="video.id", value="vid"), Busy("full", retry_after=3)])
def test_the_services_own_errors_arrive_too(handles: dict[str, Any], path: str, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        asyncio.run(call(handles["front"].passes, "fail", path, error))
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)


def test_an_unexpected_error_keeps_its_type_and_brings_the_other_sides_traceback(
    handles: dict[str, Any], path: str
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(call(handles["stage"].fail, path, ZeroDivisionError("by zero")))
    assert type(caught.value) is ZeroDivisionError
    assert isinstance(caught.value.__cause__, RayTaskError)
    assert "in fail" in str(caught.value.__cause__)
    assert notes(path) == ["called"]


def test_a_cancelled_caller_cancels_the_call(handles: dict[str, Any], path: str, by_value: bool) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(call(handles["stage"].work, path, 30, by_value=by_value))
        await until(path, ["started"])
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await until(path, ["started", "cancelled"])

    asyncio.run(scenario())


def test_a_deadline_around_a_call_cancels_it_through_every_stage(
    handles: dict[str, Any], path: str, by_value: bool
) -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await call(handles["front"].passes_so, by_value, "work", path, 30, by_value=by_value)
        await until(path, ["started", "cancelled"])

    asyncio.run(scenario())


def test_a_caller_that_dies_leaves_no_work_behind_where_it_called_by_value(handles: dict[str, Any], path: str) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(call(handles["front"].passes_so, True, "work", path, 30, attempts=1))
        await until(path, ["started"])
        [front] = (pid for pid, command in descendants().items() if f"ServeReplica:{APP}:front" in command)
        os.kill(front, signal.SIGKILL)
        with pytest.raises(StageLost):
            await task
        await until(path, ["started", "cancelled"])

    asyncio.run(scenario())


def test_a_cancellation_on_the_other_side_does_not_cancel_the_caller(
    handles: dict[str, Any], path: str, by_value: bool
) -> None:
    with pytest.raises(StageLost):
        asyncio.run(call(handles["stage"].cancel_itself, path, attempts=2, by_value=by_value))
    assert notes(path) == ["called"] * 2


def test_a_full_queue_is_busy_and_says_when_to_come_back(handles: dict[str, Any], path: str, by_value: bool) -> None:
    async def scenario() -> list[Any]:
        calls = [call(handles["narrow"].work, path, 0.5, by_value=by_value) for _ in range(8)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(scenario())
    refused = [result for result in results if result != "done"]
    assert refused
    assert {type(error) for error in refused} == {Busy}
    assert {error.retry_after for error in refused} == {7}
    assert "done" in results


def test_a_stage_lost_behind_a_stage_is_not_tried_again_from_here(handles: dict[str, Any], path: str) -> None:
    with pytest.raises(StageLost):
        asyncio.run(call(handles["front"].passes_without_call, "die", path, 99))
    assert notes(path) == ["called"]


def test_an_argument_whose_own_call_died_is_a_lost_stage(handles: dict[str, Any], path: str) -> None:
    async def scenario() -> None:
        await call(handles["front"].takes, handles["stage"].die.remote(path, 99))

    with pytest.raises(StageLost, match="front"):
        asyncio.run(scenario())
    assert notes(path) == ["called"]


def test_a_cancelled_request_leaves_the_others_their_shared_computation(handles: dict[str, Any], path: str) -> None:
    async def scenario() -> None:
        first = asyncio.create_task(call(handles["front"].cached, path, 1.0))
        await until(path, ["started"])
        second = asyncio.create_task(call(handles["front"].cached, path, 1.0))
        await asyncio.sleep(0.3)
        first.cancel()
        assert await second == ("done", "joined")
        assert notes(path) == ["started", "finished"]
        assert await call(handles["front"].cached, path, 1.0) == ("done", "hit")

    asyncio.run(scenario())


def test_when_all_requests_are_cancelled_the_shared_computation_stops_behind_them(
    handles: dict[str, Any], path: str
) -> None:
    async def scenario() -> None:
        tasks = [asyncio.create_task(call(handles["front"].cached, path, 30)) for _ in range(2)]
        await until(path, ["started"])
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await until(path, ["started", "cancelled"])

    asyncio.run(scenario())


def test_a_stage_that_failed_to_deploy_is_not_ready() -> None:
    error = _meant(DeploymentUnavailableError(DeploymentID("encoder", APP)), "encoder")
    assert isinstance(error, NotReady)
    assert "encoder" in error.message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_tensor_comes_out_of_the_object_store_without_a_copy(handles: dict[str, Any], dtype: torch.dtype) -> None:
    tensor = torch.arange(300_000).to(dtype)
    packed = ray.get(ray.put(pack(tensor)))
    assert not packed.array.flags.writeable
    arrived = unpack(packed)
    assert arrived.data_ptr() == packed.array.ctypes.data
    assert torch.equal(arrived, tensor)
