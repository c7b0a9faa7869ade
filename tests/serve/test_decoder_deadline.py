"""The decoder stage, alone: what nobody waits for any more is not worked on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from models.prompt import asking
from serve.decoder import Decoder
from serve.errors import Deadline
from serve.keys import ClipKey
from serve.messages import Ask
from serve.settings import DecoderStage
from tests.serve.direct import Handle, until

TINY = "models/tiny"


class Stuck:
    """A frames stage that never answers; notes who asked and who gave up."""

    def __init__(self) -> None:
        self.waiting = 0

    async def get(self, key: ClipKey) -> Any:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


def ask(deadline: float) -> Ask:
    clip = ClipKey("vid_" + "0" * 64, "n4_p3136-12544_m28_t2")
    return Ask(clip, asking("?", ("a", "b")), ("a", "b"), False, 8, deadline=deadline)


@pytest.fixture(scope="module")
def stuck() -> Stuck:
    return Stuck()


@pytest.fixture(scope="module")
def decoder(stuck: Stuck) -> Decoder:
    return Decoder(DecoderStage(threads=1), str(Path(TINY).resolve()), Handle(stuck), None)


@pytest.mark.parametrize("streamed", [False, True])
def test_work_ends_at_its_deadline(decoder: Decoder, stuck: Stuck, streamed: bool) -> None:
    async def wait() -> None:
        asked = ask(time.time() + 0.2)
        if streamed:
            async for _ in decoder.stream(asked):
                raise AssertionError("there is nothing to say")
        else:
            await decoder.answer(asked)

    async def test() -> None:
        start = time.monotonic()
        with pytest.raises(Deadline, match="nobody waits"):
            await wait()
        assert 0.1 < time.monotonic() - start < 10
        await until(lambda: decoder.report().waiting == 0)
        await until(lambda: stuck.waiting == 0)

    asyncio.run(test())


def test_what_comes_too_late_is_not_begun(decoder: Decoder) -> None:
    async def test() -> None:
        with pytest.raises(Deadline):
            await decoder.answer(ask(time.time() - 1))
        await until(lambda: decoder.report().waiting == 0)

    asyncio.run(test())
