"""`python -m tests.bench.engine [--preset bench]`: the decoder's engine against the plain one, in one process.

The plain answer is what the engine replaces: vision tower, prompt and one pass over all of it, for every question. Both
run on one thread, on the same random weights, clips and geometry tokens. The other stages are not in these figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from models.config import ModelConfig
from models.prompt import build_prompt, letter_ids
from models.rope import Grid
from models.vlm import VisionLanguageModel
from serve.engine import Choice, Engine, Film, Limits, Request, Result, Text
from serve.engine.plain import GenerateEngine
from serve.settings import MiB, ModelStage
from serve.trace import Stopwatch
from serve.worker import TorchWorker
from tests.bench.record import Record, median
from training.embedded import make

T = TypeVar("T")

OPTIONS = ("Become larger.", "Become smaller.", "Keep nearly constant.", "Become smaller. Become larger.")
BASELINE = "the plain engine, one thread each"
QUESTIONS_PER_CLIP = (3, 3, 3, 3, 2, 2)  # 16 at once, 2.7 on average
TOKENS = 24
FRAMES, HEIGHT, WIDTH = 32, 364, 644  # what 640x360 becomes


@dataclass(frozen=True)
class Bench:
    """What both engines are asked with."""

    model: VisionLanguageModel
    worker: TorchWorker

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        engine = Engine(self.model.decoder, self.model.tokenizer, self.worker, Limits(512 * MiB))
        try:
            yield engine
        finally:
            await engine.close()

    def film(self, clip: int) -> Film:
        """A clip of noise, of as many frames and pixels as the preset takes."""
        frames = self.model.config.frames
        side = frames.side_multiple
        scale = min(1.0, (frames.max_pixels / (HEIGHT * WIDTH)) ** 0.5)
        rows, columns = (max(1, int(size * scale) // side) for size in (HEIGHT, WIDTH))
        shape = (FRAMES, side * rows, side * columns, 3)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(clip))
        return Film(pixels, Grid(FRAMES // frames.temporal_patch, rows, columns, 0.6))

    def geometry(self, question: int) -> Tensor:
        width = self.model.decoder.embeddings.shape[1]
        return torch.randn(32, width, generator=torch.Generator().manual_seed(question)) / 10

    def request(self, clip: int, question: int, task: Choice | Text | None = None) -> Request:
        """A choice among four unless `task` says otherwise."""
        asked = f"How does the distance to the moving object change after {question} s?"
        prompt = build_prompt(self.model.tokenizer, asked, OPTIONS)
        film, geometry = self.film(clip), self.geometry(question)
        task = task or Choice(tuple(letter_ids(self.model.tokenizer, len(OPTIONS))))
        return Request(f"clip {clip}", prompt, task, _ready(film), _ready(geometry))

    async def plainly(self, request: Request) -> list[float] | list[int]:
        """From the frames to the answer."""
        engine, watch = GenerateEngine(self.model.decoder, self.worker), Stopwatch()
        film, geometry = await request.film(), await request.geometry() if request.geometry else None
        video = await engine.see(watch, film.frames)
        compose = self.model.decoder.compose
        inputs = await self.worker.run(watch, compose, request.prompt, film.grid, video, geometry)
        if isinstance(request.task, Choice):
            return await engine.choose(watch, inputs, request.task.letters)
        return await engine.generate(watch, inputs, request.task.max_tokens)


async def measure(bench: Bench, runs: int) -> list[Record]:
    parts: tuple[Callable[[Bench, int], AsyncIterator[Record]], ...] = (answers, streams, crowd)
    return [record for part in parts async for record in part(bench, runs)]


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
    yield median("engine_largest_difference_of_a_probability", apart, "1", BASELINE)
    yield median("engine_plain_answer", [1000 * s for s in plain], "ms", "absolute")
    yield median("engine_cold_over_plain", [s / reference for s in cold], "x", BASELINE)
    yield median("engine_warm_answer", [1000 * s for s in warm], "ms", "absolute")
    yield median("engine_warm_speedup", [reference / s for s in warm], "x", BASELINE)
    yield median("engine_prefix", [clip_bytes / MiB], "MiB per clip", "absolute")


async def streams(bench: Bench, runs: int) -> AsyncIterator[Record]:
    """The first token of a long answer, and the longest silence in one while another clip is read."""
    first, gaps, quiet = [], [], []
    async with bench.engine() as engine:
        long = bench.request(0, 0, Text(200, temperature=1.0, seed=1, logprobs=0))
        await engine.answer(replace(long, task=Text(1)))
        for number in range(runs):
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
            first.append((times[0] - start) / one)
            silences = [b - a for a, b in pairwise(times) if a >= began]
            gaps.append(1000 * max(silences))
            quiet.append(time.perf_counter() - began)
    yield median("engine_first_token_over_one_token_answer", first, "x", "the same engine")
    yield median("engine_longest_silence_while_a_clip_is_read", gaps, "ms", "absolute")
    yield median("engine_reading_a_clip_beside_an_answer", [1000 * s for s in quiet], "ms", "absolute")


async def crowd(bench: Bench, runs: int) -> AsyncIterator[Record]:
    """16 clients at once: choices about six clips, then texts about one."""
    questions, tokens = [], []
    for number in range(runs):
        asked = [
            bench.request(10 * number + clip, question)
            for clip, count in enumerate(QUESTIONS_PER_CLIP)
            for question in range(count)
        ]
        alone, _ = await _timed(bench.plainly(asked[0]))
        async with bench.engine() as engine:
            together, _ = await _timed(asyncio.gather(*(engine.answer(request) for request in asked)))
            questions.append(alone * len(asked) / together)
            text = [bench.request(10 * number, question, Text(TOKENS)) for question in range(len(asked))]
            together, results = await _timed(asyncio.gather(*(engine.answer(request) for request in text)))
        alone, found = await _timed(bench.plainly(text[0]))
        tokens.append(sum(len(result.tokens) for result in results) / together / (len(found) / alone))
    yield median("engine_questions_per_second_16_about_6_clips", questions, "x", BASELINE)
    yield median("engine_tokens_per_second_16_warm_texts", tokens, "x", BASELINE)


def _ready(value: T) -> Callable[[], Awaitable[T]]:
    async def come() -> T:
        return value

    return come


async def _timed(work: Awaitable[T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = await work
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__)
    parser.add_argument("--preset", choices=["tiny", "bench"], default="bench")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory), ModelConfig.preset(arguments.preset))
        model = VisionLanguageModel.load(directory)
    for record in asyncio.run(measure(Bench(model, TorchWorker(ModelStage(threads=1))), arguments.runs)):
        print(record.line(), flush=True)


if __name__ == "__main__":
    main()
