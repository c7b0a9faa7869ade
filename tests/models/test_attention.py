"""Attention in blocks of products in bfloat16, against its definition in float32 of the same rounded inputs.

Legend: B sequences, H heads, N queries, K keys, D head size.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import attention as module
from models.attention import attention, attention_with_lse, blocks_pay, in_blocks
from models.vit import Attention

# Of the outputs' norm. bfloat16 (steps of 2^-8) rounds scores, weights, sums and twice the outputs. Measured 0.004.
ERROR = 2**-7
# A log-sum-exp is off as its largest scores are: by half a step of up to 16 units of log 2. Measured 0.004 to 0.025.
LSE = 2**-5


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, some of several heads, of a computation that takes no time."""
    monkeypatch.setattr(module, "BLOCK_SCORES", 1 << 13)
    monkeypatch.setattr(module, "BLOCK_ROWS", 64)
    monkeypatch.setattr(module, "CAUSAL_ROWS", 32)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks on any CPU and for any size."""
    monkeypatch.setattr(module, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(module, "MIN_ROWS", 1)
    monkeypatch.setattr(module, "MIN_SCORES", 1)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of queries of each call of `in_blocks`."""
    calls: list[int] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
        calls.append(q.shape[2])
        return in_blocks(q, k, v, causal)

    monkeypatch.setattr(module, "in_blocks", noted)
    return calls


def made(queries: int, keys: int, size: int = 32, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Two sequences of three heads whose scores have the standard deviation `spread`."""
    chance = torch.Generator().manual_seed(queries)
    q, k, v = (torch.randn(2, 3, n, size, generator=chance) for n in (queries, keys, keys))
    return (spread * q).bfloat16(), k.bfloat16(), v.bfloat16()


def expected(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ v.float(), scores.logsumexp(-1)


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
@pytest.mark.parametrize(("queries", "keys", "size"), [(1, 1, 32), (1, 300, 32), (70, 70, 64), (203, 117, 80)])
def test_blocks_are_attention_of_every_query_to_every_key(queries: int, keys: int, size: int, spread: float) -> None:
    inputs = made(queries, keys, size, spread)
    (out, lse), (wanted, wanted_lse) = in_blocks(*inputs), expected(*inputs)
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("tokens", [1, 2, 70, 203])
def test_causal_blocks_see_no_key_after_the_query(tokens: int, spread: float) -> None:
    inputs = made(tokens, tokens, spread=spread)
    (out, lse), (wanted, wanted_lse) = in_blocks(*inputs, causal=True), expected(*inputs, causal=True)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)


def test_causal_blocks_refuse_other_keys_than_those_of_the_queries() -> None:
    with pytest.raises(ValueError, match="got 8 and 9"):
        in_blocks(*made(9, 8), causal=True)


def test_blocks_take_the_strides_of_packed_projections() -> None:
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in made(70, 70))
    assert error(in_blocks(q, k, v)[0], expected(q, k, v)[0]) < ERROR


@pytest.mark.parametrize("offset", [-60.0, 60.0])
def test_what_all_scores_of_a_row_have_in_common_costs_no_precision(offset: float) -> None:
    """As the large biases of some models' keys give. Of scores that are rounded as they are, 10 % would be wrong."""
    q, k, v = made(70, 300)
    k[..., 0] = 32.0
    q[..., 0] = offset * 32**0.5 / 32
    wanted, wanted_lse = expected(q, k, v)
    plain = ((q @ k.transpose(-1, -2)) * 32**-0.5).softmax(-1) @ v
    assert error(plain, wanted) > 5 * ERROR
    out, lse = in_blocks(q, k, v)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("height", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("causal", [False, True])
def test_a_peak_beside_the_sample_is_found(height: float, causal: bool) -> None:
    """Also one whose weight, by the reference, is beyond what the type can express."""
    q, k, v = made(203, 203)
    q[..., 0], k[..., 0] = 8.0, 0.0
    k[:, 1, 3, 0] = height * 32**0.5 / 8
    (out, lse), (wanted, wanted_lse) = in_blocks(q, k, v, causal), expected(q, k, v, causal)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=2**-9, atol=LSE)


@pytest.mark.usefixtures("everywhere")
def test_gradients_flow_through_torchs_attention(used: list[int]) -> None:
    q, k, v = inputs = tuple(x.requires_grad_() for x in made(70, 70))
    found = torch.autograd.grad(attention(q, k, v).float().square().sum(), inputs)
    wanted = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v).float().square().sum(), inputs)
    assert used == []
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        attention(q, k, v)
    assert used == [70]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.usefixtures("everywhere")
def test_one_input_that_needs_a_gradient_is_enough(place: int) -> None:
    inputs = made(70, 70)
    assert blocks_pay(*inputs)
    inputs[place].requires_grad_()
    assert not blocks_pay(*inputs)


def test_blocks_are_for_many_scores_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_bfloat16", lambda: True)
    q, k, v = made(300, 300)
    assert blocks_pay(q, k, v)
    assert not blocks_pay(q.float(), k.float(), v.float())
    assert not blocks_pay(q[:, :, :8], k, v)
    assert not blocks_pay(*(x[:, :, :100] for x in (q, k, v)))
    monkeypatch.setattr(module, "_has_bfloat16", lambda: False)
    assert not blocks_pay(q, k, v)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("causal", [False, True])
def test_log_sum_exps_come_with_either_kernel(used: list[int], causal: bool) -> None:
    inputs = made(70, 70)
    wanted, wanted_lse = expected(*inputs, causal=causal)
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = (x.to(dtype) for x in inputs)
        out, lse = attention_with_lse(q, k, v, causal)
        assert error(out, wanted) < ERROR
        torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)
    assert used == [70]


@pytest.mark.usefixtures("everywhere")
@torch.inference_mode()
def test_the_encoders_attention_is_in_blocks(used: list[int]) -> None:
    torch.manual_seed(0)
    layer, x = Attention(64, 2, qk_norm=True), torch.randn(2, 70, 64)
    wanted = layer(x)
    assert used == []
    assert error(layer.bfloat16()(x.bfloat16()), wanted) < 2 * ERROR  # of the weights and the inputs too
    assert used == [70]
