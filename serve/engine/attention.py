"""Attention over parts of a sequence, merged: softmax over the whole is the parts weighed by their log-sum-exp.

Legend: N queries (tokens), K keys, H query heads, G key/value heads, D head size. Queries are [N, H, D], keys and
values [G, K, D], outputs [N, H, D] with log-sum-exps [N, H] in float32. Scores are scaled by 1/sqrt(D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from models.attention import attention_with_lse


class Part(NamedTuple):
    """What queries saw in some of their keys: outputs [N, H, D] and log-sum-exps [N, H]."""

    out: Tensor
    lse: Tensor


def attend(q: Tensor, k: Tensor, v: Tensor) -> Part:
    """Every query sees every key. The query heads of a key head become rows of one product."""
    groups = len(k)
    rows = rearrange(q, "n (g h) d -> 1 g (h n) d", g=groups)
    out, lse = _kernel(rows, k[None], v[None], causal=False)
    return Part(
        rearrange(out, "1 g (h n) d -> n (g h) d", n=len(q)),
        rearrange(lse, "1 g (h n) -> n (g h)", n=len(q)),
    )


def attend_causal(q: Tensor, k: Tensor, v: Tensor) -> Part:
    """Query i sees keys 0..i; as many queries as keys."""
    each = q.shape[1] // len(k)
    keys, values = (repeat(x, "g k d -> 1 (g h) k d", h=each) for x in (k, v))
    out, lse = _kernel(rearrange(q, "n h d -> 1 h n d"), keys, values, causal=True)
    return Part(rearrange(out, "1 h n d -> n h d"), rearrange(lse, "1 h n -> n h"))


def merge(first: Part, second: Part) -> Part:
    """The same queries over both parts' keys. A part of no keys has a log-sum-exp of minus infinity."""
    lse = torch.logaddexp(first.lse, second.lse)
    outs = (part.out * (part.lse - lse).exp()[..., None] for part in (first, second))
    return Part(sum(outs, torch.zeros((), device=lse.device)).to(first.out.dtype), lse)


def _kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Outputs [1, H, N, D] and log-sum-exps [1, H, N]. The public function of torch keeps the latter to itself."""
    if q.device.type == "cpu":
        return attention_with_lse(q, k, v, causal)
    if q.dtype in (torch.bfloat16, torch.float16):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False)
        return out, lse[..., : q.shape[2]]
    return written_out(q, k, v, causal)


def written_out(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The kernel as its definition: for devices and types without one, and to test the others."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse
