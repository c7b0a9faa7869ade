"""Who waits for whom, what is held meanwhile, and what happens to the others when one goes wrong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from models.decoder import Decoder
from models.errors import InvalidQuestion, OutOfLimits
from models.tokenizer import QwenTokenizer
from serve.engine import Choice, Engine, Limits, Piece, Request, Result, Text
from serve.engine.transformer import KeysValues, Transformer
from tests.serve.engine.asked import Noted, failing, film, geometry_tokens, later, never, opened, request

LETTERS = Choice((301, 302))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (what it waits for has no event)
            await asyncio.sleep(0.001)


def token_bytes(decoder: Decoder) -> int:
    return Transformer(decoder).token_bytes


def test_an_answer_goes_on_while_a_long_clip_is_read(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer, chunk_tokens=1) as (engine, worker):
            await engine.answer(request(tokenizer, 1, LETTERS))
            async with aclosing(engine.stream(request(tokenizer, 1, Text(400)))) as events:
                await anext(events)
                worker.ran.clear()
                await engine.answer(request(tokenizer, 2, LETTERS))
            fills = [place for place, name in enumerate(worker.ran) if name == "_fill"]
            assert len(fills) == 5
            assert all(after - before == 2 for before, after in pairwise(fills))

    asyncio.run(scenario())


def test_the_prefix_is_computed_before_the_geometry_arrives(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, worker):
            arrived: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
            asked = replace(request(tokenizer, 0, LETTERS), geometry=lambda: arrived)
            pending = asyncio.create_task(engine.answer(asked))
            await until(lambda: engine.stats.entries == 1)
            assert "_pass" not in worker.ran
            worker.ran.clear()
            arrived.set_result(geometry_tokens(0))
            result = await pending
            assert worker.ran == ["_pass"]
            assert result.geometry_tokens == 6

    asyncio.run(scenario())


def test_geometry_that_never_arrives_holds_up_nobody_even_when_memory_is_short(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    longest, own = 4 + 12, 5 + 6
    budget = (longest + own) * token_bytes(decoder)

    async def scenario() -> None:
        async with opened(decoder, tokenizer, memory_bytes=budget) as (engine, _):
            waiting = [
                asyncio.create_task(engine.answer(replace(request(tokenizer, clip, LETTERS), geometry=never())))
                for clip in (0, 1, 2)
            ]
            await until(lambda: engine.stats.entries > 0)
            for clip in (3, 4, 0, 5):
                result = await engine.answer(request(tokenizer, clip, LETTERS))
                assert result.about == f"clip {clip}"
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_a_prefix_that_was_evicted_while_its_request_waited_is_computed_again(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    budget = (4 + 12 + 5 + 6) * token_bytes(decoder)

    async def scenario() -> None:
        async with opened(decoder, tokenizer, memory_bytes=budget) as (engine, _):
            arrived: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
            plain = await engine.answer(request(tokenizer, 0, LETTERS, geometry=geometry_tokens(0)))
            waiting = asyncio.create_task(
                engine.answer(replace(request(tokenizer, 0, LETTERS), geometry=lambda: arrived))
            )
            await engine.answer(request(tokenizer, 3, LETTERS))
            arrived.set_result(geometry_tokens(0))
            result = await waiting
            assert result.source == "miss"
            assert result.probabilities == plain.probabilities

    asyncio.run(scenario())


def test_cancelling_frees_at_once_what_the_request_held(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            await engine.answer(request(tokenizer, 0, LETTERS))
            prefix = engine.stats.bytes
            assert prefix == 16 * token_bytes(decoder)
            async with aclosing(engine.stream(request(tokenizer, 0, Text(100)))) as events:
                assert isinstance(await anext(events), Piece)
                assert engine.stats.bytes == prefix + (5 + 99) * token_bytes(decoder)
            assert engine.stats.bytes == prefix
            assert engine.load == (0, 0)

    asyncio.run(scenario())


def test_cancelling_in_the_middle_of_a_prefix_frees_it_unless_another_waits_for_it(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer, chunk_tokens=1) as (engine, worker):
            for others in (0, 1):
                worker.ran.clear()
                first = asyncio.create_task(engine.answer(request(tokenizer, 2, LETTERS)))
                rest = [asyncio.create_task(engine.answer(request(tokenizer, 2, LETTERS))) for _ in range(others)]
                await until(lambda: "_fill" in worker.ran)
                assert engine.stats.bytes > 0
                first.cancel()
                await asyncio.wait({first})
                if not others:
                    assert engine.stats.bytes == 0
                for task in rest:
                    await task

    asyncio.run(scenario())


def test_the_film_of_a_request_that_went_away_still_serves_those_who_joined(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            slow = replace(request(tokenizer, 0, LETTERS), film=later(film(0), 0.05))
            first = asyncio.create_task(engine.answer(slow))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(engine.answer(replace(slow, film=failing(AssertionError("not needed")))))
            await asyncio.sleep(0.01)
            first.cancel()
            assert (await second).source == "joined"

    asyncio.run(scenario())


def test_a_film_that_nobody_waits_for_any_more_is_cancelled(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            ended = asyncio.Event()

            async def endless() -> Any:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            pending = asyncio.create_task(engine.answer(replace(request(tokenizer, 0, LETTERS), film=endless)))
            await asyncio.sleep(0.01)
            pending.cancel()
            await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(scenario())


@pytest.mark.parametrize("geometry", [None, 6])
def test_a_request_that_can_never_fit_is_refused_with_the_numbers(
    decoder: Decoder, tokenizer: QwenTokenizer, geometry: int | None
) -> None:
    each = token_bytes(decoder)
    need = (4 + 12 + 5 + 29 + (geometry or 0)) * each
    tokens = None if geometry is None else geometry_tokens(0, geometry)

    async def scenario() -> None:
        async with opened(decoder, tokenizer, memory_bytes=need - 1) as (engine, _):
            good = asyncio.create_task(engine.answer(request(tokenizer, 1, Text(5))))
            for _ in range(2):  # without and with the prefix in memory
                with pytest.raises(OutOfLimits, match="bytes of keys and values") as refusal:
                    await engine.answer(request(tokenizer, 0, Text(30), geometry=tokens))
                assert (refusal.value.value, refusal.value.limit) == (need, need - 1)
                await engine.answer(request(tokenizer, 0, Text(2)))
            assert len((await good).ids) == 5
        async with opened(decoder, tokenizer, memory_bytes=need) as (engine, _):
            assert len((await engine.answer(request(tokenizer, 0, Text(30), geometry=tokens))).ids) == 30

    asyncio.run(scenario())


def test_a_prompt_beyond_the_models_length_is_refused(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer, max_tokens=1000) as (engine, _):
            with pytest.raises(OutOfLimits, match="521 tokens and the model has 512"):
                await engine.answer(request(tokenizer, 0, Text(501)))

    asyncio.run(scenario())


def test_memory_stays_within_its_budget_while_many_clips_pass(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    budget = 100 * token_bytes(decoder)

    async def scenario() -> None:
        async with opened(decoder, tokenizer, memory_bytes=budget) as (engine, _):

            async def ask(number: int) -> None:
                task = Text(4) if number % 2 else LETTERS
                result = await engine.answer(request(tokenizer, number, task, geometry=geometry_tokens(number)))
                assert result.about == f"clip {number}"
                assert 0 < engine.stats.bytes <= budget

            for first in range(0, 200, 8):
                await asyncio.gather(*(ask(first + number) for number in range(8)))
                if first % 40 == 0:
                    # Not at once: the worker's thread lets go of its last pass when it next runs.
                    await until(lambda: held() == engine.stats.bytes)
            stats = engine.stats
            assert stats.entries == 200 - stats.evictions > 1

    asyncio.run(scenario())


def held() -> int:
    """Bytes of all keys and values that are alive in this process."""
    gc.collect()
    return sum(found.nbytes for found in gc.get_objects() if type(found) is KeysValues)


def test_the_least_recently_asked_clip_goes_first(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    budget = (2 * 16 + 11) * token_bytes(decoder)  # two clips of 16 tokens and a question

    async def scenario() -> None:
        async with opened(decoder, tokenizer, memory_bytes=budget) as (engine, _):
            sources = [(await engine.answer(request(tokenizer, clip, LETTERS))).source for clip in (0, 3, 0, 6, 0, 3)]
            assert sources == ["miss", "miss", "hit", "miss", "hit", "miss"]

    asyncio.run(scenario())


def test_a_flush_forgets_every_prefix_and_disturbs_no_answer(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            whole = (await engine.answer(request(tokenizer, 0, Text(50)))).ids
            async with aclosing(engine.stream(request(tokenizer, 0, Text(50)))) as events:
                await anext(events)
                engine.flush()
                assert engine.stats.entries == 0
                assert (await engine.answer(request(tokenizer, 0, LETTERS))).source == "miss"
                assert [event.ids async for event in events if isinstance(event, Result)] == [whole]
            engine.flush()
            assert engine.stats.bytes == 0

    asyncio.run(scenario())


def test_what_fails_for_one_request_fails_for_no_other(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            asked = request(tokenizer, 0, LETTERS)
            alone = (await engine.answer(asked)).probabilities
            engine.flush()
            bad: list[tuple[Request, type[Exception]]] = [
                (replace(asked, film=failing(OSError("no film"))), OSError),
                (replace(asked, geometry=failing(OSError("no geometry"))), OSError),
                (replace(asked, geometry=failing(asyncio.CancelledError())), asyncio.CancelledError),  # type: ignore[list-item]
                (replace(asked, geometry=later(torch.zeros(3, 5))), ValueError),
                (replace(asked, geometry=later(geometry_tokens(0) * torch.nan)), FloatingPointError),
                (replace(asked, clip="other", film=later(replace(film(0), frames=film(1).frames))), ValueError),
                (replace(asked, task=Text(2000)), OutOfLimits),
                (replace(asked, task=Text(5, temperature=-1.0)), InvalidQuestion),
                (replace(asked, task=Choice((640,))), ValueError),
            ]
            results = await asyncio.gather(
                *(engine.answer(request) for request, _ in bad),
                *(engine.answer(asked) for _ in range(3)),
                return_exceptions=True,
            )
            for (_, kind), found in zip(bad, results, strict=False):
                assert isinstance(found, kind)
            for found in results[len(bad) :]:
                assert isinstance(found, Result)
                assert found.probabilities == pytest.approx(alone, abs=1e-5)

    asyncio.run(scenario())


def test_a_pass_that_fails_is_repeated_for_each_request_alone(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    def fragile(function: Callable[..., Any]) -> Callable[..., Any]:
        """As a kernel that does not survive some input."""

        def call(layer: Any, hidden: Tensor, *rest: Any) -> Any:
            if hidden.isnan().any():
                raise RuntimeError("the kernel broke")
            return function(layer, hidden, *rest)

        return call

    async def scenario() -> None:
        worker = Noted()
        engine = Engine(decoder, tokenizer, worker, Limits(1 << 24), fragile)
        asked = request(tokenizer, 0, Text(8))
        alone = (await engine.answer(asked)).ids
        poisoned = replace(asked, geometry=later(geometry_tokens(0) * torch.nan))
        good, bad, fine = await asyncio.gather(
            *(engine.answer(request) for request in (asked, poisoned, asked)), return_exceptions=True
        )
        assert isinstance(bad, RuntimeError)
        assert isinstance(good, Result)
        assert isinstance(fine, Result)
        assert good.ids == fine.ids == alone
        await engine.close()

    asyncio.run(scenario())


def test_a_closed_engine_fails_what_is_under_way_and_can_be_asked_again(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    engine = Engine(decoder, tokenizer, Noted(), Limits(1 << 24))

    async def scenario() -> None:
        pending = asyncio.create_task(engine.answer(request(tokenizer, 0, Text(300))))
        await until(lambda: engine.load[1] > 0)
        await engine.close()
        with pytest.raises(RuntimeError, match="closed"):
            await pending
        assert engine.load == (0, 0)
        assert len((await engine.answer(request(tokenizer, 0, Text(3)))).ids) == 3
        await engine.close()

    asyncio.run(scenario())
    asyncio.run(scenario())
