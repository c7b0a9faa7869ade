"""π³ (arXiv 2507.13347): unordered images of a scene -> a camera pose for each and a 3-D point for every pixel.

Legend: B scenes, N images of a scene, H x W pixels, P = H/14 * W/14 patches, L = 5 registers + P tokens of an image,
D width, C width of the camera head. Axes as in OpenCV: x right, y down, z forward. The scale is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn

from models import encoder
from models.config import Config, EncoderConfig
from models.encoder import ImageEncoder, patch_grid
from models.errors import CheckpointError, OutOfLimits
from models.rope import axial_angles, patch_positions
from models.vit import Angles, Block

MAX_PIXELS = 255_000
"""Pixels of one image: what π³ was trained with."""

REGISTERS = 5
"""Learned tokens put before each image's patches in the decoder."""

IGNORED_KEYS = encoder.IGNORED_KEYS | {f"encoder.{key}" for key in encoder.IGNORED_KEYS}
"""`models.encoder.IGNORED_KEYS` for a loader of π³, or of its encoder alone: it may drop these, and no others."""


@dataclass(frozen=True)
class FusionConfig(Config):
    """The decoder, whose blocks look in turn inside each image and over all images."""

    hidden_size: int = 1024
    num_hidden_layers: int = 36
    num_attention_heads: int = 16


@dataclass(frozen=True)
class HeadsConfig(Config):
    """The three heads. `camera_size` is the width C of the camera head after its transformer."""

    hidden_size: int = 1024
    num_attention_heads: int = 16
    num_hidden_layers: int = 5
    camera_size: int = 512


