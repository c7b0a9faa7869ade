"""Our kernel of attention in bfloat16, against its definition in float32 of the same rounded inputs.

Legend: B sequences, H heads, N queries, K keys, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import attention as module
from models.attention import attention, attention_with_lse, in_one_pass, kernel, kernel_pays
from models.vit import Attention

# Of the outputs' norm: weights and outputs are rounded to bfloat16, steps of 2^-8. Measured 0.001 to 0.003.
ERROR = 2**-8
# Scores and sums stay in float32; the exponential is good to 8e-5 (`Exp2`). Measured 1e-4.
LSE = 3e-4

compiled = pytest.mark.skipif(
    kernel() is None, reason="no kernel: pip found no C++ compiler (g++), or the CPU has no AVX512-BF16, or has AMX"
)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of queries of each call of `in_one_pass`."""
    calls: list[int] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
        calls.append(q.shape[2])
        return in_one_pass(q, k, v, causal)

    monkeypatch.setattr(module, "in_one_pass", noted)
    return calls


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


@compiled
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0])
@pytest.mark.parametrize(
    ("queries", "keys", "size"),
    [(1, 1, 32), (1, 300, 16), (16, 64, 48), (70, 70, 64), (203, 117, 80), (25, 257, 128), (600, 33, 16)],
)
def test_every_query_sees_every_key(
    queries: int, keys: int, size: int, spread: float, count: int, threads: Callable[[int], None]
) -> None:
    """Rows, keys and sizes that fill no tile, block or register; fewer and more heads than threads."""
    threads(count)
    inputs = made(queries, keys, size, spread)
    (out, lse), (wanted, wanted_lse) = in_one_pass(*inputs), expected(*inputs)
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-6, atol=LSE)


@compiled
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0])
@pytest.mark.parametrize("tokens", [1, 2, 24, 70, 203, 700])
def test_a_causal_query_sees_no_key_after_its_own(
    tokens: int, spread: float, count: int, threads: Callable[[int], None]
) -> None:
    threads(count)
    inputs = made(tokens, tokens, spread=spread)
    (out, lse), (wanted, wanted_lse) = in_one_pass(*inputs, causal=True), expected(*inputs, causal=True)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-6, atol=LSE)


@compiled
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (1, 0, 2, 3), (2, 0, 1, 3), (0, 1, 3, 2)])
def test_it_takes_any_strides(order: tuple[int, ...]) -> None:
    """As packed projections give them, and where a head's values do not lie side by side."""
    back = tuple(order.index(axis) for axis in range(4))
    inputs = made(70, 70)
    q, k, v = (x.permute(order).contiguous().permute(back) for x in inputs)
    assert q.stride() != inputs[0].stride() or order == (0, 1, 2, 3)
    for found, wanted in zip(in_one_pass(q, k, v), in_one_pass(*inputs), strict=True):
        assert torch.equal(found, wanted)


@compiled
def test_rows_do_not_depend_on_the_number_of_threads(threads: Callable[[int], None]) -> None:
    inputs = made(1000, 300)
    threads(1)
    alone = in_one_pass(*inputs)
    threads(7)
    for found, wanted in zip(in_one_pass(*inputs), alone, strict=True):
        assert torch.equal(found, wanted)


@compiled
@pytest.mark.parametrize("offset", [-2000.0, -60.0, 60.0, 2000.0])
def test_what_all_scores_of_a_row_have_in_common_costs_no_precision(offset: float) -> None:
    """As the large biases of some models' keys give. Of scores that are rounded as they are, 10 % would be wrong."""
    q, k, v = made(70, 300)
    k[..., 0] = 32.0
    q[..., 0] = offset * 32**0.5 / 32
    wanted, wanted_lse = expected(q, k, v)
    plain = ((q @ k.transpose(-1, -2)) * 32**-0.5).softmax(-1) @ v
    assert error(plain, wanted) > 5 * ERROR
    out, lse = in_one_pass(q, k, v)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-6, atol=LSE)


