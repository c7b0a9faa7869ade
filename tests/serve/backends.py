"""What stands behind the routes in tests of the edge: stages that hang, fail or speak on demand, with no model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
from prometheus_client import Metric

from models.layout import recognise
from models.video import VideoFacts
from serve.api import create_app
from serve.cache import CacheStats
from serve.errors import NotReady, StageLost
from serve.messages import Ask, Likely, Reply, Report, Said, Seen
from serve.settings import Ingress
from serve.store import VideoStore
from serve.trace import Made, Work

VIDEO = "vid_" + "0" * 64


FACTS = VideoFacts(container="mp4", codec="h264", width=64, height=48, duration=2.0, fps=10.0, frames=20, rotation=0)
LIKELY = (Likely(b"It ", -0.1, ((b"It ", -0.1), (b"\xc3", -2.5))), Likely(b"grows.", -0.2, ()))
REPLY = Reply("It grows.", None, Seen(FACTS, np.linspace(0, 2, 4)), 8, 32, 60, 3, tokens=LIKELY)


class BrokenBackend:
    """Never answers, fails to probe, is not ready."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.flushed: list[str | None] = []

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        """Two words, then silence."""
        try:
            yield Said("It ")
            yield Said("grows.")
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def flush(self, video: str | None = None) -> None:
        self.flushed.append(video)

    async def edges(self) -> Sequence[Sequence[Metric]]:
        raise StageLost("ingress lost its replica 3 times")

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        raise StageLost("decoder lost its replica 3 times")

    async def answer(self, ask: Ask) -> Made[Reply]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("unreachable")

    async def probe(self, video: str) -> VideoFacts:
        raise StageLost("frames lost its replica 3 times")

    async def ready(self) -> Sequence[str]:
        raise NotReady("not ready: decoder", field="stages", value="decoder")


class SpeakingBackend(BrokenBackend):
    """Says two words and answers; or fails before the first word, or after it."""

    def __init__(self, before: Exception | None = None, after: Exception | None = None) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.asks: list[Ask] = []

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        self.asks.append(ask)
        if self.before is not None:
            raise self.before
        yield Said("It ")
        if self.after is not None:
            raise self.after
        yield Said("grows.")
        yield Made(
            REPLY, {"decoder": Work(0.5, "miss", (time.time(), time.time() + 0.5)), "selector": Work(0.0, "hit")}
        )

    async def answer(self, ask: Ask) -> Made[Reply]:
        async for item in self.stream(ask):
            if isinstance(item, Made):
                return item
        raise AssertionError("unreachable")

    async def probe(self, video: str) -> VideoFacts:
        return FACTS

    async def reports(self) -> Mapping[str, Sequence[Report]]:
        one, two = (CacheStats(hits, 2, 0, 0, 1, size, 100) for hits, size in ((3, 60), (4, 70)))
        return {"decoder": [Report({"prefixes": one}, 1, 2), Report({"prefixes": two}, 0, 5)], "selector": []}


def client(backend: BrokenBackend, store: Path, checkpoint: str = "models/tiny") -> httpx.AsyncClient:
    settings = Ingress(deadline_seconds=0.2, max_body_bytes=100_000)
    app = create_app(backend, VideoStore(str(store), 1_000_000, 3600), recognise(Path(checkpoint)).model, settings)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://localhost"
    )
