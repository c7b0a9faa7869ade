"""The frames stage: a clip's key in, its uint8 frames and their real presentation times out."""

from __future__ import annotations

import asyncio

from models.video import Clip, Sampling, VideoFacts
from serve.cache import CacheStats
from serve.keys import ClipKey, prefix_of
from serve.messages import Report
from serve.sandbox.pool import Pool
from serve.scaling import WORK
from serve.settings import FramesStage, Store
from serve.store import VideoStore
from serve.trace import Made, Stopwatch, TracedCache


class Frames:
    """Decodes in sandboxed processes: this one never looks into a video."""

    def __init__(self, settings: FramesStage, store: Store) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._asked = 0  # videos that are being decoded, or wait for a process
        self._store = VideoStore.of(store)
        self._pool = Pool(settings.sandbox, settings.threads)
        self._clips: TracedCache[Clip] = TracedCache("frames", settings.cache_bytes, lambda clip: clip.frames.nbytes)

    async def get(self, key: ClipKey) -> Made[Clip]:
        """The sampled frames. UnknownVideo, or what `serve.sandbox.pool.Pool.read` refuses."""

        async def decode(watch: Stopwatch) -> Made[Clip]:
            self._asked += 1
            try:
                with await asyncio.to_thread(self._store.open, key.video) as file:
                    return Made(await self._pool.read(file, Sampling.parse(key.sampling), self._limits, watch))
            finally:
                self._asked -= 1

        return await self._clips.get(str(key), decode)

    async def probe(self, video_id: str) -> VideoFacts:
        """Facts of a stored video, from its container; refuses what `get` would refuse before decoding."""
        with await asyncio.to_thread(self._store.open, video_id) as file:
            return await self._pool.probe(file, self._limits)

    async def flush(self, video: str | None = None) -> None:
        """Forgets every clip, or those of one video."""
        self._clips.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"frames": self._clips.stats}

    def report(self) -> Report:
        running = min(self._asked, self._settings.threads)
        refused = dict(self._pool.refused)
        return Report(self.stats(), self._asked - running, running, work=float(self._asked), refused=refused)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks: see `serve.scaling`."""
        return {WORK: float(self._asked)}

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        """Ray asks; it replaces a replica that can start no process to decode in."""
        self._pool.check()

    def close(self) -> None:
        """Ends the processes. Those of a replica that Ray stops end with it."""
        self._pool.close()
