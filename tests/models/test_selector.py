"""The geometry selector against formulas written out again here; parity with the release is in test_verify.

Legend: M memory tokens of a clip, L text tokens, Q queries, D width, E head size.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from models.config import SelectorConfig
from models.rope import Grid, grid_positions
from models.selector import Memory, Merger, Selection, Selector

CONFIG = SelectorConfig(
    hidden_size=64, intermediate_size=80, num_attention_heads=4, num_key_value_heads=2, feature_size=8,
    mrope_section=(2, 3, 3), num_queries=5,
)  # fmt: skip
GRIDS = [Grid(2, 2, 3, seconds_per_time=1.0), Grid(4, 3, 1, seconds_per_time=0.6), Grid(1, 1, 2, seconds_per_time=9.0)]
LENGTHS = [7, 3, 12]
# Of the largest magnitude: padding a batch changes the order in which float32 (eps 1.2e-7) is summed. Measured 1e-6.
FLOAT32 = 1e-5


def randomised(config: SelectorConfig, seed: int = 0) -> Selector:
    """A selector in which every weight matters: biases and norms are drawn too."""
    torch.manual_seed(seed)
    selector = Selector(config)
    for name, parameter in selector.named_parameters():
        torch.nn.init.normal_(parameter, mean=float(".norm" in name or "ln_q" in name), std=0.3)
    return selector.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def selector() -> Selector:
    return randomised(CONFIG)


def features_of(grid: Grid, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * grid.times, 4 * grid.rows * grid.columns, CONFIG.feature_size, generator=generator)


def text_of(length: int) -> Tensor:
    return torch.randn(length, CONFIG.hidden_size, generator=torch.Generator().manual_seed(100 + length))


def deviation(ours: Tensor, expected: Tensor) -> float:
    """Largest difference, as a part of the expected tensor's largest magnitude."""
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def memory_of(selector: Selector, grid: Grid, seed: int = 1) -> Memory:
    return selector.project(selector.remember(features_of(grid, seed), grid), grid)


def select(selector: Selector, grids: list[Grid], lengths: list[int], attention: bool = False) -> Selection:
    memories = [memory_of(selector, grid) for grid in grids]
    return selector.select([text_of(length) for length in lengths], memories, attention)


def test_a_pair_does_not_depend_on_its_neighbours(selector: Selector) -> None:
    together = select(selector, GRIDS, LENGTHS, attention=True)
    assert together.tokens.shape == (3, CONFIG.num_queries, CONFIG.hidden_size)
    assert together.attention is not None
    for index, (grid, length) in enumerate(zip(GRIDS, LENGTHS, strict=True)):
        alone = select(selector, [grid], [length], attention=True)
        assert alone.attention is not None
        assert deviation(together.tokens[index], alone.tokens[0]) < FLOAT32
        assert deviation(together.attention[index], alone.attention[0]) < FLOAT32


def test_question_queries_do_not_depend_on_neighbours(selector: Selector) -> None:
    together = selector.ask([text_of(length) for length in LENGTHS])
    for index, length in enumerate(LENGTHS):
        assert deviation(together[index], selector.ask([text_of(length)])[0]) < FLOAT32


def test_attention_is_a_distribution_over_each_clips_grid(selector: Selector) -> None:
    attention = select(selector, GRIDS, LENGTHS, attention=True).attention
    assert attention is not None
    assert [tuple(rows.shape) for rows in attention] == [(CONFIG.num_queries, grid.size) for grid in GRIDS]
    for rows in attention:
        assert rows.min() >= 0
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(CONFIG.num_queries), rtol=0, atol=1e-6)


def test_attention_is_absent_unless_asked_for_and_changes_nothing(selector: Selector) -> None:
    silent, asked = select(selector, GRIDS, LENGTHS), select(selector, GRIDS, LENGTHS, attention=True)
    assert silent.attention is None
    assert torch.equal(silent.tokens, asked.tokens)


