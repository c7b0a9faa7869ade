"""The frames stage: what it gives is what `models.video` gives, decoded elsewhere."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import video
from models.errors import NotAVideo, Undecodable
from models.video import Sampling
from serve.errors import UnknownVideo
from serve.frames import Frames
from serve.keys import ClipKey
from serve.messages import Report
from serve.settings import FramesStage, Sandbox, Store
from serve.store import VideoStore
from tests.clips import make_clip
from tests.processes import alive, descendants

SAMPLING = Sampling(4)
CLIP = make_clip(size=(320, 180), seconds=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    return VideoStore(str(tmp_path_factory.mktemp("videos")), 10**9, 3600)


@pytest.fixture(scope="module")
def frames(store: VideoStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frames]:
    """One stage for all tests; in each its cache is empty."""
    stage = Frames(FramesStage(threads=1), Store(url=store._root))
    yield stage
    stage.close()


def key(store: VideoStore, data: bytes) -> ClipKey:
    return ClipKey(store.put(io.BytesIO(data)), SAMPLING.key())


def test_a_clip_is_decoded_elsewhere_once_and_is_the_same(frames: Frames, store: VideoStore) -> None:
    async def twice() -> None:
        await frames.flush()
        first = await frames.get(key(store, CLIP))
        again = await frames.get(key(store, CLIP))
        here = video.read(CLIP, SAMPLING)
        assert np.array_equal(first.value.frames, here.frames)
        assert np.array_equal(first.value.times, here.times)
        assert first.value.facts == here.facts == await frames.probe(key(store, CLIP).video)
        assert again.value is first.value
        assert (first.trace["frames"].cache, again.trace["frames"].cache) == ("miss", "hit")
        assert first.trace["frames"].seconds > 0 == again.trace["frames"].seconds

    asyncio.run(twice())


def test_what_is_refused_is_refused_with_the_videos_own_errors(frames: Frames, store: VideoStore) -> None:
    with pytest.raises(NotAVideo):
        asyncio.run(frames.get(key(store, b"no video")))
    with pytest.raises(Undecodable, match="cut off"):
        asyncio.run(frames.get(key(store, CLIP[:-500])))
    with pytest.raises(UnknownVideo):
        asyncio.run(frames.get(replace(key(store, CLIP), video="vid_" + "0" * 64)))
    frames.check_health()


def test_the_report_tells_what_waits_and_what_is_decoded(frames: Frames, store: VideoStore) -> None:
    async def three() -> Report:
        await frames.flush()
        keys = [key(store, CLIP + bytes([number]) * 20) for number in range(3)]
        tasks = [asyncio.create_task(frames.get(each)) for each in keys]
        await asyncio.sleep(0.01)
        report = frames.report()
        await asyncio.gather(*tasks)
        return report

    during = asyncio.run(three())
    assert (during.waiting, during.running) == (2, 1)
    after = frames.report()
    assert (after.waiting, after.running, after.caches["frames"].entries) == (0, 0, 3)


def test_a_stage_that_is_closed_leaves_no_process(tmp_path: Path) -> None:
    before = set(descendants())
    stage = Frames(FramesStage(threads=2, sandbox=Sandbox(videos_per_child=1)), Store(url=str(tmp_path)))
    started = set(descendants()) - before
    assert len(started) == 4  # the zygote, two that may work, one that stands ready
    stage.close()
    assert not any(alive(pid) for pid in started - {os.getpid()})
