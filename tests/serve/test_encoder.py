"""The encoder stage on a small random checkpoint, asking the real frames stage in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from models.encoder import ImageEncoder
from serve.encoder import Encoder, Features
from serve.errors import UnknownVideo
from serve.frames import Frames
from serve.keys import ClipKey
from serve.settings import EncoderStage, FramesStage, Store
from serve.tensors import unpack
from serve.trace import Made
from tests.serve.direct import Handle, occupied, put_clip, until

T = TypeVar("T")
# Of the largest magnitude: a larger batch sums float32 (eps 1.2e-7) in another order, in four blocks.
FLOAT32 = 1e-5


@pytest.fixture
def frames(tmp_path: Path) -> Frames:
    return Frames(FramesStage(), Store(url=str(tmp_path)))


@pytest.fixture
def clips(tmp_path: Path) -> list[ClipKey]:
    """Three of one size, the second with twice the frames, and one of another size."""
    return [
        put_clip(tmp_path, fps=10),
        put_clip(tmp_path, fps=12, count=8),
        put_clip(tmp_path, fps=15),
        put_clip(tmp_path, fps=10, size=(84, 112)),
    ]


def encoder(small: Path, frames: Frames, **settings: Any) -> Encoder:
    return Encoder(EncoderStage(threads=1, **settings), str(small), Handle(frames))


def passes(encoder: Encoder) -> list[int]:
    """Grows by the number of frames of each forward pass of the network."""
    found: list[int] = []

    def note(_: ImageEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(len(inputs[0]))

    encoder._encoder.register_forward_pre_hook(note)
    return found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(120):
            return await coroutine

    return asyncio.run(bounded())


async def together(encoder: Encoder, keys: Sequence[ClipKey]) -> list[Made[Features]]:
    """Asked while the worker is busy, so that all wait when it is free."""
    async with occupied(encoder._worker):
        tasks = [asyncio.create_task(encoder.encode(key)) for key in keys]
        await until(lambda: len(encoder._batches._waiting) == len(keys))
    return await asyncio.gather(*tasks)


def test_clips_of_one_size_share_a_pass_and_do_not_change_each_other(
    small: Path, frames: Frames, clips: list[ClipKey]
) -> None:
    stage = encoder(small, frames)
    counted = passes(stage)
    batched = run(together(stage, clips))
    # Clips come in the order in which they happen to be decoded.
    assert sorted(counted) == [4, 4 + 8 + 4]
    alone = encoder(small, frames)
    for key, made in zip(clips, batched, strict=True):
        expected = run(alone.encode(key)).value
        assert made.value.grid == expected.grid
        ours, theirs = unpack(made.value.tokens), unpack(expected.tokens)
        assert (ours - theirs).abs().max() <= FLOAT32 * theirs.abs().max()
        assert made.trace["encoder"].seconds > 0


def test_features_of_a_batch_do_not_keep_each_other_in_memory(
    small: Path, frames: Frames, clips: list[ClipKey]
) -> None:
    for made in run(together(encoder(small, frames), clips)):
        tokens = unpack(made.value.tokens)
        assert tokens.untyped_storage().nbytes() == made.value.tokens.nbytes


def test_a_pass_is_bounded_in_patches(small: Path, frames: Frames, clips: list[ClipKey]) -> None:
    """112 x 84 px are 48 patches: 4 frames have 192, and 8 have 384."""
    stage = encoder(small, frames, batch_patches=192 + 384)
    counted = passes(stage)
    run(together(stage, clips))
    assert (sum(counted), max(counted) <= 4 + 8, len(counted) < len(clips)) == (20, True, True)
    narrow = encoder(small, frames, batch_patches=1)
    counted = passes(narrow)
    run(together(narrow, clips))
    assert sorted(counted) == [4, 4, 4, 8]


def test_a_clip_that_cannot_be_had_fails_alone(small: Path, frames: Frames, clips: list[ClipKey]) -> None:
    stage = encoder(small, frames)
    unknown = ClipKey("vid_" + "0" * 64, clips[0].sampling)

    async def scenario() -> list[Made[Features] | BaseException]:
        return await asyncio.gather(*(stage.encode(key) for key in (clips[0], unknown)), return_exceptions=True)

    good, bad = run(scenario())
    assert isinstance(good, Made)
    assert isinstance(bad, UnknownVideo)


def test_flush_forgets_one_video_or_all_and_stats_tell(small: Path, frames: Frames, clips: list[ClipKey]) -> None:
    async def scenario() -> None:
        stage = encoder(small, frames)
        for key in clips[:3]:
            await stage.encode(key)
        assert (stage.stats()["features"].entries, stage.stats()["features"].misses) == (3, 3)
        assert frames.stats()["frames"].entries == 3
        await stage.flush(clips[0].video)
        await frames.flush(clips[0].video)
        assert (stage.stats()["features"].entries, frames.stats()["frames"].entries) == (2, 2)
        assert (await stage.encode(clips[1])).trace["encoder"].cache == "hit"
        assert (await stage.encode(clips[0])).trace["encoder"].cache == "miss"
        await stage.flush()
        await frames.flush()
        assert (stage.stats()["features"].bytes, frames.stats()["frames"].bytes) == (0, 0)

    run(scenario())


def test_features_under_way_when_their_video_is_flushed_arrive_but_are_not_kept(
    small: Path, frames: Frames, clips: list[ClipKey]
) -> None:
    async def scenario() -> None:
        stage = encoder(small, frames)
        async with occupied(stage._worker):
            tasks = [asyncio.create_task(stage.encode(key)) for key in clips[:2]]
            await until(lambda: len(stage._batches._waiting) == 2)
            await stage.flush(clips[0].video)
        flushed, kept = await asyncio.gather(*tasks)
        assert unpack(flushed.value.tokens).isfinite().all()
        assert stage.stats()["features"].entries == 1
        assert (await stage.encode(clips[1])).trace["encoder"].cache == "hit"
        assert (await stage.encode(clips[0])).trace["encoder"].cache == "miss"
        assert kept.value.tokens.shape[0] == 8

    run(scenario())
