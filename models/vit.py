"""The transformer block of π³ (arXiv 2507.13347): its image encoder, its decoder and its three heads are made of it.

Legend: B sequences, L tokens, D width, H heads, E = D/H head size.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.attention import attention
from models.rope import rotate_axial

Angles: TypeAlias = tuple[Tensor, Tensor]
"""cos and sin of `models.rope.axial_angles`, each float32 [L, 2, E/2]."""

EPS = 1e-6
"""Of every LayerNorm but those over queries and keys: π³ leaves these at PyTorch's 1e-5."""


class Attention(nn.Module):
    """Every token sees every other token of its sequence. `qk_norm` adds a LayerNorm over each head's query and key."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b l (three h e) -> three b h l e", three=3, h=self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate_axial(q, *angles), rotate_axial(k, *angles)
        return self.proj(rearrange(attention(q, k, v), "b h l e -> b l (h e)"))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned gain per channel (arXiv 2103.17239). Starts at 1: a model without weights is no identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """[B, L, D] -> [B, L, D]: attention, then MLP, each after a LayerNorm and added to what came in.

    With `angles` queries and keys are turned by 2-D RoPE; without, the block knows no order of its tokens.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False, layer_scale: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), angles))
        return x + self.ls2(self.mlp(self.norm2(x)))
