"""The loop: batches in, steps out; it saves, evaluates, logs, and stops when something is wrong."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from training.loop import groups, states
from training.loop.journal import Journal, plot
from training.loop.task import Metrics, Outcome, Share, Task
from training.loop.workers import World


@dataclass(frozen=True)
class LoopConfig:
    """`out`: the run's directory. `accumulate`: micro-batches of a step on each worker. `warmup`, `floor`: shares of
    the steps and of the peak learning rate. `clip`: largest norm of the gradient. `precision`: "float32" or "bf16"
    (autocast). `checkpoint_blocks`: recompute blocks in the backward pass to save memory. Every `save_every` steps a
    state is written, of which the last `keep` stay; every `evaluate_every` steps (0: only at the end) it is measured.
    """

    out: str
    steps: int
    accumulate: int = 1
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0
    precision: str = "float32"
    checkpoint_blocks: bool = False
    save_every: int = 200
    evaluate_every: int = 0
    log_every: int = 10
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"loop.precision is {self.precision!r}, expected 'float32' or 'bf16'")
        for name in ("steps", "accumulate", "save_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"loop.{name} is {getattr(self, name)}; it must be at least 1")


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""


class NotFinite(ArithmeticError):
    """A loss or a gradient is no number any more."""


def train(task: Task, config: LoopConfig, world: World, facts: Mapping[str, Any]) -> Path:
    """Runs `task` to its end, from its last state on if there is one; returns the exported directory.

    `facts` (run, command, config) go into the manifest, and must be those of the state that is there.

    Raises:
        NotFinite: names the step and the samples.
        Interrupted: on SIGINT and SIGTERM, after saving.
        ValueError: the directory holds a run with another config; names what differs.
    """
    out = Path(config.out)
    if world.first:
        _claim(out, facts)
    world.wait()
    run = _Run(task, config, world, out)
    with Journal(out, config.steps, run.done, quiet=not world.first) as journal, _stoppable() as asked:
        while run.done < config.steps:
            line = run.step()
            last = run.done == config.steps
            if last or (config.evaluate_every and run.done % config.evaluate_every == 0):
                line["metrics"] |= run.evaluate()
            if world.first:
                journal.step(run.done, {"loss": line["loss"], **line["metrics"]})
                if run.done % config.log_every == 0 or last or run.done == 1:
                    journal.write(**line)
            stop = world.any(bool(asked))
            if last or stop or run.done % config.save_every == 0:
                run.save()
            if stop and not last:
                raise Interrupted(
                    f"stopped after step {run.done} of {config.steps}; the same command goes on from there"
                )
    return run.finish(facts)


class _Run:
    """Module, optimizer and how many steps are `done`."""

    def __init__(self, task: Task, config: LoopConfig, world: World, out: Path) -> None:
        self.task, self.config, self.world, self.out = task, config, world, out
        self.groups = groups.grouped(task.module, task.rates())
        if world.first:
            print(groups.table(self.groups), flush=True)
        if config.checkpoint_blocks:
            for block in task.blocks():
                _recompute(block)
        world.shard(task.module, task.blocks())
        self.groups = groups.grouped(task.module, task.rates())  # sharding made other parameters of them
        self.optim = groups.optimizer(self.groups)
        self.trained = [p for group in self.groups if not group.frozen for _, p in group.parameters]
        found = states.states(out)
        self.done = states.load(found[-1], task.module, self.optim) if found else 0
        self.times: list[float] = []

    def step(self) -> dict[str, Any]:
        """One step; what to log of it."""
        started, config = time.perf_counter(), self.config
        factor = groups.share_of_peak(self.done, config.steps, config.warmup, config.floor)
        for group in self.optim.param_groups:
            group["lr"] = group["peak"] * factor
        self.optim.zero_grad(set_to_none=True)
        self.task.module.train()
        sums: dict[str, tuple[float, float]] = {}
        for micro in range(config.accumulate):
            outcome = self._micro_batch(micro)
            _add(sums, {"": (float(outcome.loss.detach()), outcome.count), **outcome.metrics})
        sums = self.world.summed(sums)
        total, count = sums.pop("")
        for parameter in self.trained:
            if parameter.grad is not None:
                # Sharded gradients are means over the workers: `world.size` makes sums of them again.
                parameter.grad.mul_(self.world.size / max(count, 1e-9))
        norm = float(nn.utils.clip_grad_norm_(self.trained, config.clip))
        if not math.isfinite(norm):
            raise NotFinite(f"step {self.done + 1}: the gradient's norm is {norm}; samples {self._ids(outcome)}")
        self.optim.step()
        self.done += 1
        self.times.append(time.perf_counter() - started)
        return {
            "step": self.done,
            "loss": total / max(count, 1e-9),
            "lr": max(group["lr"] for group in self.optim.param_groups),
            "gradient": norm,
            "seconds": round(self.times[-1], 4),
            "per_second": round(count / self.times[-1], 2),
            "memory_mib": self.world.peak_memory(),
            "metrics": {name: s / n for name, (s, n) in sums.items() if n},
        }

    def evaluate(self) -> dict[str, float]:
        self.task.module.eval()
        with torch.no_grad(), self._precision():
            return {f"held_{name}": s / n for name, (s, n) in self.task.evaluate(self.done).items() if n}

    def save(self) -> None:
        states.save(self.out, self.done, self.task.module, self.optim, self.config.keep, self.world.first)

    def finish(self, facts: Mapping[str, Any]) -> Path:
        """Exports, plots, and says how long a step took and how much memory it needed."""
        directory = self.out / "checkpoint"
        state = states.whole(self.task.module, self.optim)
        if self.world.first:
            times = sorted(self.times) or [0.0]
            cost = {"seconds_per_step": round(times[len(times) // 2], 4), "memory_mib": self.world.peak_memory()}
            self.task.export(directory, state, {**facts, "cost": cost})
            picture = plot(self.out)
            print(f"{self.done} steps, {cost['seconds_per_step']} s each (median), {cost['memory_mib']} MiB at most")
            print("\n".join(f"  {path}" for path in (directory, self.out / "log.jsonl", picture) if path))
        self.world.wait()
        return directory

    def _micro_batch(self, micro: int) -> Outcome:
        """Forwards and backwards; backwards recomputes blocks, and so needs the same precision."""
        share = Share(micro * self.world.size + self.world.rank, self.config.accumulate * self.world.size)
        # What the loss draws depends on the step and the share alone, so a resumed run draws the same.
        torch.manual_seed(hash((self.config.seed, self.done, share.index)) % 2**63)
        batch = self.task.batch(self.done, share)
        with self._precision():
            outcome = self.task.loss(batch)
            loss = float(outcome.loss.detach())
            if not math.isfinite(loss):
                raise NotFinite(f"step {self.done + 1}: the loss is {loss}; samples {self._ids(outcome)}")
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        return outcome

    @staticmethod
    def _ids(outcome: Outcome) -> str:
        return ", ".join(outcome.ids) or "unnamed"

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.config.precision == "bf16":
                stack.enter_context(warnings.catch_warnings())
                # A norm with float32 weights on bfloat16 values: that is what we want.
                warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
                stack.enter_context(torch.autocast(self.world.device.type, torch.bfloat16))
            if self.world.device.type == "cpu":
                # torch 2.13's fused attention is far slower backwards in bfloat16 than the plain products.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield


def _claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Writes the run's config into its directory, or checks that the one there is the same."""
    path = out / "config.json"
    out.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(facts["config"]))
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if changed:
        differs = "; ".join(f"{name} was {there.get(name)} and is {wanted.get(name)}" for name in changed)
        raise ValueError(f"{out} holds a run with another config ({differs}): give loop.out another directory")


def _add(sums: dict[str, tuple[float, float]], more: Metrics) -> None:
    for name, (value, count) in more.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + value, before[1] + count)


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = recomputed


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM comes. A second signal ends the process at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    # Only the main thread may listen; Ray runs us in another one, and stops us by itself.
    for number in (
        (int(signal.SIGINT), int(signal.SIGTERM)) if threading.current_thread() is threading.main_thread() else ()
    ):
        before[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            if asked or signal.getsignal(number) is note:
                signal.signal(number, handler)


def as_facts(name: str, command: str, config: Any) -> dict[str, Any]:
    """What a manifest says of a run. Where it was written is no part of the config that a resumed run must share."""
    fields = asdict(config)
    fields["loop"] = {key: value for key, value in fields["loop"].items() if key not in ("out", "keep", "log_every")}
    return {"run": {"name": name, "command": command}, "config": fields}
