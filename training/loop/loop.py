"""The loop: batches in, steps out; it saves, evaluates, logs, and stops when something is wrong."""

from __future__ import annotations

import json
import math
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from training.loop import groups, states, stopping
from training.loop.journal import Journal, plot
from training.loop.metrics import Floats, floats, means
from training.loop.task import Outcome, Share, Task
from training.loop.workers import World

LEAST = {
    "steps": 1, "accumulate": 1, "save_every": 1, "log_every": 1, "keep": 1, "evaluate_every": 0, "warmup": 0,
    "floor": 0, "clip": 0, "seed": 0, "minutes": 0,
}  # fmt: skip
FREE = ("keep", "log_every", "save_every", "evaluate_every")  # a run may go on with another value: it learns the same
PLAIN = [SDPBackend.MATH]
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
NAMED = 16  # ids in a message


@dataclass(frozen=True)
class LoopConfig:
    """`out`: the run's directory. `accumulate`: micro-batches of a step on each worker. `warmup`, `floor`: shares of
    the steps and of the peak learning rate. `clip`: largest norm of the gradient. `precision`: "float32", "bf16"
    (autocast), or "auto": bfloat16 where the device has instructions for it. `checkpoint_blocks`: recompute blocks in
    the backward pass to save memory. Every `save_every` steps a state is written, of which the last `keep` stay; every
    `evaluate_every` steps (0: only at the end) it is measured; every `log_every`-th step and those are logged.
    `minutes`: when the run ends at the latest, for a machine that is lent for a time; the learning rate falls with the
    time then, where that is ahead of the steps. Counted anew by a run that goes on. 0: no limit.
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
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bf16"):
            raise ValueError(f"loop.precision is {self.precision!r}, expected 'auto', 'float32' or 'bf16'")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"loop.{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("warmup", "floor"):
            if getattr(self, name) > 1:
                raise ValueError(f"loop.{name} is {getattr(self, name)}; it is a share, at most 1")
        if self.clip == 0:
            raise ValueError("loop.clip is 0; it must be more, as nothing would be learned")


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""


class NotFinite(ArithmeticError):
    """A loss or a gradient is no number any more."""


def train(task: Task, config: LoopConfig, world: World, facts: Mapping[str, Any]) -> Path:
    """Runs `task` to its end, from its last state on if there is one; returns the exported directory.

    `facts` (run, command, config) go into the manifest, and must be those of the state that is there.

    Raises:
        NotFinite: names the step and the samples, on every worker.
        Interrupted: the run was asked to stop (see `stopping`) and has saved its state.
        ValueError: the directory holds a run with another config; names what differs.
    """
    out = Path(config.out)
    if world.first:
        _claim(out, facts)
    world.wait()
    run = _Run(task, config, world, out)
    with Journal(out, config.steps, run.done) if world.first else nullcontext() as journal:
        last = run.place >= config.steps
        while not last:
            line = run.step()
            last = run.place >= config.steps
            measured = last or (config.evaluate_every > 0 and run.done % config.evaluate_every == 0)
            if measured:
                line["metrics"] |= run.evaluate()
            if journal is not None:
                journal.show(line)
                if measured or run.done % config.log_every == 0 or run.done == 1:
                    journal.write(line)
            stop = world.any(world.first and stopping.asked(out))
            if last or stop or run.done % config.save_every == 0:
                run.save()
            if stop and not last:
                raise Interrupted(
                    f"stopped after step {run.done} of {config.steps}; the same command goes on from there"
                )
    return run.finish(facts)


@dataclass(frozen=True)
class _Done:
    """What is kept of an `Outcome`."""

    loss: float
    count: float
    metrics: Floats
    ids: tuple[str, ...]


class _Run:
    """Module, optimizer and how many steps are `done`."""

    def __init__(self, task: Task, config: LoopConfig, world: World, out: Path) -> None:
        self.task, self.config, self.world, self.out = task, config, world, out
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and world.has_bf16)
        self.groups = groups.grouped(task.module, task.rates())
        if world.first:
            print(groups.table(self.groups), flush=True)
        if config.checkpoint_blocks:
            for block in task.blocks():
                recompute(block)
        self.through = world.sharded(task.module, task.blocks(), self.bf16)
        self.groups = groups.grouped(task.module, task.rates())  # sharding made other parameters of them
        self.optim = groups.optimizer(self.groups)
        self.trained = [p for group in self.groups if not group.frozen for _, p in group.parameters]
        found = states.states(out)
        self.done = states.load(found[-1], task.module, self.optim) if found else 0
        self.times: list[float] = []
        self.started = time.monotonic()

    @property
    def place(self) -> float:
        """Where in its steps the run stands: at the last one when its time is over. The same on every worker."""
        if not self.config.minutes:
            return self.done
        spent = (time.monotonic() - self.started) / (60 * self.config.minutes)
        return max(float(self.done), self.config.steps * max(self.world.gathered(spent)))

    def step(self) -> dict[str, Any]:
        """One step; what to log of it."""
        started, config = time.perf_counter(), self.config
        factor = groups.share_of_peak(self.place, config.steps, config.warmup, config.floor)
        for group in self.optim.param_groups:
            group["lr"] = group["peak"] * factor
        self.optim.zero_grad(set_to_none=True)
        self.task.module.train()
        # All workers learn of all outcomes, so that all stop when something is wrong with one.
        outcomes = self.world.gathered([self._micro_batch(micro) for micro in range(config.accumulate)])
        done = [outcome for worker in outcomes for outcome in worker]
        wrong = [one for one in done if not math.isfinite(one.loss)]
        if wrong:
            raise NotFinite(f"step {self.done + 1}: the loss is {wrong[0].loss}; {_ids(wrong)}")
        total, count = sum(one.loss for one in done), sum(one.count for one in done)
        if not count > 0:
            raise ValueError(f"step {self.done + 1}: its batches count {count} things together; {_ids(done)}")
        for parameter in self.trained:
            if parameter.grad is not None:
                # Sharded gradients are means over the workers: `world.size` makes sums of them again.
                parameter.grad.mul_(self.world.size / count)
        norm = float(nn.utils.clip_grad_norm_(self.trained, config.clip))
        if not math.isfinite(norm):
            raise NotFinite(f"step {self.done + 1}: the gradient's norm is {norm}; {_ids(done)}")
        self.optim.step()
        self.done += 1
        self.times.append(time.perf_counter() - started)
        return {
            "step": self.done,
            "loss": total / count,
            "lr": max(group["lr"] for group in self.optim.param_groups),
            "gradient": norm,
            "seconds": round(self.times[-1], 4),
            "per_second": round(count / self.times[-1], 2),
            "memory_mib": self.world.peak_memory(),
            "metrics": means([one.metrics for one in done]),
        }

    def evaluate(self) -> dict[str, float]:
        self.task.module.eval()
        with torch.no_grad(), self._precision():
            measured = self.through(self.task.evaluate, self.done)
        return {f"held_{name}": value for name, value in means([measured]).items()}

    def save(self) -> None:
        states.save(self.out, self.done, self.task.module, self.optim, self.config.keep, self.world.first)

    def finish(self, facts: Mapping[str, Any]) -> Path:
        """Exports, plots, and says how long a step took and how much memory it needed."""
        directory = self.out / "checkpoint"
        state = states.whole(self.task.module)
        if self.world.first:
            seconds = round(statistics.median(self.times), 4) if self.times else None  # none: it was done before
            cost = {"seconds_per_step": seconds, "memory_mib": self.world.peak_memory()}
            self.task.export(directory, state, {**facts, "cost": cost})
            picture = plot(self.out)
            print(f"{self.done} steps, {seconds} s each (median), {cost['memory_mib']} MiB at most on a worker")
            print("\n".join(f"  {path}" for path in (directory, self.out / "log.jsonl", picture) if path))
        self.world.wait()
        return directory

    def _micro_batch(self, micro: int) -> _Done:
        """Forwards and backwards; backwards recomputes blocks, and so needs the same precision."""
        share = Share(micro * self.world.size + self.world.rank, self.config.accumulate * self.world.size)
        # What the loss draws depends on the step and the share alone, so a resumed run draws the same.
        torch.manual_seed(hash((self.config.seed, self.done, share.index)) % 2**63)
        batch = self.task.batch(self.done, share)
        with self._precision():
            loss, outcome = self.through(self._loss, batch)
            loss.backward()
        read = floats({"": (loss.detach(), 1.0), **outcome.metrics})
        return _Done(read.pop("")[0], outcome.count, read, tuple(outcome.ids))

    def _loss(self, batch: Any) -> tuple[Tensor, Outcome]:
        """The loss by itself, too: FSDP prepares to go backwards from the tensors that it sees come out."""
        outcome = self.task.loss(batch)
        return outcome.loss, outcome

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.bf16:
                stack.enter_context(warnings.catch_warnings())
                # A norm with float32 weights on bfloat16 values: that is what we want.
                warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
                stack.enter_context(torch.autocast(self.world.device.type, torch.bfloat16))
            # torch 2.13's fused attention on a CPU is far slower backwards in bfloat16 than the plain products. cuDNN's
            # takes 7 ms to plan each new shape, and no two batches of questions are equally long.
            stack.enter_context(sdpa_kernel(PLAIN if self.world.device.type == "cpu" else FUSED))
            yield


def _claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Writes the run's config into its directory, or checks that the one there is the same."""
    path = out / "config.json"
    out.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(facts["config"]))
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return
    old, new = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(wanted)
    free = {f"loop.{name}" for name in FREE}
    changed = sorted(name for name in (old.keys() | new.keys()) - free if old.get(name) != new.get(name))
    if changed:
        differs = "; ".join(f"{name} was {old.get(name)} and is {new.get(name)}" for name in changed)
        raise ValueError(f"{out} holds a run with another config ({differs}): give loop.out another directory")


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"loop": {"steps": 5}}` -> `{"loop.steps": 5}`"""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _ids(done: Sequence[_Done]) -> str:
    ids = [name for one in done for name in one.ids]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"samples {', '.join(ids[:NAMED]) or 'without ids'}{more}"


def recompute(block: nn.Module) -> None:
    """From now on what the block computes is not kept for the way back, but computed again."""
    forward = block.forward

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = recomputed


def as_facts(name: str, command: str, config: Any) -> dict[str, Any]:
    """What a manifest says of a run. Where it was written is no part of it: a directory may move."""
    fields = asdict(config)
    del fields["loop"]["out"]
    return {"run": {"name": name, "command": command}, "config": fields}
