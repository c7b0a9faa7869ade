from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import attention
from serve.engine.attention import Part, attend, attend_causal, merge, written_out
from tests.models.test_attention import compiled

HEADS, GROUPS, SIZE = 6, 2, 16
# The kernel sums in blocks; of values and log-sum-exps near 1 to 10 in float32 (eps 1.2e-7). Measured 1e-6.
FLOAT32 = 5e-6


def made(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    shapes = (queries, HEADS, SIZE), (GROUPS, keys, SIZE), (GROUPS, keys, SIZE)
    q, k, v = (torch.randn(*shape, generator=torch.Generator().manual_seed(n)) for n, shape in enumerate(shapes))
    return q, k, v


def expected(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """By the definition, head by head."""
    outs, lses = [], []
    for head in range(HEADS):
        group = head // (HEADS // GROUPS)
        out, lse = written_out(q[None, None, :, head], k[None, group, None], v[None, group, None], causal)
        outs.append(out[0, 0])
        lses.append(lse[0, 0])
    return torch.stack(outs, dim=1), torch.stack(lses, dim=1)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 40), (7, 40), (300, 900)])
def test_every_query_sees_every_key_of_its_group(queries: int, keys: int) -> None:
    q, k, v = made(queries, keys)
    found, wanted = attend(q, k, v), expected(q, k, v, causal=False)
    torch.testing.assert_close(found.out, wanted[0], rtol=0, atol=FLOAT32)
    torch.testing.assert_close(found.lse, wanted[1], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("tokens", [1, 2, 70])
def test_a_query_sees_no_key_after_its_own(tokens: int) -> None:
    q, k, v = made(tokens, tokens)
    found, wanted = attend_causal(q, k, v), expected(q, k, v, causal=True)
    torch.testing.assert_close(found.out, wanted[0], rtol=0, atol=FLOAT32)
    torch.testing.assert_close(found.lse, wanted[1], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_merged_parts_are_the_whole(scale: float) -> None:
    """Also where one part outweighs the other by more than float32 can express."""
    q, k, v = made(9, 50)
    whole = attend(scale * q, k, v)
    parts = merge(attend(scale * q, k[:, :20], v[:, :20]), attend(scale * q, k[:, 20:], v[:, 20:]))
    # A score's rounding is in proportion to the score, and a weight's is the difference of two scores'.
    torch.testing.assert_close(parts.out, whole.out, rtol=0, atol=FLOAT32 * scale)
    torch.testing.assert_close(parts.lse, whole.lse, rtol=0, atol=FLOAT32 * scale)


def test_a_part_of_no_weight_changes_nothing() -> None:
    whole = attend(*made(9, 50))
    nothing = Part(torch.ones_like(whole.out), torch.full_like(whole.lse, -torch.inf))
    torch.testing.assert_close(merge(whole, nothing).out, whole.out, rtol=0, atol=0)


@pytest.mark.parametrize("with_kernel", [False, pytest.param(True, marks=compiled)])
@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16_is_float32_but_for_its_rounding(
    monkeypatch: pytest.MonkeyPatch, causal: bool, with_kernel: bool
) -> None:
    """By torch's kernel, and by ours."""
    used = []

    def noted(q: Tensor, k: Tensor, v: Tensor) -> bool:
        used.append(q.shape)
        return with_kernel

    monkeypatch.setattr(attention, "kernel_pays", noted)
    q, k, v = (x.bfloat16() for x in made(150, 150))
    found = (attend_causal if causal else attend)(q, k, v)
    wanted = expected(q.float(), k.float(), v.float(), causal)
    assert len(used) == 1
    assert found.out.dtype == torch.bfloat16
    assert found.lse.dtype == torch.float32
    # Steps of bfloat16 near values and weights of at most 4, and near scores of at most 4 from the row's highest.
    torch.testing.assert_close(found.out.float(), wanted[0], rtol=0, atol=2**-6)
    torch.testing.assert_close(found.lse, wanted[1], rtol=0, atol=2**-6)
