"""A scene without a model: cameras on a circle around a coloured sphere, as the reconstructor stage hands one over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np

from models.layout import recognise
from serve.access.claims import Claims
from serve.api import create_app
from serve.keys import ClipKey
from serve.messages import Scene, Seen
from serve.reconstructions import Reconstructing
from serve.settings import Ingress, ReconstructorStage, Store
from serve.store import VideoStore
from serve.trace import Made, Work
from tests.serve.backends import FACTS, SpeakingBackend

STAGE = ReconstructorStage(checkpoint="tests/golden/pi3", max_frames=8)


def sphere(frames: int = 4, points: int = 600) -> Scene:
    """Radius 1, in front of cameras that look at it from a distance of 3; always the same."""
    random = np.random.default_rng(0)
    spots = random.normal(size=(points, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    poses = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    for index in range(frames):
        angle = index * 2 * np.pi / 16
        cos, sin = np.cos(angle), np.sin(angle)
        poses[index, :3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        poses[index, :3, 3] = [-3 * sin, 0, 3 - 3 * cos]
    return Scene(
        seen=Seen(FACTS, np.linspace(0, 1.9, frames)),
        size=(56, 42),
        poses=poses,
        confidence=np.linspace(0.5, 0.9, frames, dtype=np.float32),
        positions=(spots + np.array([0, 0, 3])).astype(np.float32),
        colors=((spots + 1) * 127.5).astype(np.uint8),
        frames=random.integers(0, frames, points).astype(np.uint16),
        certainty=random.integers(100, 256, points).astype(np.uint8),
        good=10 * points,
    )


class Shaping(SpeakingBackend):
    """Has the sphere for every clip; waits for `go` first, when it is told to."""

    def __init__(self, waits: bool = False) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.waits = waits
        self.left = asyncio.Event()
        self.clips: list[ClipKey] = []

    async def reconstruct(self, clip: ClipKey, points: int) -> Made[Scene]:
        self.clips.append(clip)
        try:
            if self.waits:
                await self.go.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        trace = {"frames": Work(0.25, "miss"), "reconstructor": Work(1.5, "miss", (0.0, 1.5))}
        return Made(sphere().sample(points), trace)


def shaping_client(
    backend: Shaping, root: Path, settings: Ingress | None = None, *, stage: ReconstructorStage | None = STAGE
) -> httpx.AsyncClient:
    """Of an application with the stage, or with None without it."""
    settings = settings or Ingress(deadline_seconds=5, max_body_bytes=100_000)
    store = Store(url=str(root / "videos"), max_bytes=1_000_000)
    app = create_app(
        backend,
        VideoStore(store.absolute, store.max_bytes, store.max_age_seconds),
        recognise(Path("models/tiny")).model,
        settings,
        reconstructor=None if stage is None else Reconstructing(backend, stage),
        claims=Claims(store) if settings.access.keys_file else None,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")
