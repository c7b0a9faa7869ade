"""The selector stage on a small random checkpoint, asking the real encoder and frames stages in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from models import checkpoint, video
from models.layout import recognise
from models.vlm import clip_frames, clip_grid
from serve.encoder import Encoder
from serve.frames import Frames
from serve.keys import ClipKey
from serve.selector import Selected, Selector
from serve.settings import EncoderStage, FramesStage, SelectorStage, Store
from serve.store import VideoStore
from serve.tensors import unpack
from serve.trace import Made
from tests.serve.direct import Handle, occupied, put_clip, until

T = TypeVar("T")
# Of the largest magnitude: padding a batch changes the order in which float32 (eps 1.2e-7) is summed.
FLOAT32 = 1e-5
FIRST, SECOND, THIRD = (5, 6, 7), (8, 9, 10, 11, 12), (13,)


@pytest.fixture
def encoder(small: Path, tmp_path: Path) -> Handle:
    frames = Frames(FramesStage(), Store(url=str(tmp_path)))
    return Handle(Encoder(EncoderStage(threads=1), str(small), Handle(frames)))


@pytest.fixture
def clips(tmp_path: Path) -> list[ClipKey]:
    """Of different sizes and lengths."""
    return [put_clip(tmp_path, size=(112, 84)), put_clip(tmp_path, size=(56, 84), count=8)]


def selector(small: Path, encoder: Handle, **settings: Any) -> Selector:
    return Selector(SelectorStage(threads=1, **settings), str(small), encoder)


def passes(stage: Selector) -> list[int]:
    """Grows by the number of questions of each pass through Q-Former 2."""
    found: list[int] = []

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(len(inputs[0]))

    stage._selector.q_former_2.register_forward_pre_hook(note)
    return found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(120):
            return await coroutine

    return asyncio.run(bounded())


Asked = tuple[ClipKey, tuple[int, ...], bool]


async def together(stage: Selector, asked: Sequence[Asked]) -> list[Made[Selected]]:
    """Asked while the worker is busy, with the clips' memories at hand, so that all wait when it is free."""
    for key in {key for key, _, _ in asked}:
        await stage.select(key, (1,))
    async with occupied(stage._worker):
        tasks = [asyncio.create_task(stage.select(*one)) for one in asked]
        await until(lambda: len(stage._batches._waiting) == len(asked))
    return await asyncio.gather(*tasks)


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= FLOAT32 * theirs.abs().max())


def test_tokens_are_those_of_the_plain_composition(
    small: Path, encoder: Handle, clips: list[ClipKey], tmp_path: Path
) -> None:
    made = run(selector(small, encoder).select(clips[1], FIRST, attention=True)).value
    layout = recognise(small)
    plain = checkpoint.load_selector(layout)
    with VideoStore.of(Store(url=str(tmp_path))).open(clips[1].video) as file:
        clip = video.read(file, video.Sampling.parse(clips[1].sampling), video.Limits())
    grid = clip_grid(clip)
    with torch.inference_mode():
        geometry = plain.remember(checkpoint.load_encoder(layout)(clip_frames(clip)), grid)
        text = checkpoint.load_embeddings(layout)[list(FIRST)].float()
        expected = plain.select([text], [plain.project(geometry, grid)], attention=True)
    assert near(unpack(made.tokens), expected.tokens[0])
    assert made.attention is not None
    assert expected.attention is not None
    assert made.attention.shape == (32, grid.times, grid.rows, grid.columns)
    assert near(unpack(made.attention).flatten(1), expected.attention[0])


def test_questions_about_any_clips_share_a_pass_and_do_not_change_each_other(
    small: Path, encoder: Handle, clips: list[ClipKey]
) -> None:
    stage, alone = selector(small, encoder), selector(small, encoder)
    asked = [(clips[0], FIRST, False), (clips[1], SECOND, True), (clips[0], THIRD, False), (clips[1], FIRST, False)]
    counted = passes(stage)
    batched = run(together(stage, asked))
    assert counted == [1, 1, 4]  # the two that brought the memories, then all
    for one, made in zip(asked, batched, strict=True):
        expected = run(alone.select(*one)).value
        assert near(unpack(made.value.tokens), unpack(expected.tokens))
        assert (made.value.attention is None) == (not one[2])
        if made.value.attention is not None and expected.attention is not None:
            assert near(unpack(made.value.attention), unpack(expected.attention))
        assert unpack(made.value.tokens).untyped_storage().nbytes() == made.value.tokens.nbytes
        assert made.trace["selector"].seconds > 0


