"""The reconstructor stage: a clip's key in, its cameras and points out (the whole of π³, all frames together)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from ray.serve.handle import DeploymentHandle
from torch import Tensor, nn

from models import checkpoint
from models.errors import OutOfLimits
from models.pi3 import MAX_PIXELS
from models.scene import scene_of
from models.video import Clip
from models.vlm import clip_frames
from serve.batch import Batcher
from serve.cache import CacheStats
from serve.calls import call
from serve.keys import ClipKey, prefix_of
from serve.messages import Report, Scene, Seen
from serve.scaling import WORK
from serve.scene_schemas import MAX_POINTS
from serve.settings import ReconstructorStage
from serve.trace import Made, Stopwatch, TracedCache
from serve.worker import TorchWorker


@dataclass(eq=False)
class _Job:
    clip: Clip
    left: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more."""


class _NobodyWaits(Exception):
    """Ends a pass; whoever might have been told has left."""


class Reconstructor:
    """One clip at a time: its frames fill the device by themselves. What is kept of it are the cameras and as many
    points as anybody may ask for, in an order of which every prefix is an even sample; so a clip is computed once."""

    def __init__(self, settings: ReconstructorStage, location: str, frames: DeploymentHandle) -> None:
        self._frames = frames
        self._settings = settings
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        self._pi3 = checkpoint.load_pi3(Path(location), settings.device, self._worker.dtype)
        self._job: _Job | None = None  # that the worker is at
        for block in self._pi3.modules():
            if isinstance(block, nn.ModuleList):
                for part in block:
                    part.register_forward_pre_hook(self._leave_if_alone)
        self._jobs: Batcher[_Job, Scene] = Batcher(self._worker, self._reconstruct, 1, cost=self._patches)
        self._scenes: TracedCache[Scene] = TracedCache("reconstructor", settings.cache_bytes, lambda s: s.nbytes)
        self._self_test()

    async def reconstruct(self, key: ClipKey, points: int) -> Made[Scene]:
        """The clip's cameras and at most `points` of its points, by frame; asks the frames stage only when the scene is
        not cached."""

        async def compute(watch: Stopwatch) -> Made[Scene]:
            clip: Made[Clip] = await call(self._frames.get, key, clip=key)
            self._check(clip.value)
            job = _Job(clip.value)
            try:
                return Made(await self._jobs.run(watch, job), clip.trace)
            finally:
                job.left.set()

        made = await self._scenes.get(str(key), compute)
        return Made(await asyncio.to_thread(made.value.sample, points), made.trace)

    async def flush(self, video: str | None = None) -> None:
        """Forgets the scenes of every clip, or of one video's."""
        self._scenes.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"scenes": self._scenes.stats}

    def report(self) -> Report:
        return self._jobs.report(self.stats())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks: see `serve.scaling`."""
        return {WORK: self._jobs.cost}

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    def _check(self, clip: Clip) -> None:
        height, width = clip.frames.shape[1:3]
        if height * width > MAX_PIXELS:
            message = f"frames of {width}x{height} px; the reconstructor takes {MAX_PIXELS} px at most"
            raise OutOfLimits(message, field="video", value=height * width, limit=MAX_PIXELS)

    def _reconstruct(self, jobs: Sequence[_Job]) -> list[Scene]:
        """`jobs` is one, by its cost."""
        scenes = []
        for self._job in jobs:
            try:
                scenes.append(self._scene(self._job.clip))
            finally:
                self._job = None
        return scenes

    def _scene(self, clip: Clip) -> Scene:
        frames = clip_frames(clip)[: clip.sampled]  # those beyond only repeat the last one
        side = self._pi3.config.encoder.patch_size
        height, width = frames.shape[1:3]
        tokens = rearrange(self._pi3.encoder(frames), "n p d -> 1 n p d")
        found = self._pi3.reconstruct(tokens, height // side, width // side)
        limits = self._settings
        scene = scene_of(found, frames, MAX_POINTS, limits.min_confidence, limits.max_step)
        return Scene(
            seen=Seen(clip.facts, clip.times[: clip.sampled]),
            size=(width, height),
            poses=_array(scene.poses),
            confidence=_array(scene.confidence),
            positions=_array(scene.points),
            colors=_array(scene.colors),
            frames=_array(scene.frames).astype("uint16"),
            certainty=_array((255 * scene.certainty).round().to(torch.uint8)),
            good=scene.good,
        )

    def _leave_if_alone(self, *_: Any) -> None:
        """Before each block: a pass over a long clip takes minutes on a CPU, and its client may have left."""
        if self._job is not None and self._job.left.is_set():
            raise _NobodyWaits

    def _patches(self, job: _Job) -> int:
        frames, height, width, _ = job.clip.frames.shape
        return frames * height * width // self._pi3.config.encoder.patch_size**2

    def _self_test(self) -> None:
        """One black frame pair: a replica that cannot compute never becomes ready."""
        side = 2 * self._pi3.config.encoder.patch_size
        with torch.inference_mode():
            found = self._pi3(torch.zeros(1, 2, 3, side, side))
        if not (found.points.isfinite().all() and found.camera_poses.isfinite().all()):
            raise RuntimeError("the reconstructor's self-test gave non-finite points or cameras")


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
