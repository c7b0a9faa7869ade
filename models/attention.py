"""Attention on CPUs in bfloat16, as blocks of matrix products where they are faster than torch's kernel.

torch's kernel for CPUs multiplies no faster in bfloat16 than in float32, but plain products run 2.5 times as fast on a
CPU with bfloat16 instructions. A product's result is rounded to bfloat16, which would cost a score of 16 the precision
of 0.06. So a reference of each row, near its highest score, is subtracted inside the product, before it rounds: softmax
does not change by it, and the scores that weigh are near zero then, where bfloat16 is fine.

Legend: B sequences, H heads, P = B*H pairs, N queries, K keys, D head size. Scores are scaled by 1/sqrt(D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Of the sizes that were measured (Zen 4, one thread; D from 16 to 128): fewer rows or scores cost as much as torch's.
MIN_ROWS = 64
MIN_SCORES = 1 << 18

BLOCK_SCORES = 1 << 19
"""Scores of one block: 1 MiB, which the second cache holds between the product that writes and the one that reads."""
BLOCK_ROWS = 512
CAUSAL_ROWS = 128
"""Rows of a block: as many as there may be, but under the causal mask each block computes half a square in vain."""

SAMPLED = 16
"""The reference is the highest score of every 16th key: nearer to the scores that weigh than the highest of all."""
MAX_WEIGHT = 4.0
"""A row's mean weight against its reference, beyond which the sample missed its peak and all keys are looked at."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` of q [B, H, N, D] and k, v [B, H, K, D] -> [B, H, N, D]."""
    return in_blocks(q, k, v)[0] if blocks_pay(q, k, v) else F.scaled_dot_product_attention(q, k, v)


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """On a CPU, without gradients: also the log-sum-exps [B, H, N] in float32. `causal`: query i sees keys 0..i."""
    if blocks_pay(q, k, v):
        return in_blocks(q, k, v, causal)
    # The public function of torch keeps the log-sum-exps to itself.
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
    return out, lse


def blocks_pay(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `in_blocks` computes this, and faster than torch's kernel."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not _has_bfloat16():
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return False
    return q.shape[2] >= MIN_ROWS and q.shape[:3].numel() * k.shape[2] >= MIN_SCORES


def in_blocks(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs [B, H, N, D] and log-sum-exps [B, H, N] in float32, in bfloat16 on a CPU; no gradients.

    Raises:
        ValueError: `causal` with another number of keys than of queries.
    """
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(f"causal attention needs as many keys as queries, got {k.shape[2]} and {q.shape[2]}")
    heads = q.shape[1]
    q, k, v = (rearrange(x, "b h n d -> (b h) n d") for x in (q, k, v))
    pairs, rows, keys = *q.shape[:2], k.shape[1]
    # Blocks of equal height: a last one of a few rows would cost nearly as much as a whole one.
    most = min(CAUSAL_ROWS if causal else BLOCK_ROWS, max(1, BLOCK_SCORES // keys))
    height = math.ceil(rows / max(1, round(rows / most)))
    together = min(pairs, max(1, BLOCK_SCORES // (height * keys)))
    room = q.new_empty(together * height * keys)
    out, lse = torch.empty_like(q), q.new_empty(pairs, rows, dtype=torch.float32)
    step = SAMPLED
    for pair in range(0, pairs, together):
        some = slice(pair, pair + together)
        for start in range(0, rows, height):
            part = slice(start, start + height)
            seen = slice(0, min(start + height, rows) if causal else keys)
            block = _Block(q[some, part], k[some, seen], v[some, seen], start if causal else None, room)
            if not block.weigh(step):
                # Scores of this spread are likely in the other blocks too: none of them tries the sample again.
                step = 1
                block.weigh(step)
            out[some, part], lse[some, part] = block.result()
    return rearrange(out, "(b h) n d -> b h n d", h=heads), rearrange(lse, "(b h) n -> b h n", h=heads)


class _Block:
    """Queries [P, n, D] over all keys [P, K, D] that they may see. `first`: the place of the first query among the
    keys, where each sees only those up to its own. Scores are in units of log 2, because exp2 is faster than exp."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, first: int | None, room: Tensor) -> None:
        self._q, self._keys, self._v = q, rearrange(k, "p k d -> p d k"), v
        self._scale = math.log2(math.e) * q.shape[-1] ** -0.5
        shape = (*q.shape[:2], k.shape[1])
        self._weights = room[: math.prod(shape)].view(shape)
        self._hidden: Tensor | None = None
        if first is not None:
            places = torch.arange(shape[2])
            self._hidden = places > rearrange(places[first:], "n -> n 1")
        self._first = first or 0

    def weigh(self, step: int) -> bool:
        """Weights of every key, their sums, and the reference from every `step`th key. False where that is too low."""
        reference = self._highest(step) * -self._scale
        weights = torch.baddbmm(reference, self._q, self._keys, alpha=self._scale, out=self._weights)
        if self._hidden is not None:
            weights[..., self._first :].masked_fill_(self._hidden[:, self._first :], -torch.inf)
        torch.exp2(weights, out=weights)
        self._sums = weights.sum(-1, keepdim=True, dtype=torch.float32)
        self._reference = reference
        return float(self._sums.max()) <= MAX_WEIGHT * weights.shape[-1]

    def result(self) -> tuple[Tensor, Tensor]:
        """Outputs [P, n, D] and log-sum-exps [P, n]."""
        out = torch.bmm(self._weights, self._v) / self._sums
        lse = (self._sums.log2() - self._reference) * math.log(2)
        return out, rearrange(lse, "p n 1 -> p n")

    def _highest(self, step: int) -> Tensor:
        """[P, n, 1] The first key is always among those looked at, and every query sees it."""
        scores = torch.bmm(self._q, self._keys[..., ::step])
        if self._hidden is not None:
            scores.masked_fill_(self._hidden[:, ::step], -torch.inf)
        return scores.amax(-1, keepdim=True)


def _has_bfloat16() -> bool:
    # With AMX torch's own kernel multiplies in tiles, which these blocks were not measured against.
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
