"""The frames stage: a clip's key in, its uint8 frames and their real presentation times out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models import video
from models.video import Clip, Sampling, VideoFacts
from serve.cache import CacheStats
from serve.keys import ClipKey, prefix_of
from serve.messages import Report
from serve.settings import FramesStage, Store
from serve.store import open_store
from serve.trace import Made, Stopwatch, TracedCache


class Frames:
    """Decodes in threads (FFmpeg releases the interpreter lock), never in the event loop."""

    def __init__(self, settings: FramesStage, store: Store) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._asked = 0  # videos that are being decoded, or wait for a thread
        self._store = open_store(store)
        self._self_test()
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="frames")
        self._clips: TracedCache[Clip] = TracedCache("frames", settings.cache_bytes, lambda clip: clip.frames.nbytes)

    async def get(self, key: ClipKey) -> Made[Clip]:
        """The sampled frames. UnknownVideo, or what `models.video.read` refuses."""

        async def decode(watch: Stopwatch) -> Made[Clip]:
            self._asked += 1
            try:
                return Made(await asyncio.get_running_loop().run_in_executor(self._threads, self._read, key, watch))
            finally:
                self._asked -= 1

        return await self._clips.get(str(key), decode)

    async def probe(self, video_id: str) -> VideoFacts:
        """Facts of a stored video, from its container; refuses what `get` would refuse before decoding."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._probe, video_id)

    async def flush(self, video: str | None = None) -> None:
        """Forgets every clip, or those of one video."""
        self._clips.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"frames": self._clips.stats}

    def report(self) -> Report:
        return Report(
            self.stats(), max(0, self._asked - self._settings.threads), min(self._asked, self._settings.threads)
        )

    def ready(self) -> bool:
        return True

    def _self_test(self) -> None:
        """Resizes a black frame: it imports torch, a second that the first request should not pay."""
        if video.resized(np.zeros((56, 56, 3), np.uint8), 28, 28).shape != (28, 28, 3):
            raise RuntimeError("the frames' self-test resized a frame to a wrong size")

    def _read(self, key: ClipKey, watch: Stopwatch) -> Clip:
        with watch.running(), self._store.open(key.video) as file:
            return video.read(file, Sampling.parse(key.sampling), self._limits)

    def _probe(self, video_id: str) -> VideoFacts:
        with self._store.open(video_id) as file:
            return video.probe(file, self._limits)
