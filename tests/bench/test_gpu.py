"""The GPU benchmark measures on a CPU too, at the tiny size: every figure is there, finite and positive."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from serve.worker import TorchWorker
from tests.bench import costs
from tests.bench.asked import Model, film
from tests.bench.gpu import main
from tests.bench.plan import Plan
from tests.bench.record import Record, median
from tests.bench.stages import Passes

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("ray", "av", "pydantic", "pydantic_core", "fastapi", "starlette", "prometheus_client", "uvicorn")
# Runs a module as `python -m` does, on an interpreter that has none of the names.
WITHOUT = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden}:
            raise ModuleNotFoundError(f"absent: {{name}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["bench", *{arguments}]
runpy.run_module("tests.bench.gpu", run_name="__main__")
"""
STAGES = [
    "encoder", "merger", "vision", "vision_by_chunk", "prefix_by_chunk", "prefix",
    *(f"{name}_{batch}" for name in ("selector", "suffix", "decode") for batch in (1, 8, 32)),
]  # fmt: skip
OTHERS = [
    "ceiling_matmul", "ceiling_copy", "random_weights", "encoder_weights", "selector_weights", "decoder_weights",
    "keys_and_values", "engine_plain_answer", "engine_cold_answer", "engine_cold_over_plain", "engine_warm_answer",
    "engine_warm_speedup", "engine_prefix", "engine_first_token", "engine_first_token_speedup",
    "engine_questions_16_about_6_clips", "engine_questions_per_second_16_about_6_clips",
    "engine_tokens_16_warm_texts", "engine_tokens_per_second_16_warm_texts",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.random(ModelConfig.tiny(), TorchWorker(threads=1))


def test_the_script_gives_every_figure_without_the_services_packages() -> None:
    arguments = ["--preset", "tiny", "--device", "cpu", "--variants", "eager", "graphs", "--minutes", "4"]
    program = WITHOUT.format(forbidden=set(FORBIDDEN), arguments=[*arguments, "--runs", "1", "--stage-runs", "1"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    figures = {record["name"]: record for record in map(json.loads, done.stdout.splitlines())}
    kinds = ("time", "rate", "computes", "of_matmul")
    expected = [f"{stage}_{kind}" for stage in STAGES for kind in kinds] + OTHERS
    expected += [f"{name}_{batch}_reads" for name in ("suffix", "decode") for batch in (1, 8, 32)]
    assert set(expected) <= figures.keys()
    for name in expected:
        assert math.isfinite(figures[name]["value"])
        assert figures[name]["value"] > 0, name
    # Float32 sums in another order; a wrong position or mask moves a probability of 1/4 by percents.
    assert figures["engine_largest_difference_of_a_probability"]["value"] < 1e-5
    assert all(stage in done.stderr for stage in STAGES)
    assert "left out: graphs: only a GPU captures them" in done.stderr


def test_the_counted_operations_are_those_that_torch_counts(model: Model) -> None:
    shown, config = film(model.config.frames, 0), model.config
    patches = costs.MERGE**2 * shown.grid.rows * shown.grid.columns
    features = torch.zeros(len(shown.frames), patches, model.encoder.config.hidden_size)
    stages: dict[str, tuple[Callable[[], object], int]] = {
        "encoder": (lambda: model.encoder(shown.frames), costs.encoder(model.encoder.config, shown.grid)),
        "merger": (
            lambda: model.selector.remember(features, shown.grid),
            costs.merger(model.selector.config, shown.grid),
        ),
        "vision": (lambda: model.decoder.see(shown.frames), costs.vision(config.decoder, shown.grid)),
    }
    assert {name: costs.counted(call) for name, (call, _) in stages.items()} == {
        name: counted for name, (_, counted) in stages.items()
    }


def test_the_counted_operations_of_a_pass_are_those_that_torch_counts(model: Model) -> None:
    passes = Passes(model, lambda function: function)
    steps = passes.steps(3)
    assert costs.counted(lambda: passes.write(steps)) == costs.language(model.config.decoder, steps)
    for segments in (passes.prefix(64)[1], passes.questions(1)):
        counted = costs.counted(partial(passes.fill, segments))
        # torch counts the whole square of a causal product; the last layer computes none where nothing is wanted.
        layers = model.config.decoder.num_hidden_layers - 1
        squares = sum(segment.count * (segment.count - 1) // 2 for segment in segments)
        above = 4 * model.config.decoder.hidden_size * layers * squares
        assert counted - above == sum(costs.language(model.config.decoder, [segment]) for segment in segments)


def test_a_pass_reads_every_weight_once_and_a_shared_prefix_once(model: Model) -> None:
    passes = Passes(model, lambda function: function)
    one, two, three = (costs.pass_bytes(model.decoder, passes.steps(batch)) for batch in (1, 2, 3))
    assert two - one == three - two == passes.steps(1)[0].own.nbytes
    vision = costs.module_bytes(model.decoder.model.model.visual)
    norm = model.decoder.model.model.language_model.norm.weight.nbytes
    # The embedding table counts: it is the head, too, in this preset.
    assert one - passes.shared.nbytes - (two - one) == costs.module_bytes(model.decoder) - vision - norm


def test_what_does_not_fit_into_the_time_is_left_out_and_named() -> None:
    shown: list[Record] = []
    record = median("figure", [1.0], "s", "absolute")
    plan = Plan(1, shown.append)
    plan.run("short", 10, lambda: [record])
    plan.run("long", 600, lambda: [record])
    assert shown == [record]
    assert [line.split(":")[0] for line in plan.skipped] == ["long"]
    late = Plan(0, shown.append)
    late.run("late", -1, lambda: [record, record])
    assert shown == [record, record]
    assert late.skipped == ["late: what follows figure, time is up"]


def test_a_part_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[Record] = []
    plan = Plan(1, shown.append)
    plan.run("broken", 0, lambda: [median("figure", [], "s", "absolute")])
    plan.run("sound", 0, lambda: [median("figure", [2.0], "s", "absolute")])
    assert [record.value for record in shown] == [2.0]
    assert plan.failed[0].startswith("broken: IndexError")
    plan.say()
    assert "failed: broken: IndexError" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ([], "--device cuda: torch sees no GPU here"),
        (["--device", "cpu"], "--preset 7b: 9.2 billion parameters are for a GPU"),
    ],
)
def test_what_this_machine_cannot_measure_is_refused_at_once(
    arguments: list[str], refusal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert refusal in capsys.readouterr().err
