"""Qwen2.5-VL's vision tower, faster: all windows of one length in one call of attention, and patches by one product.

transformers calls attention once for every window and frame pair: thousands of small calls for a clip. To an attention
with "flash" in its name it hands all of them over at once, with the places where they begin. This is such a one, of
torch's own kernels, for every device and type. Patches it embeds by a convolution whose kernel covers one whole patch,
for which torch's convolutions are slow: it is a matrix product.

Legend: N patches, W windows of one length, L patches of a window, H heads, D head size, C width. "Window" is here also
the frame pair that a block of full attention sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.attention import attention
from models.decoder import Decoder
from models.parity import deviation

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

NAME = "flash_by_window_length"

_FRAMES = (4, 140, 168, 3)
"""Of the check: two frame pairs of 5 x 6 merged patches. Windows of 4 x 4 and of 2 x 2 are incomplete at the border."""


def quicken(decoder: Decoder) -> float:
    """Changes how the vision tower computes, and checks that it is not changed in what: returns the largest deviation.

    Raises:
        RuntimeError: it is beyond the tolerance, or transformers does not hand over all windows at once.
    """
    noise = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, _FRAMES, dtype=torch.uint8, generator=noise)
    with torch.inference_mode():
        expected = decoder.see(frames)
        _install(decoder.model)
        found = decoder.see(frames)
    return deviation(found, expected, "the faster vision tower")


def _install(model: Qwen2_5_VLForConditionalGeneration) -> None:
    from transformers import AttentionInterface  # late, as `models.decoder` says

    AttentionInterface.register(NAME, attend)
    tower = model.model.visual
    # The setter alone: `set_attn_implementation` would look for a package of this name.
    tower.config._attn_implementation = NAME
    tower.patch_embed = PatchEmbed(tower.patch_embed.proj)


class PatchEmbed(nn.Module):
    """Flat patches [N, 3*2*14*14] -> [N, C], with the weights of a convolution and under its name."""

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), rearrange(weight, "c i t h w -> c (i t h w)"), self.proj.bias)


@dataclass(frozen=True)
class Windows:
    """`groups` of (W, L) and, where lengths differ, the patches in the `order` of the groups and the way `back` [N]."""

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None
    back: Tensor | None


@lru_cache(maxsize=16)  # the blocks of a tower ask for two, again and again
def windows_of(starts: tuple[int, ...], device: torch.device) -> Windows:
    """`starts`: where each window begins, and where the last one ends."""
    by_length: dict[int, list[int]] = {}
    for start, stop in pairwise(starts):
        by_length.setdefault(stop - start, []).append(start)
    groups = tuple((len(firsts), length) for length, firsts in by_length.items())
    if len(groups) == 1:
        return Windows(groups, None, None)
    with torch.inference_mode(False):  # kept for calls with gradients too
        order = torch.cat(
            [
                rearrange(rearrange(torch.tensor(firsts), "w -> w 1") + torch.arange(length), "w l -> (w l)")
                for length, firsts in by_length.items()
            ]
        )
        return Windows(groups, order.to(device), order.argsort().to(device))


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: queries, keys and values [1, H, N, D], `cu_seq_lens_q` [windows + 1] -> [1, N, H, D].

    Raises:
        RuntimeError: there is no `cu_seq_lens_q`, or there is a mask.
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        raise RuntimeError("the installed transformers does not hand over the vision tower's windows at once")
    windows = windows_of(tuple(cu_seq_lens_q.tolist()), query.device)
    parts = [rearrange(x, "1 h n d -> n h d") for x in (query, key, value)]
    if windows.order is not None:
        parts = [x[windows.order] for x in parts]
    split = zip(*(torch.split(x, [count * length for count, length in windows.groups]) for x in parts), strict=True)
    seen = []
    for (_, length), group in zip(windows.groups, split, strict=True):
        q, k, v = (rearrange(x, "(w l) h d -> w h l d", l=length) for x in group)
        seen.append(rearrange(attention(q, k, v), "w h l d -> (w l) h d"))
    together = torch.cat(seen)
    return (together if windows.back is None else together[windows.back])[None], None
