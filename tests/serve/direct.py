"""Stages in one process: what a stage is given in place of a Ray Serve handle, and the other stage's code behind it."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from models.video import Sampling
from serve.keys import ClipKey
from serve.settings import Store
from serve.store import VideoStore
from serve.trace import Stopwatch
from serve.worker import TorchWorker
from tests.clips import make_clip


class Method:
    """`remote` starts the call, as a handle's method does. `asked` has the arguments of every call."""

    def __init__(self, stage: Any, name: str) -> None:
        self.deployment_name = type(stage).__name__.lower()
        self.asked: list[tuple[Any, ...]] = []
        self._method = getattr(stage, name)

    def options(self, session_id: str) -> Method:
        """There is one replica, which has every clip."""
        return self

    def remote(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        self.asked.append(args)
        return asyncio.ensure_future(self._method(*args, **kwargs))


class Handle:
    """Has the methods of `stage`, each as a `Method`."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._methods: dict[str, Method] = {}

    def __getattr__(self, name: str) -> Method:
        if name not in self._methods:
            self._methods[name] = Method(self._stage, name)
        return self._methods[name]


def put_clip(root: Path, fps: int = 10, size: tuple[int, int] = (112, 84), count: int = 4) -> ClipKey:
    """A second of video in the store at `root`, always the same for the same arguments, as a clip of `count` frames."""
    video = VideoStore.of(Store(url=str(root))).put(io.BytesIO(make_clip(seconds=1.0, fps=fps, size=size)))
    return ClipKey(video, Sampling(count=count).key())


async def until(condition: Callable[[], bool]) -> None:
    """Fails after a minute."""
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


@asynccontextmanager
async def occupied(worker: TorchWorker) -> AsyncIterator[None]:
    """The worker does something else in this block, and what is asked of it waits."""
    started, over = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        over.wait(60)

    task = asyncio.create_task(worker.run(Stopwatch(), work))
    try:
        await asyncio.to_thread(started.wait, 60)
        yield
    finally:
        over.set()
        await task
