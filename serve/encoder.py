"""The encoder stage: a clip's key in, its geometry features out (π³'s image encoder over every frame)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ray.serve.handle import DeploymentHandle

from models import checkpoint
from models.rope import Grid
from models.video import Clip
from models.vlm import clip_frames, clip_grid
from serve.batch import Batcher
from serve.cache import CacheStats
from serve.calls import call
from serve.keys import ClipKey, prefix_of
from serve.messages import Report
from serve.scaling import WORK
from serve.settings import EncoderStage
from serve.tensors import PackedTensor, pack
from serve.trace import Made, Stopwatch, TracedCache
from serve.worker import TorchWorker


@dataclass(frozen=True)
class Features:
    """Patch tokens [F, P, C] of a clip and its grid. Travels through Ray's object store."""

    tokens: PackedTensor
    grid: Grid


class Encoder:
    """Clips that come while it is busy, and have frames of one size, go through the network together."""

    def __init__(self, settings: EncoderStage, location: str, frames: DeploymentHandle) -> None:
        self._frames = frames
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        layout = checkpoint.open_layout(location)
        checkpoint.refuse_damaged(layout, "encoder.safetensors")
        self._encoder = checkpoint.load_encoder(layout, settings.device, self._worker.dtype)
        self._batches: Batcher[Clip, Features] = Batcher(
            self._worker,
            self._encode,
            settings.batch_patches,
            cost=self._patches,
            kind=lambda clip: clip.frames.shape[1:],
            linger_seconds=settings.linger_seconds,
        )
        self._features: TracedCache[Features] = TracedCache("encoder", settings.cache_bytes, lambda f: f.tokens.nbytes)
        self._self_test()

    async def encode(self, key: ClipKey) -> Made[Features]:
        """The clip's features, asking the frames stage only when they are not cached."""

        async def compute(watch: Stopwatch) -> Made[Features]:
            clip: Made[Clip] = await call(self._frames.get, key, clip=key)
            return Made(await self._batches.run(watch, clip.value), clip.trace)

        return await self._features.get(str(key), compute)

    async def flush(self, video: str | None = None) -> None:
        """Forgets the features of every clip, or of one video's."""
        self._features.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"features": self._features.stats}

    def report(self) -> Report:
        return self._batches.report(self.stats())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks: see `serve.scaling`."""
        return {WORK: self._batches.cost}

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    def _encode(self, clips: Sequence[Clip]) -> list[Features]:
        """Of clips with frames of one size."""
        together = self._encoder(torch.cat([clip_frames(clip) for clip in clips]))
        parts = together.split([len(clip.frames) for clip in clips])
        # Copied: a view that is kept would keep its whole batch.
        owned = [part.clone() for part in parts] if len(parts) > 1 else parts
        return [Features(pack(part), clip_grid(clip)) for part, clip in zip(owned, clips, strict=True)]

    def _patches(self, clip: Clip) -> int:
        frames, height, width, _ = clip.frames.shape
        return frames * height * width // self._encoder.config.patch_size**2

    def _self_test(self) -> None:
        """One black frame pair: a replica that cannot compute never becomes ready."""
        side = 2 * self._encoder.config.patch_size
        with torch.inference_mode():
            features = self._encoder(torch.zeros(2, side, side, 3, dtype=torch.uint8))
        if not features.isfinite().all():
            raise RuntimeError("the encoder's self-test gave non-finite features")
