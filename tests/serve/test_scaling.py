"""How many replicas the policy wants, for what the replicas report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serve.app import build
from serve.scaling import ByWork
from serve.settings import Autoscale, EncoderStage, Settings, Store
from tests.serve.test_app import graph


def context(
    now: int, work: list[float], full: list[float] | None = None, queued: float = 0.0, running: float = 0.0
) -> Any:
    metrics = {"work": dict(enumerate(work))} | ({"full": dict(enumerate(full))} if full else {})
    return SimpleNamespace(
        target_num_replicas=now,
        aggregated_metrics=metrics if work else {},
        total_queued_requests=queued,
        total_running_requests=running,
    )


@pytest.mark.parametrize(
    ("now", "work", "wanted"),
    [
        (1, [0], 1),  # never fewer than one
        (1, [100], 1),
        (1, [101], 2),
        (1, [950], 10),
        (3, [100, 100, 100], 3),
        (3, [60, 60, 60], 3),  # two would be at 90 %, above the slack
        (3, [50, 50, 50], 2),
        (4, [10, 0, 0, 0], 1),
        (2, [], 2),  # nobody has reported yet
    ],
)
def test_as_many_as_the_work_needs_and_no_flapping_at_a_border(now: int, work: list[float], wanted: int) -> None:
    assert ByWork(100)(context(now, work)) == (wanted, {})


def test_a_load_between_two_numbers_stays_where_it_is() -> None:
    policy, now = ByWork(100), 1
    seen = []
    for work in (90, 110, 90, 110, 85, 105):
        now = int(policy(context(now, [work]))[0])
        seen.append(now)
    assert seen == [1, 2, 2, 2, 2, 2]


def test_a_full_memory_counts_as_work() -> None:
    assert ByWork(100)(context(2, [10, 10], [0.95, 0.97]))[0] == 3
    assert ByWork(100)(context(2, [10, 10], [0.3, 0.3]))[0] == 1


def test_calls_that_wait_for_a_replica_are_worth_what_the_others_are() -> None:
    assert ByWork(100)(context(1, [100], queued=4, running=2))[0] == 3
    assert ByWork(100)(context(1, [0], queued=4, running=0))[0] == 4, "nothing is known of their size"


def test_a_stage_with_autoscaling_gets_the_policy_and_its_delays(tmp_path: Any) -> None:
    scale = Autoscale(least=2, most=5, target=20_000, up_seconds=1)
    settings = Settings(store=Store(url=str(tmp_path)), encoder=EncoderStage(autoscale=scale))
    bound = graph(build(settings))
    config = bound["encoder"][0]._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.upscale_delay_s) == (2, 5, 1)
    assert config.policy.policy_function == "serve.scaling:ByWork"
    assert config.policy.policy_kwargs == {"target": 20_000}
    assert bound["selector"][0]._deployment_config.autoscaling_config is None
    with pytest.raises(ValueError, match="most is 1"):
        Autoscale(least=2, most=1, target=1)