@compiled
@pytest.mark.parametrize("height", [30.0, 1000.0, 1e30])
@pytest.mark.parametrize("key", [3, 700])
@pytest.mark.parametrize("causal", [False, True])
def test_a_key_that_outweighs_all_others_is_all(height: float, key: int, causal: bool) -> None:
    """In the first block or after others, also beyond what the difference of two weights can express."""
    q, k, v = made(800, 800)
    q[..., 0], k[..., 0] = 8.0, 0.0
    k[:, 1, key, 0] = height * 32**0.5 / 8
    (out, lse), (wanted, wanted_lse) = in_one_pass(q, k, v, causal), expected(q, k, v, causal)
    assert error(out, wanted) < ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-6, atol=LSE)
    if height > 100:
        assert torch.equal(out[:, 1, key:], v[:, 1, key : key + 1].expand_as(out[:, 1, key:]))


@compiled
@pytest.mark.parametrize("what", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_number_stays_to_be_seen(what: float, place: int) -> None:
    inputs = made(70, 300)
    inputs[place][1, 2, 40, 5] = what
    (out, _), (wanted, _) = in_one_pass(*inputs), expected(*inputs)
    broken = ~wanted.isfinite().all(-1)
    assert broken.any()
    assert torch.equal(~out.isfinite().all(-1), broken)


@compiled
def test_it_refuses_what_it_would_read_wrongly() -> None:
    q, k, v = made(8, 9)
    with pytest.raises(ValueError, match="got 9 and 8"):
        in_one_pass(q, k, v, causal=True)
    with pytest.raises(ValueError, match="multiple of 16, got 9 of 24"):
        in_one_pass(q[..., :24], k[..., :24], v[..., :24])
    with pytest.raises(ValueError, match="got 0 of 32"):
        in_one_pass(q, k[:, :, :0], v[:, :, :0])
    with pytest.raises(ValueError, match="takes bfloat16 on a CPU"):
        in_one_pass(q.float(), k, v)
    for shapes in ((q, k, v[:, :, :8]), (q[:, :2], k, v), (q[:1], k, v), (q[..., :16], k, v), (q[0], k[0], v[0])):
        with pytest.raises(ValueError, match="do not fit"):
            in_one_pass(*shapes)


@compiled
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


@compiled
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_input_that_needs_a_gradient_is_enough(place: int) -> None:
    inputs = made(70, 70)
    assert kernel_pays(*inputs)
    inputs[place].requires_grad_()
    assert not kernel_pays(*inputs)


@compiled
def test_the_kernel_is_for_many_scores_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = made(100, 100)
    assert kernel_pays(q, k, v)
    assert not kernel_pays(q.float(), k.float(), v.float())
    assert not kernel_pays(q[:, :, :7], k, v)
    assert not kernel_pays(*(x[:, :, :20] for x in (q, k, v)))
    assert not kernel_pays(*(x[..., :24] for x in (q, k, v)))
    monkeypatch.setattr(module, "kernel", lambda: None)
    assert not kernel_pays(q, k, v)


@pytest.mark.parametrize("causal", [False, True])
def test_without_the_kernel_torchs_computes_the_same(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    monkeypatch.setattr(module, "kernel", lambda: None)
    inputs = made(70, 70)
    wanted, wanted_lse = expected(*inputs, causal=causal)
    out, lse = attention_with_lse(*inputs, causal)
    assert error(out, wanted) < 2 * ERROR
    torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)
    with pytest.raises(RuntimeError, match="not built"):
        in_one_pass(*inputs, causal)


@pytest.mark.parametrize("causal", [False, True])
def test_log_sum_exps_come_with_either_kernel(causal: bool) -> None:
    inputs = made(70, 70)
    wanted, wanted_lse = expected(*inputs, causal=causal)
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = (x.to(dtype) for x in inputs)
        out, lse = attention_with_lse(q, k, v, causal)
        assert error(out, wanted) < 2 * ERROR
        torch.testing.assert_close(lse, wanted_lse, rtol=0, atol=LSE)


@compiled
@torch.inference_mode()
def test_the_encoders_attention_is_the_kernel(used: list[int]) -> None:
    torch.manual_seed(0)
    layer, x = Attention(64, 2, qk_norm=True), torch.randn(2, 70, 64)
    wanted = layer(x)
    assert used == []
    assert error(layer.bfloat16()(x.bfloat16()), wanted) < 4 * ERROR  # of the weights and the inputs too
    assert used == [70]