@dataclass(frozen=True)
class Pi3Config(Config):
    encoder: EncoderConfig
    decoder: FusionConfig
    heads: HeadsConfig

    def __post_init__(self) -> None:
        if self.encoder.hidden_size != self.decoder.hidden_size:
            raise CheckpointError(
                f"Pi3Config: the decoder reads the encoder's tokens, but its hidden_size is {self.decoder.hidden_size} "
                f"and the encoder's {self.encoder.hidden_size}"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        parts: dict[str, type[Config]] = {"encoder": EncoderConfig, "decoder": FusionConfig, "heads": HeadsConfig}
        return super().from_json({k: parts[k].from_json(v) if k in parts else v for k, v in data.items()})

    @classmethod
    def published(cls) -> Self:
        """The sizes of the released weights: 959 M parameters."""
        return cls(EncoderConfig(), FusionConfig(), HeadsConfig())


@dataclass(frozen=True)
class Reconstruction:
    """All float32, in one free unit of length per scene; the world's origin and axes are free as well."""

    points: Tensor
    """[B, N, H, W, 3] in the world."""
    local_points: Tensor
    """[B, N, H, W, 3] in the camera's frame; z > 0 is the depth."""
    confidence: Tensor
    """[B, N, H, W] logits: sigmoid gives the probability that the point is good."""
    camera_poses: Tensor
    """[B, N, 4, 4] camera to world: a rotation and a translation, last row 0 0 0 1."""


class Pi3(nn.Module):
    """The order of the images does not matter: permuted images give permuted results.

    The state dict has the names of the release, so its weights load with `strict=True`.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        trunk, heads, patch = config.decoder, config.heads, config.encoder.patch_size
        self.config = config
        self.encoder = ImageEncoder(config.encoder)
        self.register_token = nn.Parameter(0.02 * torch.randn(1, 1, REGISTERS, trunk.hidden_size))
        self.decoder = nn.ModuleList(
            Block(trunk.hidden_size, trunk.num_attention_heads, qk_norm=True, layer_scale=True)
            for _ in range(trunk.num_hidden_layers)
        )
        self.point_decoder = HeadDecoder(2 * trunk.hidden_size, heads, heads.hidden_size)
        self.point_head = PixelHead(heads.hidden_size, 3, patch)
        self.conf_decoder = HeadDecoder(2 * trunk.hidden_size, heads, heads.hidden_size)
        self.conf_head = PixelHead(heads.hidden_size, 1, patch)
        self.camera_decoder = HeadDecoder(2 * trunk.hidden_size, heads, heads.camera_size)
        self.camera_head = CameraHead(heads.camera_size)
        self.register_buffer("image_mean", rearrange(torch.tensor(config.encoder.image_mean), "c -> 1 c 1 1"))
        self.register_buffer("image_std", rearrange(torch.tensor(config.encoder.image_std), "c -> 1 c 1 1"))

    def forward(self, images: Tensor) -> Reconstruction:
        """[B, N, 3, H, W] floats in [0, 1] -> `Reconstruction`.

        Raises ValueError for another shape or dtype or a side that is no multiple of the patch size, and OutOfLimits
        (a ValueError) for an image of more than MAX_PIXELS. Time and memory of attention grow with (N * P)².
        """
        rows, columns = check_images(images, self.config.encoder.patch_size)
        return self.reconstruct(self.encode(images), rows, columns)

    def reconstruct(self, patches: Tensor, rows: int, columns: int) -> Reconstruction:
        """Patch tokens [B, N, P, D] of `encode`, P = rows * columns -> `Reconstruction`."""
        hidden, angles = self.fuse(patches, rows, columns)
        local_points = unproject(self.point_head(self.point_decoder(hidden, angles)[:, REGISTERS:], rows, columns))
        confidence = self.conf_head(self.conf_decoder(hidden, angles)[:, REGISTERS:], rows, columns)
        poses = self.camera_head(self.camera_decoder(hidden, angles)[:, REGISTERS:])
        points = einsum(poses[:, :3, :3], local_points, "f i j, f h w j -> f h w i") + poses[:, None, None, :3, 3]
        scene = {"b": len(patches)}
        return Reconstruction(
            points=rearrange(points, "(b n) h w c -> b n h w c", **scene),
            local_points=rearrange(local_points, "(b n) h w c -> b n h w c", **scene),
            confidence=rearrange(confidence, "(b n) h w 1 -> b n h w", **scene),
            camera_poses=rearrange(poses, "(b n) i j -> b n i j", **scene),
        )

    def encode(self, images: Tensor) -> Tensor:
        """[B, N, 3, H, W] -> patch tokens [B, N, P, D]."""
        flat = rearrange(images.to(self.image_mean.device), "b n c h w -> (b n) c h w").float()
        normalised = (flat - self.image_mean) / self.image_std
        tokens = self.encoder.forward_features(normalised.to(self.encoder.dtype))
        return rearrange(tokens, "(b n) p d -> b n p d", b=len(images))

    def fuse(self, patches: Tensor, rows: int, columns: int) -> tuple[Tensor, Angles]:
        """[B, N, P, D] -> the outputs of the last two blocks side by side [(B N), L, 2D], and the angles of L."""
        b, n, _, d = patches.shape
        registers = repeat(self.register_token, "1 1 r d -> b n r d", b=b, n=n)
        x = torch.cat([registers, patches], dim=2)
        head_size = d // self.config.decoder.num_attention_heads
        cos, sin = inside = axial_angles(patch_positions(rows, columns, REGISTERS, patches.device), head_size)
        # An image has no index: over all images, tokens at one place of two images get the same angle.
        across = repeat(cos, "l a e -> (n l) a e", n=n), repeat(sin, "l a e -> (n l) a e", n=n)
        turns = [("(b n) l d", inside), ("b (n l) d", across)]
        last: list[Tensor] = []
        for index, block in enumerate(self.decoder):
            scope, angles = turns[index % 2]
            x = rearrange(block(rearrange(x, f"b n l d -> {scope}"), angles), f"{scope} -> b n l d", b=b, n=n)
            last = [*last[-1:], x]
        return rearrange(torch.cat(last, dim=-1), "b n l d -> (b n) l d"), inside


class HeadDecoder(nn.Module):
    """[(B N), L, 2D] -> [(B N), L, out]: blocks with RoPE inside each image, without q/k norm and LayerScale."""

    def __init__(self, width_in: int, config: HeadsConfig, width_out: int) -> None:
        super().__init__()
        self.projects = nn.Linear(width_in, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config.hidden_size, config.num_attention_heads) for _ in range(config.num_hidden_layers)
        )
        self.linear_out = nn.Linear(config.hidden_size, width_out)

    def forward(self, hidden: Tensor, angles: Angles) -> Tensor:
        x = self.projects(hidden)
        for block in self.blocks:
            x = block(x, angles)
        return self.linear_out(x)


class PixelHead(nn.Module):
    """[F, P, D] -> float32 [F, H, W, channels]: every token paints its own patch."""

    def __init__(self, width: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(width, channels * patch_size**2)

    def forward(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        pixels = linear_float32(self.proj, patches)
        side = self.patch_size
        return rearrange(pixels, "f (h w) (c p q) -> f (h p) (w q) c", h=rows, w=columns, p=side, q=side)


class ResidualMlp(nn.Module):
    """x plus three layers of x. The release calls them convolutions; they are 1 x 1, so linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.res_conv2(self.res_conv1(x).relu()).relu()
        return x + self.res_conv3(inner).relu()


class CameraHead(nn.Module):
    """Patch tokens [F, P, C] -> camera-to-world poses, float32 [F, 4, 4]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList([ResidualMlp(width), ResidualMlp(width)])
        self.more_mlps = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, patches: Tensor) -> Tensor:
        for block in self.res_conv:
            patches = block(patches)
        feature = self.more_mlps(reduce(patches, "f p c -> f c", "mean"))
        matrix = rearrange(linear_float32(self.fc_rot, feature), "f (i j) -> f i j", i=3)
        pose = repeat(torch.eye(4, device=feature.device), "i j -> f i j", f=len(feature)).clone()
        pose[:, :3, :3] = nearest_rotation(matrix)
        pose[:, :3, 3] = linear_float32(self.fc_t, feature)
        return pose


def linear_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in float32, whatever its dtype or autocast: bfloat16 logarithms of depth would leave steps of 1 % in
    the points."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), layer.weight.float(), layer.bias.float())


def unproject(raw: Tensor) -> Tensor:
    """(x/z, y/z, log z) -> (x, y, z), on the last axis; so every point lies before its camera."""
    z = raw[..., 2:].exp()
    return torch.cat([raw[..., :2] * z, z], dim=-1)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """[..., 3, 3] -> the rotation (determinant +1) nearest to the matrix with rows of length 1 (arXiv 2006.14616)."""
    with torch.autocast(matrix.device.type, enabled=False):
        u, _, v = torch.linalg.svd(F.normalize(matrix.float(), dim=-1))
        handedness = torch.ones_like(matrix[..., 0], dtype=torch.float32)
        handedness[..., 2] = torch.linalg.det(u @ v)
        return u * handedness[..., None, :] @ v


def check_images(images: Tensor, patch_size: int) -> tuple[int, int]:
    """The patch grid (rows, columns) of images that `Pi3` accepts; ValueError for all others."""
    if images.ndim != 5 or images.shape[2] != 3 or not images.shape[0] * images.shape[1]:
        raise ValueError(f"images: expected [B >= 1, N >= 1, 3, H, W], got {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images: expected floats in [0, 1], got {images.dtype}")
    height, width = images.shape[3:]
    if height * width > MAX_PIXELS:
        message = f"an image of {height} x {width} = {height * width} px is larger than {MAX_PIXELS} px"
        raise OutOfLimits(message, field="images", value=height * width, limit=MAX_PIXELS)
    return patch_grid(height, width, patch_size)
