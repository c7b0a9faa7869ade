"""The loop on the `debug` run: workers, micro-batches, resuming and stopping change nothing of what is learned."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.loop import groups, journal, states
from training.loop.loop import LoopConfig, NotFinite, as_facts, train
from training.loop.task import Outcome, Rate, Share
from training.loop.workers import World, launch
from training.runs.debug import GRID, DebugConfig, DebugTask

STEPS = 8


def config(out: Path, items: int = 8, **loop: Any) -> DebugConfig:
    settings: dict[str, Any] = {"steps": STEPS, "save_every": 100, "log_every": 1, **loop}
    return DebugConfig(items=items, loop=LoopConfig(str(out), **settings))


def run(world: World, config: DebugConfig) -> None:
    train(DebugTask(config, world.device), config.loop, world, as_facts("debug", "test", config))


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in journal.read(out / "log.jsonl")]


def result(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    run(World.alone("cpu"), config(out))
    return out


def same(one: Path, other: Path) -> None:
    """Adam makes a full step even of a gradient that is only rounding (that of a key's bias), so weights may differ by
    a part of the 8 steps of 3e-3 where the loss does not feel it."""
    assert losses(other) == pytest.approx(losses(one), abs=2e-6)
    expected = result(one)
    for name, tensor in result(other).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5 if "bias" not in name else 1e-3, rtol=1e-4)


def test_it_learns(tmp_path: Path) -> None:
    run(World.alone("cpu"), config(tmp_path, steps=40, log_every=40))
    assert journal.read(tmp_path / "log.jsonl")[-1]["metrics"]["held_right"] > 0.9
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_micro_batches_change_nothing(alone: Path, tmp_path: Path) -> None:
    run(World.alone("cpu"), config(tmp_path, accumulate=4))
    same(alone, tmp_path)


def test_two_workers_give_what_one_gives(alone: Path, tmp_path: Path) -> None:
    launch(partial(run, config=config(tmp_path)), workers=2, launcher="local", out=tmp_path)
    same(alone, tmp_path)


def test_recomputed_blocks_change_nothing(alone: Path, tmp_path: Path) -> None:
    run(World.alone("cpu"), config(tmp_path, checkpoint_blocks=True))
    same(alone, tmp_path)


def test_bfloat16_learns_nearly_the_same(alone: Path, tmp_path: Path) -> None:
    run(World.alone("cpu"), config(tmp_path, precision="bf16"))
    assert losses(tmp_path) != losses(alone)
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=0.1, abs=0.03)


@pytest.mark.parametrize("able", [{}, {"avx512_bf16": True}, {"amx_bf16": True}])
def test_auto_is_bfloat16_where_the_processor_has_it(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: dict[str, bool]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    run(World.alone("cpu"), config(tmp_path, precision="auto"))
    assert (losses(tmp_path) == losses(alone)) == (not able)


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Killed without a warning: what was logged after the last state is done again and logged once."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(World.alone("cpu"), config(whole, save_every=3))
    task = DebugTask(config(cut), torch.device("cpu"))
    forward = task.loss

    def dies(batch: Any) -> Outcome:
        if batch[2][0].startswith("5/"):
            raise KeyboardInterrupt
        return forward(batch)

    task.loss = dies  # type: ignore[method-assign]
    settings = config(cut, save_every=3)
    with pytest.raises(KeyboardInterrupt):
        train(task, settings.loop, World.alone("cpu"), as_facts("debug", "test", settings))
    assert len(losses(cut)) == 5
    run(World.alone("cpu"), settings)
    assert losses(cut) == losses(whole)
    assert all(torch.equal(tensor, result(whole)[name]) for name, tensor in result(cut).items())


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.run", "debug", f"loop.out={tmp_path}", "loop.steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while len(journal.read(tmp_path / "log.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert len(states.states(tmp_path)) >= 1


def test_another_config_is_not_resumed(alone: Path) -> None:
    with pytest.raises(ValueError, match=r"items was 8 and is 9"):
        run(World.alone("cpu"), config(alone, items=9))


def test_a_run_ends_with_its_time_and_its_rate_has_fallen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # a second passes whenever somebody looks
    fake = SimpleNamespace(monotonic=lambda: float(next(clock)), perf_counter=time.perf_counter)
    monkeypatch.setattr("training.loop.loop.time", fake)
    settings = config(tmp_path, steps=100_000, minutes=1.0, floor=0.0)
    run(World.alone("cpu"), settings)
    lines = journal.read(tmp_path / "log.jsonl")
    assert 1 < lines[-1]["step"] < 100_000
    assert lines[-1]["lr"] < 0.5 * max(line["lr"] for line in lines)
    assert states.states(tmp_path), "what it has learned is saved"
    assert (tmp_path / "checkpoint" / "model.safetensors").exists()


def test_states_are_few(tmp_path: Path) -> None:
    run(World.alone("cpu"), config(tmp_path, save_every=2, keep=2))
    assert [path.name for path in states.states(tmp_path)] == ["state-00000006.pt", "state-00000008.pt"]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_names_the_samples(tmp_path: Path, what: str) -> None:
    task = DebugTask(config(tmp_path), torch.device("cpu"))
    forward = task.loss

    def broken(batch: Any) -> Outcome:
        outcome = forward(batch)
        zero = (outcome.loss * 0).abs()
        wrong = outcome.loss * float("nan") if what == "loss" else outcome.loss + zero.sqrt()
        return dataclasses.replace(outcome, loss=wrong)

    task.loss = broken  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=rf"step 1: the {what}.*0/0, 0/1"):
        train(task, config(tmp_path).loop, World.alone("cpu"), as_facts("debug", "test", config(tmp_path)))


class Fading(DebugTask):
    """Calls parts of its module, not the module; one of its parameters has a gradient only in some steps."""

    def __init__(self, config: DebugConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.module.late = nn.Parameter(torch.ones(3))
        self.step = 0

    def batch(self, step: int, share: Share) -> Any:
        self.step = step
        return super().batch(step, share)

    def loss(self, batch: Any) -> Outcome:
        outcome = super().loss(batch)
        if self.step < 6:
            return outcome
        return dataclasses.replace(outcome, loss=outcome.loss + outcome.count * self.module.late.square().sum())  # type: ignore[operator]

    def evaluate(self, step: int) -> Any:
        clips, _, _ = self._made(-1, range(4))
        memories = [self.module.selector.remember(clip, GRID) for clip in clips]
        return {"size": (float(torch.stack(memories).norm()), 1.0)}


def fade(world: World, config: DebugConfig) -> None:
    train(Fading(config, world.device), config.loop, world, as_facts("debug", "test", config))


def test_a_parameter_without_a_gradient_so_far_is_resumed(tmp_path: Path) -> None:
    fade(World.alone("cpu"), config(tmp_path / "whole"))
    fade(World.alone("cpu"), config(tmp_path / "parts", save_every=3))
    (tmp_path / "parts" / "state-00000008.pt").unlink()
    (tmp_path / "parts" / "state-00000006.pt").replace(tmp_path / "parts" / "state-00000003.pt")
    fade(World.alone("cpu"), config(tmp_path / "parts", save_every=3))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_workers_may_call_parts_of_a_sharded_module(tmp_path: Path) -> None:
    fade(World.alone("cpu"), config(tmp_path / "one"))
    launch(partial(fade, config=config(tmp_path / "two")), workers=2, launcher="local", out=tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1.0])
def test_a_rate_is_a_number(lr: float) -> None:
    with pytest.raises(ValueError, match="'all' has lr"):
        Rate("all", "", lr)


def test_a_changed_field_is_named_alone(alone: Path) -> None:
    with pytest.raises(ValueError, match=r"loop.warmup was 0.03 and is 0.5\)"):
        run(World.alone("cpu"), config(alone, warmup=0.5))


def test_every_parameter_needs_a_rate_and_every_rate_a_parameter() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"no rate finds the parameter b\.weight"):
        groups.grouped(module, [Rate("a", "^a", 1e-3)])
    with pytest.raises(ValueError, match=r"'c' finds no parameter with the pattern '\^c'"):
        groups.grouped(module, [Rate("a", "^[ab]", 1e-3), Rate("c", "^c", 1e-3)])
    frozen = groups.grouped(module, [Rate("a", "^a", 0), Rate("b", "", 1e-3)])
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]
    assert [part["weight_decay"] for part in groups.optimizer(frozen).param_groups] == [0.01, 0.0]
    assert "frozen" in groups.table(frozen)
    with pytest.raises(ValueError, match="nothing to train"):
        groups.optimizer(groups.grouped(module, [Rate("all", "", 0)]))


def test_the_rate_rises_and_falls_as_half_a_cosine() -> None:
    rates = [groups.share_of_peak(step, 100, 0.1, 0.2) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.6)
    assert 0.2 < rates[99] < 0.201


def test_shares_are_all_of_it_once() -> None:
    parts = [Share(index, 3).of(range(8)) for index in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(8))


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert journal.read(path) == [{"step": 1}]


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings
@pytest.mark.filterwarnings("ignore:`use_push_based_shuffle`:DeprecationWarning")
def test_ray_gives_what_one_process_gives(alone: Path, tmp_path: Path) -> None:
    launch(partial(run, config=config(tmp_path)), workers=2, launcher="ray", out=tmp_path)
    same(alone, tmp_path)
