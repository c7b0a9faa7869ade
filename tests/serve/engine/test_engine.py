"""The engine against the plain one: whatever else is going on, a request gets the answer that it would get alone."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest

from models.decoder import Decoder
from models.tokenizer import QwenTokenizer
from serve.engine import Choice, Engine, Piece, Request, Result, Text
from tests.serve.engine.asked import (
    FLOAT32,
    compose,
    film,
    geometry_tokens,
    later,
    opened,
    plainly,
    request,
)

LETTERS = Choice((301, 302, 303, 304))


async def streamed(engine: Engine, asked: Request) -> Result:
    """The result of a stream, after a check that its pieces add up to it."""
    pieces: list[Piece] = []
    async with aclosing(engine.stream(asked)) as events:
        async for event in events:
            if isinstance(event, Result):
                assert "".join(piece.text for piece in pieces) == event.text
                assert [token.id for piece in pieces for token in piece.tokens] == event.ids
                return event
            pieces.append(event)
    raise AssertionError("no result")


async def cancelled(engine: Engine, asked: Request, passes: int) -> None:
    """Asks, and goes away after a while."""
    task = asyncio.create_task(engine.answer(asked))
    for _ in range(passes):
        await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("seed", range(2))
def test_each_of_many_mixed_requests_gets_the_answer_that_it_would_get_alone(
    decoder: Decoder, tokenizer: QwenTokenizer, seed: int
) -> None:
    rng = random.Random(seed)

    async def scenario() -> None:
        async with opened(decoder, tokenizer, batch_tokens=40, chunk_tokens=4, running=16) as (engine, _):
            tasks: list[tuple[asyncio.Task[Result], Request, list[float] | list[int]]] = []
            lost: list[asyncio.Task[None]] = []
            for number in range(32):
                clip, geometry = rng.randrange(4), geometry_tokens(number) if number % 3 else None
                kinds: list[Choice | Text] = [
                    LETTERS,
                    Text(rng.randrange(1, 16)),
                    Text(rng.randrange(1, 9), temperature=0.9, top_p=rng.choice([0.5, 1.0]), seed=number),
                ]
                asked = request(tokenizer, clip, kinds[number % 3], question=number)
                expected = await plainly(decoder, asked, compose(decoder, asked, clip, geometry))
                if geometry is not None:
                    asked = replace(asked, geometry=later(geometry, rng.random() / 50))
                ask = streamed if rng.random() < 0.5 else Engine.answer
                tasks.append((asyncio.create_task(ask(engine, asked)), asked, expected))
                if number % 4 == 0:
                    lost.append(asyncio.create_task(cancelled(engine, asked, rng.randrange(20))))
            await asyncio.gather(*lost)
            for pending, asked, expected in tasks:
                result = await pending
                if isinstance(asked.task, Choice):
                    assert result.probabilities == pytest.approx(expected, abs=FLOAT32)
                else:
                    assert result.ids == expected

    asyncio.run(scenario())


def test_the_small_model_listens_to_clip_geometry_question_and_order(
    decoder: Decoder, tokenizer: QwenTokenizer
) -> None:
    """Without this, the other comparisons would prove little."""

    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            first = request(tokenizer, 0, Text(12))
            others = [
                request(tokenizer, 3, Text(12)),
                request(tokenizer, 0, Text(12), question=7),
                request(tokenizer, 0, Text(12), geometry=geometry_tokens(0)),
                request(tokenizer, 0, Text(12), geometry=geometry_tokens(0).flip(0)),
            ]
            answers = [tuple((await engine.answer(asked)).ids) for asked in (first, *others)]
            assert len(set(answers)) == len(answers)

    asyncio.run(scenario())


def test_a_cached_prefix_gives_exactly_what_a_new_one_gives(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        choice = request(tokenizer, 0, replace(LETTERS, logprobs=True))
        text = request(tokenizer, 0, Text(15, logprobs=2))
        async with opened(decoder, tokenizer, chunk_tokens=4) as (engine, worker):
            new = [await engine.answer(choice), await engine.answer(text)]
            chunks = worker.ran.count("_fill")
            kept = [await engine.answer(choice), await engine.answer(text)]
            assert worker.ran.count("_fill") == chunks == 3
        assert [result.source for result in new + kept] == ["miss", "hit", "hit", "hit"]
        assert new[0].probabilities == kept[0].probabilities
        assert new[0].logprobs == kept[0].logprobs
        assert new[1].tokens == kept[1].tokens
        async with opened(decoder, tokenizer) as (other, _):
            assert (await other.answer(text)).ids == new[1].ids

    asyncio.run(scenario())


def test_a_result_tells_what_it_is_made_of(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, worker):
            asked = request(tokenizer, 0, LETTERS, geometry=geometry_tokens(1))
            choice = await engine.answer(asked)
            assert (choice.text, choice.tokens, choice.finish, choice.about) == ("", (), "choice", "clip 0")
            assert (choice.video_tokens, choice.geometry_tokens) == (12, 6)
            assert choice.prompt_tokens == 4 + 12 + 6 + len(asked.prompt.after)
            assert sum(choice.probabilities or ()) == pytest.approx(1)
            assert choice.logprobs is None
            text = await engine.answer(request(tokenizer, 0, Text(5)))
            assert text.text == tokenizer.decode(text.ids)
            assert (text.finish, len(text.tokens), text.probabilities) == ("length", 5, None)
            assert worker.ran == ["_fill", *["_pass"] * 6]
            assert choice.seconds == sum(worker.seconds[:2])  # the first one pays for the prefix
            assert text.seconds == pytest.approx(sum(worker.seconds[2:]))

    asyncio.run(scenario())


def test_logprobs_are_those_of_the_model(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):
            asked = request(tokenizer, 1, replace(LETTERS, logprobs=True))
            expected = decoder.logits([compose(decoder, asked, 1)], last_only=True)[0][0].log_softmax(dim=-1)
            letters = (await engine.answer(asked)).logprobs
            assert letters == pytest.approx(expected[list(LETTERS.letters)].tolist(), abs=1e-4)
            [token] = (await engine.answer(replace(asked, task=Text(1, logprobs=3)))).tokens
            values, ids = expected.topk(3)
            assert [i for i, _ in token.top] == ids.tolist()
            assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-4)
            assert (token.id, token.logprob) == token.top[0]

    asyncio.run(scenario())


def test_the_same_seed_gives_the_same_text_among_other_neighbours(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, _):

            def sampled(seed: int | None) -> Request:
                return request(tokenizer, 0, Text(12, temperature=1.0, seed=seed))

            alone = await engine.answer(sampled(5))
            crowd = await asyncio.gather(*(engine.answer(sampled(seed)) for seed in (1, 2, 5, None, None)))
            assert crowd[2].ids == alone.ids
            assert len({tuple(result.ids) for result in crowd}) == 5

    asyncio.run(scenario())


def test_a_stop_string_ends_the_text_before_it_wherever_tokens_end(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer) as (engine, worker):
            whole = await engine.answer(request(tokenizer, 0, Text(20)))
            for start in range(0, len(whole.text) - 4, 5):
                stop = whole.text[start : start + 4]
                worker.ran.clear()
                result = await streamed(engine, request(tokenizer, 0, Text(20, stop=(stop, "never said"))))
                assert result.finish == "stop"
                assert result.text == whole.text[: whole.text.index(stop)]
                assert worker.ran.count("_pass") == len(result.tokens)
                shorter = tokenizer.decode(result.ids[:-1])
                assert stop in tokenizer.decode(result.ids)
                assert stop not in shorter

    asyncio.run(scenario())


def test_an_answer_ends_with_the_models_end_token(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        asked = request(tokenizer, 0, Text(20))
        async with opened(decoder, tokenizer) as (engine, _):
            ids = (await engine.answer(asked)).ids
        plain = decoder.model.generation_config.eos_token_id
        place = next(i for i in range(3, 20) if ids[i] not in ids[:i])
        decoder.model.generation_config.eos_token_id = ids[place]
        try:
            async with opened(decoder, tokenizer) as (engine, _):
                result = await streamed(engine, asked)
        finally:
            decoder.model.generation_config.eos_token_id = plain
        assert result.finish == "end"
        assert result.ids == ids[: place + 1]
        assert result.text == tokenizer.decode(ids[:place])

    asyncio.run(scenario())


def test_a_clip_is_fetched_and_computed_once_for_all_who_ask(decoder: Decoder, tokenizer: QwenTokenizer) -> None:
    async def scenario() -> None:
        async with opened(decoder, tokenizer, chunk_tokens=4) as (engine, worker):
            fetched = []

            def asked(number: int) -> Request:
                async def fetch() -> object:
                    fetched.append(number)
                    return await later(film(0), 0.01)()

                return replace(request(tokenizer, 0, LETTERS, question=number), film=fetch)  # type: ignore[arg-type]

            results = await asyncio.gather(*(engine.answer(asked(number)) for number in range(10)))
            assert [result.source for result in results] == ["miss"] + ["joined"] * 9
            assert fetched == [0]
            assert worker.ran.count("_fill") == 3
            assert worker.ran.count("_pass") == 1

    asyncio.run(scenario())
