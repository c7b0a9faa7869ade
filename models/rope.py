"""Every position that the model computes, and the rotations made from them.

Legend: T, H, W grid of merged tokens (a token is 2 frames x 28 x 28 px); L length; D head size; B batch.
A multimodal position is a triple (time, row, column); for text the three are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The merged tokens of one clip: `times` x `rows` x `columns`, with `seconds_per_time` between grid times."""

    times: int
    rows: int
    columns: int
    seconds_per_time: float

    @property
    def size(self) -> int:
        return self.times * self.rows * self.columns


def text_positions(length: int, start: int = 0, device: torch.device | str | None = None) -> Tensor:
    """[3, L] int64: start, start + 1, …, the same on all three axes."""
    return repeat(torch.arange(start, start + length, device=device), "l -> a l", a=3)


def grid_positions(grid: Grid, tokens_per_second: int, device: torch.device | str | None = None) -> Tensor:
    """[3, T*H*W] int64: (seconds since the first grid time x tokens_per_second, truncated; row; column).

    The product is taken in float32, as transformers' `get_rope_index` does: at the edges truncation depends on it.
    """
    time = torch.arange(grid.times, dtype=torch.float32, device=device) * grid.seconds_per_time * tokens_per_second
    axes = torch.meshgrid(
        time.long(), torch.arange(grid.rows, device=device), torch.arange(grid.columns, device=device), indexing="ij"
    )
    return rearrange(torch.stack(axes), "a t h w -> a (t h w)")


def prompt_positions(
    parts: Sequence[int | Grid], tokens_per_second: int, device: torch.device | str | None = None
) -> Tensor:
    """[3, L] int64 positions of a prompt made of text runs (an int: their length) and clips (their grid).

    Every part starts at max(all positions so far) + 1. transformers 5.23 counts only rows and columns here, so with a
    long clip its text positions run behind the video's time positions; the released weights were trained with the
    rule above.
    """
    pieces: list[Tensor] = []
    start = 0
    for part in parts:
        if isinstance(part, Grid):
            piece = grid_positions(part, tokens_per_second, device) + start
        else:
            piece = text_positions(part, start, device)
        pieces.append(piece)
        start = int(piece.max()) + 1 if piece.numel() else start
    return torch.cat(pieces, dim=1)


def multimodal_angles(
    positions: Tensor, head_size: int, sections: Sequence[int], base: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """cos and sin, each float32 [B, 1, L, D], of positions [3, B, L] under multimodal RoPE (arXiv 2409.12191, 2.1).

    `sections` says how many of the D/2 frequencies turn with time, row and column. `dtype` rounds the positions first.
    """
    if dtype is not None:
        positions = positions.to(dtype)
    frequency = 1.0 / base ** (torch.arange(0, head_size, 2, device=positions.device).float() / head_size)
    angle = positions.float()[..., None] * frequency  # [3, B, L, D/2]
    chosen = [part[axis % 3] for axis, part in enumerate(torch.split(angle, list(sections), dim=-1))]
    both_halves = repeat(torch.cat(chosen, dim=-1), "b l d -> b 1 l (two d)", two=2)
    return both_halves.cos(), both_halves.sin()


def patch_positions(rows: int, columns: int, registers: int, device: torch.device | str | None = None) -> Tensor:
    """[registers + rows*columns, 2] int64 (row + 1, column + 1); registers stand at 0, apart from every patch."""
    axes = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    patches = rearrange(torch.stack(axes), "a h w -> (h w) a") + 1
    return torch.cat([patches.new_zeros(registers, 2), patches])


def axial_angles(positions: Tensor, head_size: int, base: float = 100.0) -> tuple[Tensor, Tensor]:
    """cos and sin, each float32 [L, 2, D/2], of 2-D positions [L, 2]: half of a head turns with the row, half with the
    column (the RoPE of CroCo v2, arXiv 2211.10408, with base 100)."""
    half = head_size // 2
    frequency = 1.0 / base ** (torch.arange(0, half, 2, device=positions.device).float() / half)
    angle = repeat(positions.float()[..., None] * frequency, "l a f -> l a (two f)", two=2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + D/2) of the last axis. Computed in the angles' dtype, returned in that of `x`."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def rotate_axial(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` for the two halves of a head, x [..., L, D], with the angles of `axial_angles`."""
    halves = rearrange(x, "... l (a d) -> ... l a d", a=2)
    return rearrange(rotate(halves, cos, sin), "... l a d -> ... l (a d)")
