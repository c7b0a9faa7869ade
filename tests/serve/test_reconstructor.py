"""The reconstructor stage on the golden π³, asking the real frames stage in the same process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from models import checkpoint
from models.errors import OutOfLimits
from models.scene import scene_of
from models.video import Sampling, read
from models.vlm import clip_frames
from serve.errors import UnknownVideo
from serve.frames import Frames
from serve.keys import ClipKey
from serve.reconstructor import Reconstructor
from serve.settings import FramesStage, ReconstructorStage, Store
from tests.clips import make_clip
from tests.serve.direct import Handle, occupied, put_clip, until

T = TypeVar("T")
GOLDEN = Path("tests/golden/pi3")
# Random weights have no smooth surface: with the usual limit every pixel would lie at an edge.
ROUGH = 1000.0
# Of the largest magnitude: patches in groups, and normalised from bytes in one step, sum float32 in another order.
FLOAT32 = 1e-4


@pytest.fixture
def frames(tmp_path: Path) -> Frames:
    return Frames(FramesStage(), Store(url=str(tmp_path)))


def reconstructor(frames: Any, **settings: Any) -> Reconstructor:
    stage = ReconstructorStage(**{"checkpoint": str(GOLDEN), "threads": 1, "max_step": ROUGH, **settings})
    return Reconstructor(stage, str(GOLDEN), Handle(frames))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(240):
            return await coroutine

    return asyncio.run(bounded())


def test_a_clip_becomes_what_pi3_makes_of_its_frames(tmp_path: Path, frames: Frames) -> None:
    key = put_clip(tmp_path, count=3)  # padded to 4 for the language model, which is nothing to π³
    made = run(reconstructor(frames).reconstruct(key, 10_000))
    clip = read(make_clip(seconds=1.0, fps=10, size=(112, 84)), Sampling.parse(key.sampling))
    shown = clip_frames(clip)[:3]
    with torch.inference_mode():
        found = checkpoint.load_pi3(GOLDEN)(shown.permute(0, 3, 1, 2)[None].float() / 255)
    expected = scene_of(found, shown, 10_000, max_step=ROUGH)
    scene = made.value
    assert (scene.size, len(scene.poses), scene.seen.times.tolist()) == ((112, 84), 3, clip.times[:3].tolist())
    assert np.abs(scene.poses - expected.poses.numpy()).max() <= FLOAT32 * expected.poses.abs().max()
    assert np.abs(scene.confidence - expected.confidence.numpy()).max() < FLOAT32
    # A pixel whose probability is that of the limit may be in one and not in the other.
    assert abs(scene.good - expected.good) <= 3
    assert (np.diff(scene.frames.astype(int)) >= 0).all()
    assert [str(array.dtype) for array in (scene.positions, scene.colors, scene.frames)] == [
        "float32",
        "uint8",
        "uint16",
    ]
    assert scene.certainty.min() >= 25, "0.1 of 255"
    assert made.trace["reconstructor"].cache == made.trace["frames"].cache == "miss"
    assert made.trace["reconstructor"].seconds > 0


def test_a_clip_is_computed_once_however_many_points_are_asked_for(tmp_path: Path, frames: Frames) -> None:
    async def scenario() -> None:
        stage, key = reconstructor(frames), put_clip(tmp_path)
        first, second = await asyncio.gather(stage.reconstruct(key, 50), stage.reconstruct(key, 500))
        third = await stage.reconstruct(key, 0)
        assert [len(made.value.positions) for made in (first, second, third)] == [50, 500, 0]
        assert first.value.good == second.value.good
        assert {tuple(p) for p in first.value.positions.tolist()} <= {tuple(p) for p in second.value.positions.tolist()}
        assert third.trace == {"reconstructor": third.trace["reconstructor"]}
        assert third.trace["reconstructor"].cache == "hit"
        report = stage.report()
        assert (report.passes, report.items, report.work) == (1, 1, 0)
        assert report.caches["scenes"].bytes > 0
        await stage.flush(key.video)
        assert stage.stats()["scenes"].entries == 0
        assert (await stage.reconstruct(key, 50)).trace["reconstructor"].cache == "miss"

    run(scenario())


def test_a_pass_ends_when_nobody_waits_for_it_and_the_next_clip_goes_on(tmp_path: Path, frames: Frames) -> None:
    """The pass is held inside a block of the decoder until its only caller has left."""

    async def scenario() -> None:
        stage, key = reconstructor(frames), put_clip(tmp_path)
        inside, go = threading.Event(), threading.Event()
        blocks: list[int] = []

        def hold(*_: Any) -> None:
            blocks.append(1)
            inside.set()
            go.wait(60)

        hooks = [block.register_forward_hook(hold) for block in stage._pi3.decoder]
        task = asyncio.create_task(stage.reconstruct(key, 50))
        await asyncio.to_thread(inside.wait, 60)
        assert stage.report().running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await until(lambda: stage.report().running == 0)
        assert len(blocks) == 1, "the second block was not begun"
        for hook in hooks:
            hook.remove()
        assert len((await stage.reconstruct(key, 50)).value.positions) == 50

    run(scenario())


def test_the_event_loop_is_free_while_a_clip_is_computed(tmp_path: Path, frames: Frames) -> None:
    async def scenario() -> None:
        stage, key = reconstructor(frames), put_clip(tmp_path)
        async with occupied(stage._worker):
            task = asyncio.create_task(stage.reconstruct(key, 50))
            await until(lambda: stage.report().waiting == 1)
            assert stage.record_autoscaling_stats() == {"work": 4 * 8 * 6}
            assert stage.ready()
        await task

    run(scenario())


def test_what_cannot_be_had_or_is_too_large_is_refused(tmp_path: Path, frames: Frames) -> None:
    stage = reconstructor(frames)
    with pytest.raises(UnknownVideo):
        run(stage.reconstruct(ClipKey("vid_" + "0" * 64, Sampling(count=2).key()), 50))
    key = put_clip(tmp_path, size=(616, 448))
    large = ClipKey(key.video, Sampling(count=1, max_pixels=300_000).key())
    with pytest.raises(OutOfLimits, match="616x448 px; the reconstructor takes 255000 px at most"):
        run(stage.reconstruct(large, 50))
