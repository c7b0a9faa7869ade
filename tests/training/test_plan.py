"""The memory plan counts what a run really holds."""

from __future__ import annotations

import pytest

from models.config import ModelConfig
from models.decoder import Decoder
from models.prompt import SpecialTokens
from models.selector import Selector
from training import plan
from training.loop import groups
from training.runs.recipe import DsrModel, rates
from training.untrained import random_decoder


def test_the_plan_of_one_process_is_what_the_optimizer_holds() -> None:
    config = ModelConfig.tiny()
    assert config.selector is not None
    decoder = Decoder(random_decoder(config, SpecialTokens(*range(8))))
    module = DsrModel(decoder, Selector(config.selector))
    optimizer = groups.optimizer(groups.grouped(module, rates(1e-6, 2e-7)))
    moments = sum(
        tensor.nbytes for state in optimizer.state.values() for name, tensor in state.items() if name != "step"
    )
    found = plan.plan(config, 1)
    assert found.moments == moments
    assert found.gradients == sum(p.nbytes for p in module.parameters() if p.requires_grad)
    assert found.weights == sum(p.nbytes for p in module.parameters())


def test_more_gpus_share_what_is_kept_but_not_what_is_formed() -> None:
    one, four = (plan.plan(ModelConfig.tiny(), gpus) for gpus in (1, 4))
    assert four.moments == one.moments // 4
    assert (four.encoder, four.activations) == (one.encoder, one.activations)


def test_no_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="gpus is 0"):
        plan.plan(ModelConfig.tiny(), 0)


def test_the_command_prints_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--preset", "tiny", "--gpus", "1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[1:]] == ["1 GPU ", "2 GPUs"]
