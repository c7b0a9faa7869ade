"""Positions and rotations: the rules of the release, and where transformers computes something else.

Legend: T, H, W grid; L length; D head size; B batch; N heads.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding, apply_rotary_pos_emb

from models.config import ModelConfig
from models.decoder import transformers_config
from models.prompt import SpecialTokens
from models.rope import (
    Grid,
    axial_angles,
    grid_positions,
    multimodal_angles,
    patch_positions,
    prompt_positions,
    rotate,
    rotate_axial,
    text_positions,
)

SECTIONS = (4, 6, 6)
SIZE = 32
BASE = 1_000_000.0


def angles(positions: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Of positions [3, L], for a batch of one."""
    return multimodal_angles(positions[:, None], SIZE, SECTIONS, BASE, dtype)


def transformers_positions(text_before: int, grid: Grid, text_after: int) -> Tensor:
    """[3, L] by transformers' `get_rope_index`, for one prompt with one clip."""
    kinds = [0] * text_before + [2] * grid.size + [0] * text_after
    with torch.device("meta"):
        sizes = replace(ModelConfig.tiny().decoder, tokens_per_second=2)
        config = transformers_config(sizes, SpecialTokens(1, 2, 3, 4, 5, 6, 7, 8))
        model = Qwen2_5_VLForConditionalGeneration(config)
    positions, _ = model.model.get_rope_index(
        input_ids=torch.tensor([kinds]),
        mm_token_type_ids=torch.tensor([kinds]),
        video_grid_thw=torch.tensor([[grid.times, 2 * grid.rows, 2 * grid.columns]]),
        second_per_grid_ts=torch.tensor([grid.seconds_per_time]),
    )
    return positions[:, 0]


def test_text_counts_alike_on_all_axes() -> None:
    assert text_positions(3, start=5).tolist() == [[5, 6, 7]] * 3


def test_grid_runs_time_then_row_then_column() -> None:
    time, row, column = grid_positions(Grid(2, 2, 3, seconds_per_time=1.5), tokens_per_second=2).tolist()
    assert time == [0] * 6 + [3] * 6
    assert row == [0, 0, 0, 1, 1, 1] * 2
    assert column == [0, 1, 2] * 4


def test_time_is_truncated_not_rounded() -> None:
    positions = grid_positions(Grid(6, 1, 1, seconds_per_time=0.45), tokens_per_second=2)
    assert positions[0].tolist() == [0, 0, 1, 2, 3, 4]  # of 0, 0.9, 1.8, 2.7, 3.6, 4.5


@pytest.mark.parametrize("seconds", [7 / 3, 25 / 3, 7 / 5, 23 / 5, 7 / 6, 25 / 6])
def test_time_is_truncated_in_float32_as_transformers_does(seconds: float) -> None:
    """Some products t * seconds * 2 are whole numbers in one precision and just below them in another."""
    grid = Grid(64, 1, 1, seconds)
    positions = grid_positions(grid, tokens_per_second=2)
    assert torch.equal(positions, transformers_positions(0, grid, 0))
    assert positions[0].tolist() != [int(time * seconds * 2) for time in range(64)]


