"""The encoder stage: a clip's key in, its geometry features out (π³'s image encoder over every frame)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ray.serve.handle import DeploymentHandle

from models import checkpoint
from models.rope import Grid
from models.video import Clip
from models.vlm import clip_frames, clip_grid
from serve.calls import call
from serve.keys import ClipKey
from serve.settings import ModelStage
from serve.tensors import PackedTensor, pack
from serve.trace import Made, Stopwatch, TracedCache
from serve.worker import TorchWorker


@dataclass(frozen=True)
class Features:
    """Patch tokens [F, P, C] of a clip and its grid. Travels through Ray's object store."""

    tokens: PackedTensor
    grid: Grid


class Encoder:
    def __init__(self, settings: ModelStage, location: str, frames: DeploymentHandle) -> None:
        self._frames = frames
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        layout = checkpoint.open_layout(location)
        self._encoder = checkpoint.load_encoder(layout, settings.device, self._worker.dtype)
        self._features: TracedCache[Features] = TracedCache("encoder", settings.cache_bytes, lambda f: f.tokens.nbytes)
        self._self_test()

    async def encode(self, key: ClipKey) -> Made[Features]:
        """The clip's features, asking the frames stage only when they are not cached."""

        async def compute(watch: Stopwatch) -> Made[Features]:
            clip = await call(self._frames.get, key)
            return Made(await self._worker.run(watch, self._encode, clip.value), clip.trace)

        return await self._features.get(str(key), compute)

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    def _encode(self, clip: Clip) -> Features:
        return Features(pack(self._encoder(clip_frames(clip))), clip_grid(clip))

    def _self_test(self) -> None:
        """One black frame pair: a replica that cannot compute never becomes ready."""
        side = 2 * self._encoder.config.patch_size
        with torch.inference_mode():
            features = self._encoder(torch.zeros(2, side, side, 3, dtype=torch.uint8))
        if not features.isfinite().all():
            raise RuntimeError("the encoder's self-test gave non-finite features")
