from __future__ import annotations

import pytest
import torch
from torch import Tensor

from serve.engine.requests import Choice, Text, Token
from serve.engine.sampling import Draw, Letters, chance, nucleus, pick

PROBABILITIES = torch.tensor([0.1, 0.4, 0.0, 0.2, 0.3])


def drawn(probabilities: Tensor, temperature: float, top_p: float, draws: int = 1000) -> list[float]:
    """How often each id comes, when the uniforms are spread evenly."""
    uniform = (torch.arange(draws) + 0.5) / draws
    rows = probabilities.log().expand(draws, -1)
    ids = nucleus(rows, torch.full((draws,), temperature), torch.full((draws,), top_p), uniform)
    return (ids.bincount(minlength=len(probabilities)) / draws).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.1, 0.4, 0.0, 0.2, 0.3]),
        (1.0, 0.65, [0, 4 / 7, 0, 0, 3 / 7]),
        (1.0, 0.1, [0, 1, 0, 0, 0]),
        (0.5, 1.0, [1 / 30, 16 / 30, 0, 4 / 30, 9 / 30]),
        (1e-4, 1.0, [0, 1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_their_probability(temperature: float, top_p: float, expected: list[float]) -> None:
    assert drawn(PROBABILITIES, temperature, top_p) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1.0])
def test_the_ends_of_the_interval_give_tokens_that_are_possible(uniform: float) -> None:
    ids = nucleus(PROBABILITIES.log()[None], torch.ones(1), torch.ones(1), torch.tensor([uniform]))
    assert PROBABILITIES[ids] > 0


def test_a_row_depends_on_no_other_row() -> None:
    rows = list(torch.randn(5, 30, generator=torch.Generator().manual_seed(0)))
    wanted: list[Choice | Draw] = [
        Choice((1, 2), logprobs=True),
        Draw(Text(1), 0.9),
        Draw(Text(1, temperature=1.0), 0.3),
        Draw(Text(1, temperature=0.7, top_p=0.4), 0.8),
        Draw(Text(1, temperature=2.0, logprobs=3), 0.99),
    ]
    together = pick(rows, wanted)
    assert together == [pick([row], [want])[0] for row, want in zip(rows, wanted, strict=True)]
    assert isinstance(together[0], Letters)
    assert isinstance(together[1], Token)
    assert together[1].id == int(rows[1].argmax())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_give_nothing_and_harm_no_neighbour(poison: float) -> None:
    rows = [torch.zeros(4), torch.tensor([1.0, 3.0, 2.0, 0.0])]
    rows[0][2] = poison
    wanted = [Draw(Text(1, temperature=1.0), 0.5), Draw(Text(1), 0.5)]
    assert pick(rows, wanted) == [None, Token(1)]


def test_letters_are_weighed_among_themselves_and_logprobs_among_all() -> None:
    row = torch.tensor([0.5, 0.3, 0.1, 0.1]).log()
    [letters] = pick([row], [Choice((1, 3), logprobs=True)])
    assert isinstance(letters, Letters)
    assert letters.probabilities == pytest.approx((0.75, 0.25))
    assert letters.logprobs == pytest.approx(torch.tensor([0.3, 0.1]).log().tolist())


def test_a_seed_makes_chance_repeatable_and_none_does_not() -> None:
    def first(seed: int | None) -> float:
        return float(torch.rand((), generator=chance(Text(1, seed=seed))))

    assert first(4) == first(4) != first(5)
    assert first(-1) == first(-1)
    assert first(None) != first(None)
