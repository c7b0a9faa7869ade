"""Attention on CPUs in bfloat16, as blocks of matrix products where they are faster than torch's kernel.

torch's kernel for CPUs multiplies no faster in bfloat16 than in float32, but plain products run 2.5 times as fast on a
CPU with bfloat16 instructions. A product's result is rounded to bfloat16: a score of 16 by up to 0.03. So a reference
of each row, near its highest score, is subtracted inside the product, before it rounds: softmax does not change by it,
and the scores that weigh are near zero then, where bfloat16 is fine.

Legend: B sequences, H heads, P = B*H pairs, N queries, K keys, D head size. Scores are scaled by 1/sqrt(D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Measured on Zen 4 with one thread, D from 16 to 128: with fewer rows or scores torch's kernel is as fast or faster.
MIN_ROWS = 64
MIN_SCORES = 1 << 18

# Of a block. Products want many rows, which is worth more than to stay in the second cache; but under the causal mask
# each block computes half a square in vain.
BLOCK_SCORES = 1 << 20
BLOCK_ROWS = 1024
CAUSAL_ROWS = 128

SAMPLED = 8
"""The reference is the highest score of every 8th key: as near to the scores that weigh as the highest of all."""
MAX_WEIGHT = 64.0
"""A row's mean weight against its reference, beyond which the sample missed a peak, and the block is weighed again.
Normal scores make that happen from a standard deviation of 4 to 5 on."""

_LOG2_E = math.log2(math.e)
"""Scores are taken in units of log 2, because exp2 is faster than exp."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` of q [B, H, N, D] and k, v [B, H, K, D] -> [B, H, N, D]."""
    return in_blocks(q, k, v)[0] if blocks_pay(q, k, v) else F.scaled_dot_product_attention(q, k, v)


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """The same on a CPU, without gradients, and the log-sum-exps [B, H, N] in float32.

    `causal`: query i sees keys 0..i; as many queries as keys.
    """
    return in_blocks(q, k, v, causal) if blocks_pay(q, k, v) else _torchs(q, k, v, causal)


def blocks_pay(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `in_blocks` can compute this, and faster than torch's kernel."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not _has_bfloat16():
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return False
    return q.shape[2] >= MIN_ROWS and q.shape[:3].numel() * k.shape[2] >= MIN_SCORES


def in_blocks(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs [B, H, N, D] and log-sum-exps [B, H, N] in float32, of bfloat16 on a CPU; no gradients.

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
    for first in range(0, pairs, together):
        some = slice(first, first + together)
        if not _fill(out[some], lse[some], q[some], k[some], v[some], height, causal, room):
            again = _torchs(q[some][None], k[some][None], v[some][None], causal)
            out[some], lse[some] = (x[0] for x in again)
    return rearrange(out, "(b h) n d -> b h n d", h=heads), rearrange(lse, "(b h) n -> b h n", h=heads)


def _fill(out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, height: int, causal: bool, room: Tensor) -> bool:
    """Writes `out` [P, N, D] and `lse` [P, N], `height` rows at a time. False where a weight is beyond the type."""
    scale = _LOG2_E * q.shape[-1] ** -0.5
    for start in range(0, q.shape[1], height):
        place = slice(start, start + height)
        rows = q[:, place]
        seen = min(start + height, k.shape[1]) if causal else k.shape[1]
        # The keys before the block are hidden from none of its queries.
        hidden = _later(start, rows.shape[1], range(start, seen)) if causal else None
        sample = _later(start, rows.shape[1], range(0, seen, SAMPLED)) if causal else None
        keys = rearrange(k[:, :seen], "p k d -> p d k")
        reference = _highest(rows, keys[..., ::SAMPLED], sample) * scale
        weights = room[: len(q) * rows.shape[1] * seen].view(len(q), rows.shape[1], seen)
        sums = _weigh(weights, rows, keys, reference, scale, hidden)
        highest = float(sums.max())
        if not math.isfinite(highest):
            return False
        if highest > MAX_WEIGHT * seen:
            # The log-sum-exps that come of it are as good a reference as there is.
            reference = (reference + sums.log2()).to(q.dtype)
            sums = _weigh(weights, rows, keys, reference, scale, hidden)
        torch.div(torch.bmm(weights, v[:, :seen]), sums, out=out[:, place])
        lse[:, place] = rearrange((sums.log2() + reference) / _LOG2_E, "p n 1 -> p n")
    return True


def _weigh(weights: Tensor, q: Tensor, keys: Tensor, reference: Tensor, scale: float, hidden: Tensor | None) -> Tensor:
    """Writes `weights` [P, N, K] = 2^(scores - reference) of q [P, N, D] and keys [P, D, K]; their sums [P, N, 1].
    `hidden` [N, the last keys]: which of these weigh nothing."""
    torch.baddbmm(-reference, q, keys, alpha=scale, out=weights)
    if hidden is not None:
        weights[..., -hidden.shape[1] :].masked_fill_(hidden, -torch.inf)
    torch.exp2(weights, out=weights)
    # Added up in float32 and rounded once; asked for in float32, torch would first copy all weights.
    return weights.sum(-1, keepdim=True).float()


def _highest(q: Tensor, keys: Tensor, hidden: Tensor | None) -> Tensor:
    """[P, N, 1]: of the scores of q [P, N, D] and keys [P, D, K], unscaled, but for those `hidden` [N, K]."""
    scores = torch.bmm(q, keys)
    return (scores if hidden is None else scores.masked_fill_(hidden, -torch.inf)).amax(-1, keepdim=True)


def _later(start: int, rows: int, keys: range) -> Tensor:
    """[rows, keys]: which of these keys come after each of the queries from `start` on."""
    return torch.arange(keys.start, keys.stop, keys.step) > rearrange(torch.arange(start, start + rows), "n -> n 1")


def _torchs(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The public function of torch keeps the log-sum-exps to itself."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
    return out, lse


def _has_bfloat16() -> bool:
    # With AMX torch's own kernel multiplies in tiles, which these blocks were not measured against.
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
