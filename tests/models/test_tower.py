"""The vision tower by window lengths, against transformers' own, window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import attention, tower
from models.checkpoint import load_decoder
from models.decoder import Decoder
from models.layout import Layout
from models.parity import TOLERANCE
from models.tower import attend, quicken, windows_of
from tests.models.test_attention import compiled

CPU = torch.device("cpu")
# Of the largest output: products sum in another order in float32 (eps 1.2e-7). Measured 1e-6.
FLOAT32 = 1e-5


@pytest.fixture
def decoder(released: Layout) -> Decoder:
    return load_decoder(released)


def frames_of(pairs: int, rows: int, columns: int) -> Tensor:
    shape = (2 * pairs, 28 * rows, 28 * columns, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(rows))


@torch.inference_mode()
def deviation(ours: Decoder, theirs: Decoder, frames: Tensor) -> float:
    found, wanted = ours.see(frames), theirs.see(frames)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 4, 4), (3, 5, 7), (1, 9, 2)])
def test_the_tower_is_transformers_own(decoder: Decoder, released: Layout, shape: tuple[int, int, int]) -> None:
    """Also where windows are incomplete at the border."""
    assert quicken(decoder) < FLOAT32
    assert deviation(decoder, load_decoder(released), frames_of(*shape)) < FLOAT32


@pytest.mark.parametrize("with_kernel", [False, pytest.param(True, marks=compiled)])
def test_it_is_in_bfloat16_too(released: Layout, monkeypatch: pytest.MonkeyPatch, with_kernel: bool) -> None:
    monkeypatch.setattr(attention, "kernel_pays", lambda q, k, v: with_kernel)
    ours, theirs = (load_decoder(released, dtype=torch.bfloat16) for _ in range(2))
    assert quicken(ours) < TOLERANCE[torch.bfloat16]
    found = deviation(ours, theirs, frames_of(3, 5, 7))
    assert found < TOLERANCE[torch.bfloat16]
    assert found > 0 or not with_kernel


def test_windows_of_one_length_are_one_call(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(decoder)
    shapes: list[tuple[int, ...]] = []

    def noted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append((q.shape[0], q.shape[2]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    monkeypatch.setattr(tower, "attention", noted)
    vision = decoder.model.config.vision_config
    side = vision.window_size // 28
    with torch.inference_mode():
        decoder.see(frames_of(3, side + 1, side))
    whole, by_window = (3, 4 * (side + 1) * side), {(3, 4 * side * side), (3, 4 * side)}
    full = len(vision.fullatt_block_indexes)
    assert shapes.count(whole) == full
    assert all(shapes.count(shape) == vision.depth - full for shape in by_window)
    assert len(shapes) == full + 2 * (vision.depth - full)


def test_who_does_not_ask_for_it_keeps_transformers_own(decoder: Decoder, released: Layout) -> None:
    other, frames = load_decoder(released), frames_of(2, 3, 5)
    with torch.inference_mode():
        before = other.see(frames)
        quicken(decoder)
        assert torch.equal(other.see(frames), before)
    assert other.model.model.visual.config._attn_implementation == "sdpa"


def test_the_weights_keep_their_names(decoder: Decoder) -> None:
    names = list(decoder.state_dict())
    quicken(decoder)
    assert list(decoder.state_dict()) == names


def test_gradients_reach_the_pixels_weights(decoder: Decoder) -> None:
    quicken(decoder)
    weight = decoder.model.model.visual.patch_embed.proj.weight.requires_grad_()
    [gradient] = torch.autograd.grad(decoder.see(frames_of(2, 5, 6)).sum(), [weight])
    assert bool(gradient.any())


def mixed_up(starts: tuple[int, ...], device: torch.device) -> tower.Windows:
    """The windows come back in another order than they went."""
    windows = windows_of(starts, device)
    return windows if windows.back is None else replace(windows, back=windows.back.flip(0))


def another_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)


@pytest.mark.parametrize(("name", "wrong"), [("windows_of", mixed_up), ("attention", another_scale)])
def test_a_tower_that_computes_something_else_is_refused(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., object]
) -> None:
    monkeypatch.setattr(tower, name, wrong)
    with torch.no_grad():  # so that attention is more than an average
        for block in decoder.model.model.visual.blocks:
            block.attn.qkv.weight.mul_(7)
    with pytest.raises(RuntimeError, match="deviates from transformers'"):
        quicken(decoder)


def test_windows_that_come_one_by_one_are_refused() -> None:
    x = torch.zeros(1, 2, 8, 4)
    with pytest.raises(RuntimeError, match="at once"):
        attend(None, x, x, x)
    with pytest.raises(RuntimeError, match="at once"):
        attend(None, x, x, x, attention_mask=torch.zeros(8, 8), cu_seq_lens_q=torch.tensor([0, 8]))


def test_windows_are_grouped_by_length() -> None:
    windows = windows_of((0, 4, 6, 10), CPU)
    assert windows.groups == ((2, 4), (1, 2))
    assert windows.order is not None
    assert windows.back is not None
    assert windows.order.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 4, 5]
    assert windows.order[windows.back].tolist() == list(range(10))
    assert windows_of((0, 4, 8), CPU) == tower.Windows(((2, 4),), None, None)
