"""The capacity model against what is known of queues, and the plans that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.capacity.__main__ import main
from deploy.capacity.model import STAGES, Deployment, Load, Outcome, Simulation, Times, arrivals
from deploy.capacity.plan import demand, plan

NOTHING = Times(0, 0, 0, 0, 0, 0, 0, 0)
TIMES = Times(0.1, 0.3, 0.02, 0.005, 0.001, 0.5, 0.03, 0.004, edge=0.02)
ALONE = Load(rate=0.01, per_clip=2, gap=50)


def played(times: Times, deployment: Deployment, load: Load, seconds: float, seed: int = 0) -> Outcome:
    return Simulation(times, deployment).run(arrivals(load, seconds, seed), seconds)


def test_an_idle_service_takes_the_time_of_its_longest_way() -> None:
    outcome = played(TIMES, Deployment(), ALONE, 100_000)
    warm = TIMES.selector_pass + TIMES.selector_each + TIMES.decoder_pass + TIMES.decoder_each + TIMES.edge
    cold = TIMES.frames_clip + TIMES.decoder_clip + TIMES.decoder_pass + TIMES.decoder_each + TIMES.edge
    assert min(outcome.warm) == pytest.approx(warm)
    assert min(outcome.cold) == pytest.approx(cold), "encoder and selector work meanwhile"
    assert len(outcome.cold) + len(outcome.warm) == pytest.approx(800, rel=0.2)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_stage_alone_waits_as_queueing_theory_says(utilisation: float) -> None:
    """M/D/1: the mean wait is utilisation * service / (2 * (1 - utilisation))."""
    service = 0.5
    times, load = replace(NOTHING, decoder_clip=service), Load(utilisation / service, per_clip=1)
    outcome = played(times, Deployment(), load, 60_000, seed=1)
    wait = sum(outcome.cold) / len(outcome.cold) - service
    assert wait == pytest.approx(utilisation * service / (2 * (1 - utilisation)), rel=0.1)
    assert outcome.busy["decoder"] == pytest.approx(utilisation, rel=0.05)


def test_what_shares_one_core_takes_as_long_as_all_of_it() -> None:
    outcome = played(TIMES, Deployment(cores=1), ALONE, 50_000)
    every = sum(value for name, value in vars(TIMES).items() if name != "decoder_chunk")
    assert min(outcome.cold) == pytest.approx(every)


@pytest.mark.parametrize(("cores", "speed"), [(1, 0.5), (1.5, 0.75), (2, 1.0)])
def test_two_who_share_cores_go_on_at_the_same_speed(cores: float, speed: float) -> None:
    """A short question that comes while a clip is encoded is not kept waiting for the end of that."""
    times = replace(NOTHING, encoder_clip=10.0, selector_pass=1.0)
    seconds = Simulation(times, Deployment(cores=cores)).run([(100.0, 0), (200.0, 1), (205.0, 0)], 400)
    assert seconds.warm == [pytest.approx(1 / speed)]
    assert seconds.cold[1] == pytest.approx(11 + 1 / speed - 1)  # the encoder was slower for as long as that took


@pytest.mark.parametrize(("chunk", "expected"), [(0.2, 0.2), (1.0, 0.6), (5.0, 4.6)])
def test_an_answer_waits_for_a_chunk_of_another_clip_and_not_for_all_of_it(chunk: float, expected: float) -> None:
    times = replace(NOTHING, decoder_clip=5.0, decoder_pass=0.1, decoder_chunk=chunk)
    seconds = Simulation(times, Deployment()).run([(100.0, 0), (200.0, 1), (200.5, 0)], 400)
    assert seconds.warm == [pytest.approx(expected)]


def test_a_known_load_is_what_was_asked_for() -> None:
    questions = arrivals(Load(2.0, per_clip=2.5, gap=3.0), 20_000)
    assert len(questions) == pytest.approx(40_000, rel=0.03)
    assert len(questions) / len({clip for _, clip in questions}) == pytest.approx(2.5, rel=0.03)
    assert questions == sorted(questions)


def test_questions_go_together_when_many_wait() -> None:
    """A decoder that takes 40 ms for a pass, however many are in it, keeps up with 100 questions a second."""
    times = replace(NOTHING, decoder_pass=0.04)
    load = Load(100, per_clip=50, gap=0.2)
    together, alone = (played(times, Deployment(together=n), load, 60).quantile(0.95) for n in (16, 1))
    assert together < 0.15
    assert alone > 1


def test_too_much_is_said_to_be_endless() -> None:
    assert played(TIMES, Deployment(), Load(10, per_clip=1), 300).quantile(0.95) == float("inf")


def test_a_plan_meets_its_bound_and_one_replica_less_does_not() -> None:
    load, prices = Load(8.0), {"decoder": 3.0, "encoder": 1.0}
    found = plan(TIMES, load, p95=1.5, prices=prices)
    assert found.outcome.quantile(0.95) <= 1.5
    counts = {stage: getattr(found.deployment, stage) for stage in STAGES}
    assert all(counts[stage] >= need for stage, need in demand(TIMES, load).items())
    assert found.cost == 3 * counts["decoder"] + counts["encoder"]
    with pytest.raises(ValueError, match=r"p95 is 0\.1 s"):
        plan(TIMES, load, p95=0.1, prices={})


def test_a_large_load_is_planned_by_its_parts() -> None:
    small, large = (plan(TIMES, Load(rate), p95=1.5, prices={}) for rate in (20.0, 20_000.0))
    for stage in STAGES:
        assert getattr(large.deployment, stage) == 1000 * getattr(small.deployment, stage)


def test_the_command_prints_a_line_for_each_load(tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(json.dumps({**TIMES.__dict__, "_measured": "by a test"}))
    command = [sys.executable, "-m", "deploy.capacity", "--times", str(tmp_path / "times.json"), "--rate", "2", "200"]
    done = subprocess.run([*command, "--price", "decoder=2"], capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["2/s", "200/s"]
    wrong = subprocess.run([*command, "--price", "decode=2"], capture_output=True, text=True)
    assert (wrong.returncode, "no such stage" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (("--price", "decoder"), "decoder: expected decoder=COST"),
        (("--price", "decoder=dear"), "expected decoder=COST, a number"),
        (("--price", "edge=1"), "no such stage"),
        (("--times", "none.json"), "none.json holds no times"),
        (("--times", "pyproject.toml"), "pyproject.toml holds no times"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(
    argument: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--times", "deploy/capacity/h100-estimate.json", *argument])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_times_of_a_stage_that_there_is_not_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "times.json"
    path.write_text('{"frame_clip": 1}')
    with pytest.raises(SystemExit):
        main(["--times", str(path)])
    assert "frame_clip" in capsys.readouterr().err