def test_positions_equal_those_of_the_release(gsm: Path) -> None:
    """Also the rule for geometry tokens: they are 32 more text positions, after the clip and before the text."""
    inputs, outputs = load_file(gsm / "inputs.safetensors"), load_file(gsm / "outputs.safetensors")
    times, height, width = inputs["video_grid_thw"][0].tolist()
    grid = Grid(times, height // 2, width // 2, float(inputs["second_per_grid_ts"][0]))
    ids = inputs["input_ids"][0].tolist()
    before, after = ids.index(8), ids[::-1].index(8)
    assert len(ids) == before + grid.size + 32 + after
    assert torch.equal(prompt_positions([before, grid, 32, after], 2), outputs["position_ids"][:, 0])


def test_text_after_a_short_clip_stands_where_transformers_puts_it() -> None:
    grid = Grid(2, 3, 4, seconds_per_time=0.5)  # rows and columns reach further than time
    assert torch.equal(prompt_positions([5, grid, 6], 2), transformers_positions(5, grid, 6))


def test_text_after_a_long_clip_follows_its_last_time_and_not_its_columns() -> None:
    """transformers 5.23 goes on at 5 + max(rows, columns) = 9, in the middle of the clip's time."""
    grid = Grid(16, 3, 4, seconds_per_time=2.0)
    ours, theirs = prompt_positions([5, grid, 6], 2), transformers_positions(5, grid, 6)
    last_time = 5 + 15 * 2 * 2
    assert ours[0, : 5 + grid.size].max() == last_time
    assert ours[:, 5 + grid.size :].tolist() == [list(range(last_time + 1, last_time + 7))] * 3
    assert torch.equal(ours[:, : 5 + grid.size], theirs[:, : 5 + grid.size])
    assert theirs[:, 5 + grid.size].tolist() == [9, 9, 9]


def test_each_part_of_a_prompt_with_several_clips_starts_behind_all_before_it() -> None:
    long, wide = Grid(3, 1, 1, seconds_per_time=5.0), Grid(1, 1, 9, seconds_per_time=1.0)
    positions = prompt_positions([2, long, 3, wide, 0, 2], 2)
    assert positions[0].tolist() == [0, 1, 2, 12, 22, 23, 24, 25, *[26] * 9, 35, 36]
    assert positions[1].tolist() == [0, 1, 2, 2, 2, 23, 24, 25, *[26] * 9, 35, 36]
    assert positions[2].tolist() == [0, 1, 2, 2, 2, 23, 24, 25, *range(26, 35), 35, 36]


def test_multimodal_rotation_equals_that_of_qwen() -> None:
    torch.manual_seed(0)
    positions = torch.randint(0, 5000, (3, 2, 50))
    q, k = torch.randn(2, 3, 50, SIZE), torch.randn(2, 1, 50, SIZE)
    rope = {"rope_type": "default", "rope_theta": BASE, "mrope_section": list(SECTIONS)}
    config = Qwen2_5_VLTextConfig(hidden_size=3 * SIZE, num_attention_heads=3, rope_parameters=rope)
    theirs = apply_rotary_pos_emb(q, k, *Qwen2_5_VLRotaryEmbedding(config)(q, positions))
    ours = multimodal_angles(positions, SIZE, SECTIONS, BASE)
    # The same float32 operations in the same order: equal, unless a library fuses a multiplication and an addition.
    for x, expected in zip((q, k), theirs, strict=True):
        torch.testing.assert_close(rotate(x, *ours), expected, rtol=0, atol=1e-6)


def test_each_frequency_turns_with_its_own_axis() -> None:
    cos, _ = angles(torch.tensor([[3], [5], [7]]))
    frequency = 1 / BASE ** (torch.arange(0, SIZE, 2) / SIZE)
    position = torch.tensor([3.0] * 4 + [5.0] * 6 + [7.0] * 6)
    torch.testing.assert_close(cos[0, 0, 0], (frequency * position).cos().repeat(2), rtol=0, atol=1e-6)


def test_a_uniform_shift_of_all_positions_leaves_attention_unchanged() -> None:
    """What lets a cached video prefix be moved."""
    torch.manual_seed(0)
    positions = prompt_positions([4, Grid(3, 2, 2, seconds_per_time=3.0), 5], 2)
    q, k = torch.randn(1, 2, positions.shape[1], SIZE), torch.randn(1, 2, positions.shape[1], SIZE)

    def scores(shift: int) -> Tensor:
        turned = angles(positions + shift)
        return rotate(q, *turned) @ rotate(k, *turned).mT

    # An angle near 1000 is exact to 6e-5 in float32; a score sums 32 products of size 1. Measured 1e-4.
    torch.testing.assert_close(scores(1000), scores(0), rtol=0, atol=1e-3)
    unequal = positions + torch.tensor([[1000], [0], [0]])
    assert (rotate(q, *angles(unequal)) @ rotate(k, *angles(positions)).mT - scores(0)).abs().max() > 1


@pytest.mark.parametrize(("position", "rounded"), [(255, 255), (256, 256), (257, 256), (259, 260), (1003, 1004)])
def test_bfloat16_rounds_positions_above_256_and_float32_does_not(position: int, rounded: int) -> None:
    def at(place: int, dtype: torch.dtype | None) -> Tensor:
        return torch.stack(angles(torch.full((3, 1), place), dtype))

    assert torch.equal(at(position, torch.bfloat16), at(rounded, None))
    assert torch.equal(at(position, torch.float32), at(position, None))
    assert torch.equal(at(position, None), at(rounded, None)) == (position == rounded)


def test_angles_are_float32_and_rotation_keeps_the_dtype_of_its_input() -> None:
    cos, sin = angles(text_positions(4), torch.bfloat16)
    assert cos.dtype == sin.dtype == torch.float32
    assert rotate(torch.ones(1, 1, 4, SIZE, dtype=torch.bfloat16), cos, sin).dtype == torch.bfloat16


def test_patches_count_from_one_and_registers_stand_at_zero() -> None:
    assert patch_positions(2, 2, registers=2).tolist() == [[0, 0], [0, 0], [1, 1], [1, 2], [2, 1], [2, 2]]


def test_axial_rotation_sees_only_differences_of_place() -> None:
    """The first half of a head turns with the row, the second with the column."""
    torch.manual_seed(0)
    q, k = torch.randn(16), torch.randn(16)

    def score(a: tuple[int, int], b: tuple[int, int]) -> float:
        pair = rotate_axial(torch.stack([q, k]), *axial_angles(torch.tensor([a, b]), head_size=16))
        return float(pair[0] @ pair[1])

    assert score((1, 2), (4, 3)) == pytest.approx(score((6, 9), (9, 10)), abs=1e-5)  # float32, 16 products of size 1
    assert score((1, 2), (4, 3)) != pytest.approx(score((1, 2), (3, 4)), abs=1e-2)
    only_columns = torch.cat([torch.zeros(8), torch.ones(8)])
    turned = rotate_axial(only_columns[None], *axial_angles(torch.tensor([[5, 0]]), head_size=16))
    torch.testing.assert_close(turned[0], only_columns, rtol=0, atol=1e-6)
