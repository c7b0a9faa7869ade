"""What a run that goes on from a checkpoint learns first: the heads of the lessons, from what its selector says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from models.config import ModelConfig
from models.tokenizer import QwenTokenizer
from training.loop.groups import grouped
from training.runs.model import TinyModel, is_checkpoint, tokenizer_in, weights_of
from training.runs.tiny import TinyConfig, TinyTask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    torch.manual_seed(0)
    config = ModelConfig.tiny()
    return TinyModel(config, QwenTokenizer(tokenizer_in(tmp_path_factory.mktemp("cache"), config.decoder.vocab_size)))


def task(model: TinyModel, fresh_heads: bool, lesson: str = "look", **settings: Any) -> TinyTask:
    """Without the scenes, which take minutes."""
    made = object.__new__(TinyTask)
    made.module, made.fresh_heads = model, fresh_heads
    made.config = replace(TinyConfig(lesson), **settings)
    return made


def learns(task: TinyTask) -> dict[str, float]:
    return {group.rate.name: group.rate.lr for group in grouped(task.module, task.rates()) if not group.frozen}


def test_the_heads_of_a_checkpoint_learn_alone_when_asked_to(model: TinyModel) -> None:
    assert learns(task(model, True, selector_lr=0.0, heads_lr=3e-3)) == {"told": 3e-3, "looking": 3e-3}


def test_what_a_run_before_has_learned_to_say_stays(model: TinyModel) -> None:
    assert learns(task(model, False, lr=1e-4, selector_lr=2e-4)) == {"selector": 2e-4, "looking": 2e-4}
    both = {"language": 1e-4, "reading": 5e-4, "selector": 2e-4, "looking": 5e-4}
    assert learns(task(model, False, "answer", lr=1e-4, selector_lr=2e-4, heads_lr=5e-4)) == both
    assert learns(task(model, True, "read", lr=1e-4)) == {"language": 1e-4, "told": 1e-4, "reading": 1e-4}


def test_fresh_heads_hear_the_tokens_and_the_others_the_truth(model: TinyModel) -> None:
    tokens = 0.1 * torch.randn(3, 32, model.config.decoder.hidden_size)
    truth, lie = (
        cast(Any, SimpleNamespace(samples=torch.randn(3, 32, 5), types=torch.tensor([0, 4, 9]))) for _ in range(2)
    )
    fresh, settled = task(model, True), task(model, False)
    grouped(model, fresh.rates())
    assert torch.equal(fresh._told(tokens, truth), fresh._told(tokens, lie))
    assert not torch.equal(fresh._told(tokens, truth), fresh._told(-tokens, truth))
    assert fresh._told(tokens, truth).requires_grad
    assert torch.equal(settled._told(tokens, truth), model.told(truth.samples, truth.types))
    assert not settled._told(tokens, truth).requires_grad


def test_the_checkpoint_that_is_served_has_no_heads() -> None:
    served = str(Path(__file__).parents[3] / "models/tiny")
    assert is_checkpoint(served)
    assert {name.split(".")[0] for name in weights_of(served)} == {"decoder", "selector"}
