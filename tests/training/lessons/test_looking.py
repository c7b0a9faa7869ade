"""Listening to the selector changes nothing; guiding its heads makes tokens tell of the things they are pointed at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.config import ModelConfig
from models.rope import Grid
from models.selector import Memory, Selector
from training.lessons.looking import Overheard, Sights, overhearing

GRID = Grid(3, 2, 2, 0.5)
QUESTIONS, QUERIES, CELLS = 2, 32, 4


@pytest.fixture(scope="module")
def selector() -> Selector:
    torch.manual_seed(0)
    config = ModelConfig.tiny().selector
    assert config is not None
    return Selector(config)


@pytest.fixture(scope="module")
def given(selector: Selector) -> tuple[list[Tensor], list[Tensor]]:
    """Texts and geometries of two questions about two clips."""
    random = torch.Generator().manual_seed(1)
    width = selector.config.hidden_size
    texts = [torch.randn(length, width, generator=random) for length in (5, 9)]
    return texts, [torch.randn(GRID.size, width, generator=random) for _ in range(QUESTIONS)]


def sights(cell: int | None) -> Sights:
    """All things in one cell at the second time, or nowhere."""
    cells = torch.zeros(QUESTIONS, 3, QUERIES, CELLS, dtype=torch.bool)
    if cell is not None:
        cells[..., cell] = True
    times = torch.ones(QUESTIONS, 3, QUERIES, dtype=torch.long)
    empty = torch.zeros(0)
    return Sights(empty, times, cells, empty, empty)


def tokens(
    selector: Selector, given: tuple[list[Tensor], list[Tensor]], seen: Sights | None, guided: float
) -> tuple[Tensor, Overheard]:
    texts, geometries = given
    with overhearing(selector, seen, guided) as heard:
        return selector.select(texts, memories(selector, geometries)).tokens, heard[0]


def memories(selector: Selector, geometries: list[Tensor]) -> list[Memory]:
    return [selector.project(geometry, GRID) for geometry in geometries]


def test_listening_changes_nothing(selector: Selector, given: tuple[list[Tensor], list[Tensor]]) -> None:
    texts, geometries = given
    expected = selector.select(texts, memories(selector, geometries), attention=True)
    found, heard = tokens(selector, given, None, 0.0)
    torch.testing.assert_close(found, expected.tokens)
    assert expected.attention is not None
    torch.testing.assert_close(heard.attention.exp().mean(dim=1), torch.stack(expected.attention))
    after = selector.select(texts, memories(selector, geometries)).tokens
    torch.testing.assert_close(after, expected.tokens)


def test_guided_tokens_depend_on_their_cell_alone(selector: Selector, given: tuple[list[Tensor], list[Tensor]]) -> None:
    texts, geometries = given
    found, _ = tokens(selector, given, sights(2), 1.0)
    other = [geometry.clone() for geometry in geometries]
    for geometry in other:
        geometry[[place for place in range(GRID.size) if place != CELLS + 2]] += 1.0
    moved, _ = tokens(selector, (texts, other), sights(2), 1.0)
    torch.testing.assert_close(moved, found)
    for geometry in other:
        geometry[CELLS + 2] += 1.0
    assert not torch.allclose(tokens(selector, (texts, other), sights(2), 1.0)[0], found, atol=1e-3)


def test_what_is_not_seen_is_looked_for(selector: Selector, given: tuple[list[Tensor], list[Tensor]]) -> None:
    unguided, _ = tokens(selector, given, None, 0.0)
    torch.testing.assert_close(tokens(selector, given, sights(None), 1.0)[0], unguided)
