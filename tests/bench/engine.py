"""`python -m tests.bench.engine [--preset bench]`: the decoder's engine against the plain one, in one process.

The plain answer is what the engine replaces: vision tower, prompt and one pass over all of it, for every question. Both
run on one thread, on the same random weights, clips and geometry tokens. The other stages are not in these figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from models.config import ModelConfig
from serve.engine import Result, Text
from serve.worker import TorchWorker
from tests.bench.asked import Bench, Model
from tests.bench.record import MiB, Record, median

T = TypeVar("T")
Part = Callable[[Bench, int], AsyncIterator[Record]]

QUESTIONS_PER_CLIP = (3, 3, 3, 3, 2, 2)  # 16 at once, 2.7 on average
TOKENS = 24


async def measure(bench: Bench, runs: int) -> list[Record]:
    return [record for part in PARTS async for record in part(bench, runs)]


async def answers(bench: Bench, runs: int) -> AsyncIterator[Record]:
    """One request at a time; plain and fast ones alternate, so that a busy machine slows both."""
    plain, cold, warm, apart = [], [], [], []
    async with bench.engine() as engine:
        for number in range(runs):
            request = bench.request(number, number)
            seconds, expected = await _timed(bench.plainly(request))
            plain.append(seconds)
            seconds, found = await _timed(engine.answer(request))
            cold.append(seconds)
            apart.append(max(abs(a - b) for a, b in zip(expected, found.probabilities or (), strict=True)))
            for question in range(100, 105):
                seconds, _ = await _timed(engine.answer(bench.request(number, question)))
                warm.append(seconds)
        clip_bytes = engine.stats.bytes / engine.stats.entries
    reference = statistics.median(plain)
    yield median("engine_largest_difference_of_a_probability", apart, "1", bench.baseline)
    yield median("engine_plain_answer", [1000 * s for s in plain], "ms", "absolute")
    yield median("engine_cold_answer", [1000 * s for s in cold], "ms", "absolute")
    yield median("engine_cold_over_plain", [s / reference for s in cold], "x", bench.baseline)
    yield median("engine_warm_answer", [1000 * s for s in warm], "ms", "absolute")
    yield median("engine_warm_speedup", [reference / s for s in warm], "x", bench.baseline)
    yield median("engine_prefix", [clip_bytes / MiB], "MiB per clip", "absolute")


async def streams(bench: Bench, runs: int) -> AsyncIterator[Record]:
    """The first token of a long answer, and the longest silence in one while another clip is read."""
    first, ratio, speedup, gaps, quiet = [], [], [], [], []
    async with bench.engine() as engine:
        long = bench.request(0, 0, Text(200, temperature=1.0, seed=1, logprobs=0))
        await engine.answer(replace(long, task=Text(1)))
        for number in range(runs):
            plain, _ = await _timed(bench.plainly(replace(long, task=Text(1))))
            await engine.answer(replace(long, task=Text(1)))  # the plain answer took what was kept of the clip
            one, _ = await _timed(engine.answer(replace(long, task=Text(1))))
            times: list[float] = []
            cold: asyncio.Task[Result] | None = None
            start = time.perf_counter()
            async with aclosing(engine.stream(long)) as events:
                async for _ in events:
                    times.append(time.perf_counter())
                    if len(times) == 10:
                        began = time.perf_counter()
                        cold = asyncio.create_task(engine.answer(bench.request(number + 1, 0)))
                    if cold is not None and cold.done():
                        break
            first.append(1000 * (times[0] - start))
            ratio.append((times[0] - start) / one)
            speedup.append(plain / (times[0] - start))
            silences = [b - a for a, b in pairwise(times) if a >= began]
            gaps.append(1000 * max(silences))
            quiet.append(time.perf_counter() - began)
    yield median("engine_first_token", first, "ms", "absolute, same clip")
    yield median("engine_first_token_speedup", speedup, "x", bench.baseline)
    yield median("engine_first_token_over_one_token_answer", ratio, "x", "the same engine")
    yield median("engine_longest_silence_while_a_clip_is_read", gaps, "ms", "absolute")
    yield median("engine_reading_a_clip_beside_an_answer", [1000 * s for s in quiet], "ms", "absolute")


async def crowd(bench: Bench, runs: int) -> AsyncIterator[Record]:
    """16 clients at once: choices about six clips, then texts about one."""
    questions, ratio, tokens, gain = [], [], [], []
    for number in range(runs):
        asked = [
            bench.request(10 * number + clip, question)
            for clip, count in enumerate(QUESTIONS_PER_CLIP)
            for question in range(count)
        ]
        alone, _ = await _timed(bench.plainly(asked[0]))
        async with bench.engine() as engine:
            together, _ = await _timed(asyncio.gather(*(engine.answer(request) for request in asked)))
            questions.append(len(asked) / together)
            ratio.append(alone * len(asked) / together)
            text = [bench.request(10 * number, question, Text(TOKENS)) for question in range(len(asked))]
            together, results = await _timed(asyncio.gather(*(engine.answer(request) for request in text)))
        alone, found = await _timed(bench.plainly(text[0]))
        tokens.append(sum(len(result.tokens) for result in results) / together)
        gain.append(tokens[-1] / (len(found) / alone))
    yield median("engine_questions_16_about_6_clips", questions, "1/s", "absolute")
    yield median("engine_questions_per_second_16_about_6_clips", ratio, "x", bench.baseline)
    yield median("engine_tokens_16_warm_texts", tokens, "1/s", "absolute")
    yield median("engine_tokens_per_second_16_warm_texts", gain, "x", bench.baseline)


PARTS: tuple[Part, ...] = (answers, streams, crowd)


async def _timed(work: Awaitable[T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = await work
    return time.perf_counter() - start, result


async def run(preset: str, runs: int = 3) -> list[Record]:
    """`measure` with random weights of a preset."""
    worker = TorchWorker(threads=1)
    return await measure(Bench(Model.random(ModelConfig.preset(preset), worker), worker), runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__)
    parser.add_argument("--preset", choices=["tiny", "bench"], default="bench")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    for record in asyncio.run(run(arguments.preset, arguments.runs)):
        print(record.line(), flush=True)


if __name__ == "__main__":
    main()