def test_a_pass_is_bounded_in_questions(small: Path, encoder: Handle, clips: list[ClipKey]) -> None:
    stage = selector(small, encoder, batch_questions=2)
    counted = passes(stage)
    run(together(stage, [(clips[0], (number,), False) for number in range(20, 25)]))
    assert counted == [1, 2, 2, 1]


def test_a_question_that_fails_does_not_hurt_its_batch(small: Path, encoder: Handle, clips: list[ClipKey]) -> None:
    async def scenario() -> None:
        stage = selector(small, encoder)
        await stage.select(clips[0], (1,))
        async with occupied(stage._worker):
            asked = (FIRST, (10_000_000,), SECOND)  # the second is no token
            tasks = [asyncio.create_task(stage.select(clips[0], ids)) for ids in asked]
            await until(lambda: len(stage._batches._waiting) == 3)
        good, bad, fine = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(good, Made)
        assert isinstance(fine, Made)
        assert isinstance(bad, IndexError)

    run(scenario())


def test_attention_is_a_distribution_over_the_grid_of_each_query(
    small: Path, encoder: Handle, clips: list[ClipKey]
) -> None:
    selected = run(selector(small, encoder).select(clips[1], FIRST, attention=True)).value
    assert selected.attention is not None
    weights = unpack(selected.attention)
    assert (weights.dtype, tuple(weights.shape)) == (torch.float32, (32, 4, 3, 2))  # 8 frames of 84 x 56 px
    torch.testing.assert_close(weights.sum(dim=(1, 2, 3)), torch.ones(32), rtol=0, atol=1e-6)


def test_an_answer_kept_without_attention_is_computed_again_and_one_with_it_serves_both(
    small: Path, encoder: Handle, clips: list[ClipKey]
) -> None:
    async def scenario() -> None:
        stage = selector(small, encoder)
        counted = passes(stage)
        silent = (await stage.select(clips[0], FIRST)).value
        assert silent.attention is None
        explained = (await stage.select(clips[0], FIRST, attention=True)).value
        assert explained.attention is not None
        assert torch.equal(unpack(silent.tokens), unpack(explained.tokens))
        assert counted == [1, 1]
        await stage.select(clips[0], SECOND, attention=True)
        again = await stage.select(clips[0], SECOND)
        assert again.trace["selector"].cache == "hit"
        assert counted == [1, 1, 1]

    run(scenario())


def test_a_clip_is_remembered_once_for_all_its_questions(small: Path, encoder: Handle, clips: list[ClipKey]) -> None:
    async def scenario() -> None:
        stage = selector(small, encoder)
        await asyncio.gather(*(stage.select(clips[0], (number,)) for number in range(6)))
        assert encoder.encode.asked == [(clips[0],)]
        memory = stage.stats()["memory"]
        # 2 x 3 x 4 merged tokens, a key and a value of 64 float32 each.
        assert (memory.entries, memory.bytes) == (1, 24 * 2 * 64 * 4)
        assert stage.stats()["tokens"].entries == 6

    run(scenario())


def test_flush_forgets_memories_and_tokens_of_one_video_or_all(
    small: Path, encoder: Handle, clips: list[ClipKey]
) -> None:
    async def scenario() -> None:
        stage = selector(small, encoder)
        for key in clips:
            await stage.select(key, FIRST)
            await stage.select(key, FIRST, attention=True)
        await stage.flush(clips[0].video)
        assert {name: stats.entries for name, stats in stage.stats().items()} == {"memory": 1, "tokens": 2}
        assert (await stage.select(clips[1], FIRST)).trace["selector"].cache == "hit"
        await stage.flush()
        assert {name: stats.bytes for name, stats in stage.stats().items()} == {"memory": 0, "tokens": 0}

    run(scenario())


def test_tokens_under_way_when_their_video_is_flushed_arrive_but_nothing_of_them_is_kept(
    small: Path, encoder: Handle, clips: list[ClipKey]
) -> None:
    async def scenario() -> None:
        stage = selector(small, encoder)
        async with occupied(stage._worker):
            tasks = [asyncio.create_task(stage.select(key, FIRST)) for key in clips]
            await until(lambda: stage._worker._thread._work_queue.qsize() == 2)  # both have features, no memory yet
            await stage.flush(clips[0].video)
        flushed, _ = await asyncio.gather(*tasks)
        assert unpack(flushed.value.tokens).isfinite().all()
        assert {name: stats.entries for name, stats in stage.stats().items()} == {"memory": 1, "tokens": 1}
        assert (await stage.select(clips[1], FIRST)).trace["selector"].cache == "hit"
        assert (await stage.select(clips[0], FIRST)).trace["selector"].cache == "miss"

    run(scenario())
