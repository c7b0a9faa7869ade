"""The encoder stage: π³'s image encoder, a DINOv2 ViT with register tokens (arXiv 2304.07193, 2309.16588).

Legend: F frames, H x W pixels, P = H/14 * W/14 patches (row-major), R registers, D width, N images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.config import EncoderConfig
from models.vit import EPS, Block

IGNORED_KEYS = frozenset({"mask_token"})
"""Weights that a DINOv2 checkpoint may hold and this module has no use for: the token that hid patches in pre-training.
A loader may drop these keys, and no others."""

MAX_PATCHES = 8_192
"""Patches that go through the network at once: about 0.2 GB of activations at ViT-L in bfloat16. Larger groups leave
the caches of a CPU: at width 128 twice as many take 5 to 25 % longer."""


class PatchEmbed(nn.Module):
    """[N, 3, H, W] -> [N, P, D]: one linear map of every patch."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return rearrange(self.proj(images), "n d h w -> n (h w) d")


class ImageEncoder(nn.Module):
    """Sees each frame alone: the features of a frame depend on its pixels and on nothing else.

    The state dict has the names of DINOv2's release, so its weights load with `strict=True`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, side = config.hidden_size, config.image_size // config.patch_size
        self.config = config
        self.patch_embed = PatchEmbed(width, config.patch_size)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + side * side, width))
        self.register_tokens = nn.Parameter(0.02 * torch.randn(1, config.num_register_tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, config.num_attention_heads, layer_scale=True) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, EPS)

    @property
    def dtype(self) -> torch.dtype:
        return self.cls_token.dtype

    @property
    def device(self) -> torch.device:
        return self.cls_token.device

    def forward(self, frames: Tensor, max_patches: int = MAX_PATCHES) -> Tensor:
        """uint8 [F, H, W, 3] on any device -> [F, P, D] in the module's dtype and on its device.

        Frames go through in groups of at most `max_patches` patches (and at least one frame), which bounds the memory
        and does not change the result. Raises ValueError for another shape or dtype, or a side that is no multiple of
        the patch size.
        """
        if frames.dtype != torch.uint8:
            raise ValueError(f"frames: expected torch.uint8, got {frames.dtype}")
        if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise ValueError(f"frames: expected [F >= 1, H, W, 3], got {list(frames.shape)}")
        rows, columns = patch_grid(frames.shape[1], frames.shape[2], self.config.patch_size)
        place = self.position_table(rows, columns)
        groups = torch.split(frames, max(1, max_patches // (rows * columns)))
        return torch.cat([self._features(self.normalise(group), place) for group in groups])

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> [N, P, D], all at once."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected [N, 3, H, W], got {list(images.shape)}")
        rows, columns = patch_grid(images.shape[2], images.shape[3], self.config.patch_size)
        return self._features(images, self.position_table(rows, columns))

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 [F, H, W, 3] -> [F, 3, H, W], (frames / 255 - mean) / std, computed in float32."""
        # The frames cross to the device as bytes: a quarter of what float32 would take. And they are put in order as
        # bytes, because numbers by channel are slow to compute with where the channels are innermost.
        mean = rearrange(torch.tensor(self.config.image_mean, device=self.device), "c -> c 1 1")
        std = rearrange(torch.tensor(self.config.image_std, device=self.device), "c -> c 1 1")
        images = rearrange(frames.to(self.device), "f h w c -> f c h w").contiguous()
        return images.float().mul_(1 / (255 * std)).sub_(mean / std).to(self.dtype)

    def position_table(self, rows: int, columns: int) -> Tensor:
        """[1, 1 + rows*columns, D]: the class token's position, then the learned grid resized to this one."""
        side = self.config.image_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid = rearrange(self.pos_embed[:, 1:].float(), "1 (h w) d -> 1 d h w", h=side)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], rearrange(grid, "1 d h w -> 1 (h w) d").to(self.dtype)], dim=1)

    def _features(self, images: Tensor, place: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        first = (self.cls_token + place[:, :1]).expand(len(images), -1, -1)
        registers = self.register_tokens.expand(len(images), -1, -1)
        tokens = torch.cat([first, registers, patches + place[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1 + self.config.num_register_tokens :])


def encoder_of(config: EncoderConfig) -> ImageEncoder:
    """The encoder of a config: all but π³ itself, which has this one, make theirs here. Another architecture is a
    subclass that is chosen by a field of its config."""
    return ImageEncoder(config)


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of a frame in pixels. ValueError when the patches do not tile it."""
    if height < patch_size or width < patch_size or height % patch_size or width % patch_size:
        raise ValueError(
            f"a frame of {height} x {width} px (height x width): both must be multiples of {patch_size} px"
        )
    return height // patch_size, width // patch_size
