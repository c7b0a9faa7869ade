"""`tiny-pi3`: a small π³ learns from rendered scenes; its per-image encoder is the embedded checkpoint's 4D prior.

Two lessons at once: π³'s own (points, poses, confidence), and what every patch shows (`training.lessons.patches`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from models.checkpoint import load_encoder, load_pi3, open_layout
from models.config import ModelConfig
from models.encoder import patch_grid
from models.pi3 import FusionConfig, HeadsConfig, Pi3, Pi3Config
from models.vit import LayerScale
from training.data.glimpses import Glimpses, Growing, Kept
from training.data.scenes import CHUNK, GROUP, SceneStore
from training.lessons import patches, reconstruction
from training.loop.loop import LoopConfig
from training.loop.metrics import summed
from training.loop.task import Metrics, Outcome, Rate, Share
from training.runs.stores import prepared
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.config import SceneConfig

HELD_OUT = CHUNK  # scenes, the first ones: never trained on


@dataclass(frozen=True)
class Pi3RunConfig:
    """`groups` of 256 scenes, kept as files in `cache`; on a GPU in its memory (0.6 MB a scene), where there are
    `first` scenes at the start and `more` with every step. `scenes` of a step; every `rebuild`-th step teaches the
    whole π³, the others the encoder alone, which costs a third. `jitter`: strength of random colours and noise. `init`:
    what it starts from in place of random weights, a folder that this run has exported, or a checkpoint, which has no
    more than the encoder."""

    groups: int = 96
    first: int = 2048
    more: int = 32
    scenes: int = 6
    rebuild: int = 4
    lr: float = 2e-3
    jitter: float = 0.1
    init: str | None = None
    cache: str = "runs/cache"
    processes: int = 2
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig("runs/tiny-pi3", 12000, floor=0.01, precision="auto", evaluate_every=500)
    )


def tiny_pi3() -> Pi3Config:
    """Encoder of the embedded checkpoint, two blocks of fusion, heads of one block."""
    encoder = ModelConfig.tiny().encoder
    if encoder is None:
        raise ValueError("the tiny preset has no encoder")
    return Pi3Config(encoder, FusionConfig(encoder.hidden_size, 2, 4), HeadsConfig(encoder.hidden_size, 4, 1, 64))


class Pi3Lesson(nn.Module):
    """π³ and the probe that reads the patches' lesson off its encoder."""

    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        self.pi3 = Pi3(config)
        self.probe = patches.PatchProbe(config.encoder.hidden_size, len(KINDS), len(COLOURS))
        for module in self.modules():
            if isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, 0.5)


class Pi3Task:
    def __init__(self, config: Pi3RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.sizes = tiny_pi3()
        self.module = Pi3Lesson(self.sizes).to(device)
        if config.init is not None:
            self._start_from(config.init)
        self.glimpses = self._glimpses()

    def _glimpses(self) -> Glimpses:
        config, scene = self.config, SceneConfig()
        if self.device.type == "cuda":
            most = min(config.groups * GROUP * CHUNK, config.first + config.more * config.loop.steps)
            return Growing(scene, config.first, config.more, most, self.device, config.processes)
        store = SceneStore(Path(config.cache), scene, glimpses=True)
        prepared(store, config.groups, config.processes)
        return Kept(store, config.groups * GROUP, self.device)

    def _start_from(self, init: str) -> None:
        layout = open_layout(init)
        if layout.kind == "pi3":
            self.module.pi3.load_state_dict(load_pi3(Path(init), str(self.device)).state_dict())
        else:
            self.module.pi3.encoder.load_state_dict(load_encoder(layout, str(self.device)).state_dict())

    def rates(self) -> Sequence[Rate]:
        return [Rate("encoder", r"^pi3\.encoder", self.config.lr, 0.03), Rate("heads", "", self.config.lr, 0.03)]

    def batch(self, step: int, share: Share) -> tuple[int, Sequence[int]]:
        random = Random(f"{self.config.loop.seed}/{step}")
        there = self.glimpses.there(step)
        return step, share.of([random.randrange(HELD_OUT, there) for _ in range(self.config.scenes)])

    def loss(self, batch: tuple[int, Sequence[int]]) -> Outcome:
        step, scenes = batch
        loss, metrics = self._lesson(scenes, step % self.config.rebuild == 0, self.config.jitter)
        return Outcome(loss * len(scenes), len(scenes), metrics, [f"scene {scene}" for scene in scenes])

    def evaluate(self, step: int) -> Metrics:
        self.glimpses.there(0)
        starts = range(0, HELD_OUT, self.config.scenes)
        parts = (range(start, min(HELD_OUT, start + self.config.scenes)) for start in starts)
        return summed(self._lesson(part, True, 0.0)[1] for part in parts)

    def blocks(self) -> Sequence[nn.Module]:
        return [*self.module.pi3.encoder.blocks, *self.module.pi3.decoder]

    def export(self, directory: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """A π³ directory as `models.checkpoint.load_pi3` reads it."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name[4:]: tensor.contiguous() for name, tensor in state.items() if name.startswith("pi3.")}
        save_file(tensors, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(self.sizes.to_json(), indent=1) + "\n", encoding="utf-8")
        (directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _lesson(self, scenes: Sequence[int], whole: bool, jitter: float) -> tuple[Tensor, Metrics]:
        frames, objects, depth, focal, poses = self.glimpses.observed(scenes)
        pi3 = self.module.pi3
        images = rearrange(frames, "b k h w c -> b k c h w").float() / 255
        if jitter:  # other light, other colours, and the noise of a video file
            tinted = images * (1 + jitter * self._draw(images[:, :1, :, :1, :1]))
            images = (tinted + jitter / 4 * self._draw(images)).clamp(0, 1)
        truth = patches.labels(objects, len(KINDS), len(COLOURS))
        if not whole:
            return patches.lesson(self.module.probe, pi3.encode(images).flatten(0, 1), truth)
        features = pi3.encode(images)
        rows, columns = patch_grid(images.shape[-2], images.shape[-1], self.sizes.encoder.patch_size)
        found = pi3.reconstruct(features, rows, columns)
        loss, metrics = patches.lesson(self.module.probe, features.flatten(0, 1), truth)
        points, valid = _points(depth, focal)
        other, more = reconstruction.lesson(found, points, valid, poses)
        return loss + other, {**metrics, **more}

    @staticmethod
    def _draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, device=like.device)


def _points(depth: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Depth [B, K, H, W] and focal lengths [B] -> points [B, K, H, W, 3] in camera axes, and which there are."""
    height, width = depth.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=depth.device) + 0.5 - height / 2,
        torch.arange(width, device=depth.device) + 0.5 - width / 2,
        indexing="ij",
    )
    valid = torch.isfinite(depth)
    z = torch.where(valid, depth, 1.0)
    across = z / rearrange(focal, "b -> b 1 1 1")
    return torch.stack([columns * across, rows * across, z], dim=-1), valid