def turn(x: Tensor, positions: Tensor) -> Tensor:
    """Multimodal RoPE by complex numbers: x [L, E] at positions [3, L]; pair j is (x_j, x_{j + E/2})."""
    half = x.shape[1] // 2
    axis = torch.tensor([0] * 2 + [1] * 3 + [2] * 3)  # CONFIG.mrope_section
    frequency = CONFIG.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions[axis].T * frequency
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=1)


def test_tokens_and_attention_are_those_of_the_formula(selector: Selector) -> None:
    """Head by head in float64: each pair of query heads shares one head of keys and values."""
    grid, size = GRIDS[1], CONFIG.head_size
    geometry = selector.remember(features_of(grid), grid)
    queries = selector.ask([text_of(4)])[0].double()
    exact = randomised(CONFIG).double()
    former = exact.q_former_2
    x, target = former.norm1(queries), former.norm1(geometry.double())
    q, k, v = (
        layer(of).split(size, dim=1)
        for layer, of in ((former.attn.q_proj, x), (former.attn.k_proj, target), (former.attn.v_proj, target))
    )
    places, order = grid_positions(grid, 2), torch.arange(CONFIG.num_queries).expand(3, -1)
    heads = [(turn(q[n], order) @ turn(k[n // 2], places).T / size**0.5).softmax(dim=1) for n in range(4)]
    seen = torch.cat([heads[n] @ v[n // 2] for n in range(4)], dim=1)
    out = queries + former.attn.o_proj(seen)
    expected = exact.norm(out + former.mlp(former.norm2(out)))
    selection = selector.select([text_of(4)], [selector.project(geometry, grid)], attention=True)
    assert selection.attention is not None
    assert deviation(selection.attention[0].double(), torch.stack(heads).mean(dim=0)) < FLOAT32
    assert deviation(selection.tokens[0].double(), expected) < FLOAT32
    assert torch.stack(heads).mean(dim=0).max() > 2 / grid.size  # not the uniform one, which any weights would give


def test_geometry_depends_on_the_question_and_on_the_clip(selector: Selector) -> None:
    grid = GRIDS[0]
    first, second = (memory_of(selector, grid, seed) for seed in (1, 2))
    ask, other = text_of(7), text_of(7).flip(0)
    tokens = selector.select([ask, other, ask], [first, first, second]).tokens
    assert (tokens[0] - tokens[1]).abs().max() > 0.01
    assert (tokens[0] - tokens[2]).abs().max() > 0.01


def test_geometry_depends_on_the_time_between_frames(selector: Selector) -> None:
    """The same features at another pace are another motion."""
    slow, fast = Grid(4, 1, 1, seconds_per_time=5.0), Grid(4, 1, 1, seconds_per_time=0.5)
    geometry = selector.remember(features_of(slow), slow)
    memories = [selector.project(geometry, grid) for grid in (slow, fast)]
    tokens = selector.select([text_of(3)] * 2, memories).tokens
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


@pytest.mark.parametrize("times", [1, 3, 4])
def test_the_memory_of_a_clips_beginning_is_that_of_a_clip_that_ends_there(selector: Selector, times: int) -> None:
    whole = Grid(4, 2, 3, seconds_per_time=0.7)
    part = Grid(times, 2, 3, seconds_per_time=0.7)
    ended = selector.project(selector.remember(features_of(whole)[: 2 * times], part), part)
    begun = memory_of(selector, whole).until(times)
    assert begun.grid == part
    assert deviation(begun.keys, ended.keys) < FLOAT32
    assert deviation(begun.values, ended.values) < FLOAT32


def test_a_memory_holds_the_shared_heads_alone(selector: Selector) -> None:
    """Two heads of 16 for keys and as many for values: at 7B 1,024 numbers a token in place of a width of 3,584."""
    memory = memory_of(selector, GRIDS[1])
    assert memory.keys.shape == memory.values.shape == (2, GRIDS[1].size, 16)
    assert memory.nbytes == 4 * (2 * 2 * 16) * GRIDS[1].size


def test_geometry_of_another_grid_is_refused(selector: Selector) -> None:
    geometry = selector.remember(features_of(GRIDS[0]), GRIDS[0])
    with pytest.raises(ValueError, match=r"geometry is \(12, 64\); a clip of Grid\(times=1.*\) has \(2, 64\)"):
        selector.project(geometry, GRIDS[2])


@pytest.mark.parametrize(
    "shape",
    [
        (4, 24, 7),  # another width
        (4, 20, 8),  # too few patches
        (2, 24, 8),  # too few frames
        (2, 48, 8),  # the right number of tokens, differently arranged
        (8, 12, 8),
    ],
)
def test_features_of_another_clip_are_refused(selector: Selector, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"features are \(.*\); a clip of Grid\(.*\) has \(4, 24, 8\)"):
        selector.remember(torch.zeros(shape), GRIDS[0])


def test_merger_joins_frame_then_row_then_column() -> None:
    """Every feature says where it comes from; the order in which they enter the first layer is written out."""
    merger = Merger(CONFIG)
    entered: list[Tensor] = []
    merger.ln_q.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    times, rows, columns = 2, 2, 3
    frame, row, column, channel = torch.meshgrid(
        torch.arange(2.0 * times),
        torch.arange(2.0 * rows),
        torch.arange(2.0 * columns),
        torch.arange(8.0),
        indexing="ij",
    )
    named = 1000 * frame + 100 * row + 10 * column + channel
    memory = merger(named.flatten(1, 2), rows)
    expected = [
        [
            1000 * (2 * t + f) + 100 * (2 * r + i) + 10 * (2 * c + j) + channel
            for f, i, j, channel in itertools.product(range(2), range(2), range(2), range(8))
        ]
        for t, r, c in itertools.product(range(times), range(rows), range(columns))
    ]
    assert entered[0].tolist() == expected
    assert memory.shape == (times * rows * columns, CONFIG.hidden_size)


def test_bfloat16_stays_near_float32(selector: Selector) -> None:
    exact = select(selector, GRIDS, LENGTHS, attention=True)
    rounded = randomised(CONFIG).to(torch.bfloat16)
    memories = [rounded.project(rounded.remember(features_of(grid).bfloat16(), grid), grid) for grid in GRIDS]
    text = [text_of(length).bfloat16() for length in LENGTHS]
    close = rounded.select(text, memories, attention=True)
    assert close.tokens.dtype == torch.bfloat16
    assert close.attention is not None
    assert exact.attention is not None
    # 8 bits (4e-3) through a merger and two layers; measured 0.02, for tokens and attention.
    assert deviation(close.tokens.float(), exact.tokens) < 0.05
    for ours, theirs in zip(close.attention, exact.attention, strict=True):
        assert ours.dtype == torch.float32
        assert deviation(ours, theirs) < 0.05


def test_text_positions_are_rounded_only_as_the_released_weights_were_trained() -> None:
    """In bfloat16, positions 257 and 256 are one. A text of 300 tokens therefore gives other queries."""
    data = CONFIG.to_json()
    released = SelectorConfig.from_json({**data, "position_dtype": "activation"})
    ours = SelectorConfig.from_json({**data, "position_dtype": "float32"})

    def queries(config: SelectorConfig, length: int, dtype: torch.dtype) -> Tensor:
        return randomised(config).to(dtype).ask([text_of(length).to(dtype)])

    assert not torch.equal(queries(released, 300, torch.bfloat16), queries(ours, 300, torch.bfloat16))
    assert torch.equal(queries(released, 200, torch.bfloat16), queries(ours, 200, torch.bfloat16))
    assert torch.equal(queries(released, 300, torch.float32), queries(ours, 300, torch.float32))
