"""Attention on CPUs in bfloat16 by a kernel of our own (`attention.cpp`), where it is faster than torch's.

torch's multiplies no faster in bfloat16 than in float32 and goes over all scores several times. Ours takes a half to a
third of its time and rounds only what comes in and goes out. pip compiles it where it finds a C++ compiler. Without
one, on other CPUs and for gradients, torch's is used, with the same result but for rounding.

Legend: B sequences, H heads, N queries, K keys, D head size. Scores are scaled by 1/sqrt(D).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

# Measured on Zen 4 with one thread, D from 16 to 128: with fewer rows it does not pay to pack the keys, with fewer
# scores to make the call (10 us).
MIN_ROWS = 8
MIN_SCORES = 1 << 14
# Sums are kept in whole registers of 16 float32.
LANE = 16


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` of q [B, H, N, D] and k, v [B, H, K, D] -> [B, H, N, D]."""
    return in_one_pass(q, k, v)[0] if kernel_pays(q, k, v) else F.scaled_dot_product_attention(q, k, v)


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """The same on a CPU, without gradients, and the log-sum-exps [B, H, N] in float32.

    `causal`: query i sees keys 0..i; as many queries as keys.
    """
    if kernel_pays(q, k, v):
        return in_one_pass(q, k, v, causal)
    # The public function of torch keeps the log-sum-exps to itself.
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
    return out, lse


def kernel_pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `in_one_pass` can compute this, and faster than torch's kernel."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[-1] % LANE or kernel() is None:
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return False
    return q.shape[2] >= MIN_ROWS and q.shape[:3].numel() * k.shape[2] >= MIN_SCORES


def in_one_pass(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs [B, H, N, D] and log-sum-exps [B, H, N] in float32, of bfloat16 on a CPU; no gradients.

    With torch's number of threads.

    Raises:
        ValueError: shapes or types that it does not compute; `causal` with another number of keys than of queries.
        RuntimeError: the kernel is not built, or is not for this CPU.
        MemoryError: there is too little memory for the packed keys and values of one head per thread.
    """
    function = kernel()
    if function is None:
        raise RuntimeError("the attention kernel is not built, or is not for this CPU")
    _refuse(q, k, v, causal)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, rows, size = q.shape
    # As the projection after it wants it: its heads side by side.
    out = q.new_empty(batch, rows, heads, size).transpose(1, 2)
    lse = q.new_empty(batch, heads, rows, dtype=torch.float32)
    shape = (ctypes.c_int64 * 5)(batch, heads, rows, k.shape[2], size)
    strides = (ctypes.c_int64 * 12)(*(step for x in (q, k, v, out) for step in x.stride()[:3]))
    places = (ctypes.c_void_p(x.data_ptr()) for x in (q, k, v, out, lse))
    if function(*places, shape, strides, int(causal), torch.get_num_threads()):
        raise MemoryError(f"attention of {k.shape[2]} keys of size {size} has too little memory")
    return out, lse


def _refuse(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> None:
    """The kernel reads what it is told to, so that a wrong shape would read other memory."""
    if any(x.dtype != torch.bfloat16 or x.device.type != "cpu" for x in (q, k, v)):
        raise ValueError(f"the kernel takes bfloat16 on a CPU, got {q.dtype}, {k.dtype}, {v.dtype} on {q.device}")
    if q.dim() != 4 or k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(f"shapes do not fit: {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    if not q.shape[3] or q.shape[3] % LANE or not k.shape[2]:
        raise ValueError(f"needs keys, and heads whose size is a multiple of {LANE}, got {k.shape[2]} of {q.shape[3]}")
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(f"causal attention needs as many keys as queries, got {k.shape[2]} and {q.shape[2]}")


@functools.cache
def kernel() -> Callable[..., int] | None:
    """The compiled function; None where it is not built or where the CPU lacks what it is built for."""
    # With AMX torch's own kernel multiplies in tiles, which ours was not measured against.
    if not torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    names = (Path(__file__).with_name(f"_attention{suffix}") for suffix in EXTENSION_SUFFIXES)
    built = next((name for name in names if name.exists()), None)
    return None if built is None else ctypes.CDLL(str(built)).dsr_attention
