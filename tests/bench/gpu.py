"""`python -m tests.bench.gpu [--preset 7b] [--device cuda] [--minutes 8]`: every stage of a clip, then whole answers.

Random weights, made on the device. Needs torch, transformers, einops and this repository, and nothing of the service:
no ray, no av, no pydantic. JSON lines on the standard output as they are measured, tables on the standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch

from models.config import ModelConfig
from serve.engine.transformer import Transformer
from serve.worker import TorchWorker
from tests.bench.asked import Model, Whole, asked, film
from tests.bench.engine import PARTS, Part
from tests.bench.meter import Ceilings, Meter
from tests.bench.plan import Plan
from tests.bench.record import Record, hardware, median
from tests.bench.stages import Passes, Stage, decoding, geometry, language, sizes, vision

VARIANTS = ("eager", "compiled", "graphs")
COMPILING = 90.0  # seconds that are kept free for it
CLIPS = 16  # whose keys and values the engine may hold
OWN_TOKENS = 1024  # of a request, at most
COSTS = {"answers": (3, 0), "streams": (4, 200), "crowd": (12, 60)}  # a run, about: cold answers, decoding steps


@dataclass
class Session:
    """One run of the script: what it measures with, and the rows of its tables."""

    model: Model
    worker: TorchWorker
    meter: Meter
    ceilings: Ceilings
    plan: Plan
    runs: int
    rows: dict[str, Stage] = field(default_factory=dict)

    def stages(self, stages: Iterable[Stage], prefix: str = "") -> Iterator[Record]:
        for stage in stages:
            named = replace(stage, name=prefix + stage.name)
            self.rows[named.name] = named
            yield from named.records(self.ceilings)

    def all(self, variants: Iterable[str]) -> None:
        plan, model, meter = self.plan, self.model, self.meter
        plan.run("sizes", 0, partial(sizes, model))
        plan.run("encoder, merger, selector", 10, lambda: self.stages(geometry(model, meter)))
        plan.run("vision tower", 10, lambda: self.stages(vision(model, meter)))
        for variant in VARIANTS:
            if variant in variants:
                self._variant(variant)
                self._tidy()

    def _variant(self, name: str) -> None:
        if name == "graphs":
            if self.meter.device.type != "cuda":
                self.plan.skipped.append("graphs: only a GPU captures them")
                return
            self.plan.run("graphs: decoding steps", COMPILING, self._graphs)
            return
        wrap, more = (_as_it_is, 0.0) if name == "eager" else (_compiled, COMPILING)
        prefix = "" if name == "eager" else f"{name}_"
        measured = partial(language, self.model, self.meter, wrap)
        self.plan.run(f"{name}: language model", 10 + more, lambda: self.stages(measured(), prefix))
        for part in PARTS:
            title = f"{name}: {part.__name__}"
            self.plan.run(title, self._need(part, prefix), partial(self._answers, part, wrap, prefix))

    def _graphs(self) -> Iterator[Record]:
        """The decoding step with `mode="reduce-overhead"`: captured at the second call, replayed from the third on."""
        passes = Passes(self.model, _captured)
        yield from self.stages(decoding(self.model, replace(self.meter, warm_up=4), passes), "graphs_")

    def _answers(self, part: Part, wrap: Callable[[Any], Any], prefix: str) -> list[Record]:
        baseline = "the plain engine with encoder and selector, every answer from scratch"
        bench = Whole(self.model, self.worker, baseline, self._memory(), wrap)

        async def collect() -> list[Record]:
            return [record async for record in part(bench, self.runs)]

        return [replace(record, name=prefix + record.name) for record in asyncio.run(collect())]

    def _memory(self) -> int:
        clip = film(self.model.config.frames, 0).grid.size + len(asked(self.model.tokenizer, 0).before)
        return CLIPS * (clip + OWN_TOKENS) * Transformer(self.model.decoder).token_bytes

    def _need(self, part: Part, prefix: str) -> float:
        """Seconds of one part of the whole answers, from what the stages took."""
        cold = ("encoder", "merger", "vision_by_chunk", f"{prefix}prefix_by_chunk", f"{prefix}suffix_1")
        step = f"{prefix}decode_8"
        if not {*cold, step} <= self.rows.keys():
            return 60.0
        answers, steps = COSTS[part.__name__]
        answer = sum(statistics.median(self.rows[name].measured.seconds) for name in cold)
        return self.runs * (answers * answer + steps * statistics.median(self.rows[step].measured.seconds))

    def _tidy(self) -> None:
        gc.collect()
        if self.meter.device.type == "cuda":
            torch.cuda.empty_cache()


def _as_it_is(function: Any) -> Any:
    return function


@cache
def _compiled(function: Any) -> Any:
    """One for all engines: each would compile its own. Lengths differ from pass to pass."""
    return torch.compile(function, dynamic=True)


@cache
def _captured(function: Any) -> Any:
    return torch.compile(function, mode="reduce-overhead", dynamic=False)


def table(rows: Iterable[Stage], ceilings: Ceilings) -> str:
    """One line a stage, of medians; a dash where nothing is counted."""
    titles = ("stage", "ms", "rate", "unit", "TFLOP/s", "of matmul", "GB/s", "of copy", "peak MiB")
    endings = ("time", "rate", "", "computes", "of_matmul", "reads", "of_copy", "peak")
    lines = [titles]
    for row in rows:
        values = {record.name.removeprefix(f"{row.name}_"): record.value for record in row.records(ceilings)}
        cells = [f"{row.unit}/s" if not ending else f"{values[ending]:.4g}" if ending in values else "-"
                 for ending in endings]  # fmt: skip
        lines.append((row.name, *cells))  # type: ignore[arg-type]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    arguments = _arguments()
    worker = TorchWorker(arguments.device, arguments.dtype, arguments.threads)
    subject = f"{arguments.preset} in {arguments.dtype} on {arguments.device}"
    answers: list[Record] = []

    def show(record: Record) -> None:
        record = replace(record, baseline=f"{record.baseline}; {subject}")
        if "engine_" in record.name:
            answers.append(record)
        print(record.line(), flush=True)

    plan = Plan(arguments.minutes, show)
    meter = Meter(torch.device(arguments.device), arguments.stage_runs)
    ceilings = Ceilings.of(meter, worker.dtype)
    for record in ceilings.records():
        show(record)
    start = time.perf_counter()
    model = Model.random(ModelConfig.preset(arguments.preset), worker)
    show(median("random_weights", [time.perf_counter() - start], "s", "absolute"))
    session = Session(model, worker, meter, ceilings, plan, arguments.runs)
    session.all(arguments.variants)
    print(f"\n{subject}; {hardware()}", file=sys.stderr)
    print(f"matmul {ceilings.matmul / 1e12:.4g} TFLOP/s, copy {ceilings.copy / 1e9:.4g} GB/s\n", file=sys.stderr)
    print(table(session.rows.values(), ceilings), file=sys.stderr)
    for record in answers:
        print(f"{record.name:60} {record.value:>10.4g} {record.unit}", file=sys.stderr)
    plan.say()
    sys.exit(bool(plan.failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--preset", choices=["7b", "bench", "tiny"], default="7b", help="sizes of the random weights")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--minutes", type=float, default=8, help="what does not fit is left out and named")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--runs", type=int, default=3, help="of the whole answers")
    parser.add_argument("--stage-runs", type=int, default=20, help="of a stage alone, at most")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0: half of the cores")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; --device cpu runs the small presets")
    if arguments.device == "cpu" and arguments.preset == "7b":
        parser.error("--preset 7b: 9.2 billion parameters are for a GPU; bench and tiny run on a CPU")
    arguments.dtype = arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32")
    return arguments


if __name__ == "__main__":
    main()
