"""What the engines are asked in a benchmark: a model of random weights, clips of noise, questions, geometry."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import models
from models.config import FramesConfig, ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder
from models.prompt import Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.selector import Memory, Selector
from models.tokenizer import QwenTokenizer
from models.tower import quicken
from serve.cache import Cached
from serve.engine import Choice, Engine, Film, Limits, Request, Text, chunk_for
from serve.engine.plain import GenerateEngine
from serve.trace import Stopwatch
from serve.worker import TorchWorker
from tests.bench.record import MiB
from training.untrained import random_stages

T = TypeVar("T")

OPTIONS = ("Become larger.", "Become smaller.", "Keep nearly constant.", "Become smaller. Become larger.")
FRAMES, HEIGHT, WIDTH = 32, 360, 640  # 616x336 at the published sizes, whose bound is 230,400 px
QUERIES = 32
SEED = 20_512


class Spelled(QwenTokenizer):
    """The embedded tokenizer, and a letter for any id: a random model of 152,064 tokens says ids that are no text."""

    def decode(self, ids: Sequence[int]) -> str:
        return "x" * len(ids)


@dataclass(frozen=True)
class Model:
    """Random weights on the worker's device and in its type. `served` is the decoder as the service has it, with the
    faster vision tower, on the weights of `decoder`, which is as transformers has it."""

    config: ModelConfig
    tokenizer: QwenTokenizer
    decoder: Decoder
    served: Decoder
    encoder: ImageEncoder
    selector: Selector

    @classmethod
    def random(cls, config: ModelConfig, worker: TorchWorker) -> Model:
        tokenizer = Spelled(Path(models.__file__).parent / "tiny" / "decoder")
        stages = random_stages(config, tokenizer.special, SEED, worker.device, worker.dtype)
        if stages.encoder is None or stages.selector is None:
            raise ValueError(f"{config.name}: a benchmark needs a preset with encoder and selector")
        decoder = Decoder(stages.decoder, config.decoder.tokens_per_second)
        for module in (decoder, stages.encoder, stages.selector):
            module.eval().requires_grad_(False)
        served = copy.deepcopy(decoder, {id(weight): weight for weight in decoder.parameters()})
        quicken(served)
        return cls(config, tokenizer, decoder, served, stages.encoder, stages.selector)


@dataclass(frozen=True)
class Bench:
    """What both engines are asked with. The geometry tokens are noise and cost nothing.

    `wrap` is the engine's; `memory_bytes` its keys and values; `baseline` says what the plain engine is.
    """

    model: Model
    worker: TorchWorker
    baseline: str = "the plain engine, one thread each"
    memory_bytes: int = 512 * MiB
    wrap: Callable[[Any], Any] = lambda function: function

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        limits = Limits(self.memory_bytes, chunk_tokens=chunk_for(self.worker.device))
        engine = Engine(self.model.served, self.model.tokenizer, self.worker, limits, self.wrap)
        try:
            yield engine
        finally:
            await engine.close()

    def request(self, clip: int, question: int, task: Choice | Text | None = None) -> Request:
        """A choice among four unless `task` says otherwise."""
        prompt = asked(self.model.tokenizer, question)
        shown = film(self.model.config.frames, clip)
        task = task or Choice(tuple(letter_ids(self.model.tokenizer, len(OPTIONS))))
        return Request(f"clip {clip}", prompt, task, _ready(shown), self.geometry(clip, shown, question, prompt))

    def geometry(self, clip: int, shown: Film, question: int, prompt: Prompt) -> Callable[[], Awaitable[Tensor]]:
        width = self.model.decoder.embeddings.shape[1]
        return _ready(torch.randn(QUERIES, width, generator=torch.Generator().manual_seed(question)) / 10)

    async def plainly(self, request: Request) -> list[float] | list[int]:
        """From the frames to the answer."""
        engine, watch = GenerateEngine(self.model.decoder, self.worker), Stopwatch()
        shown, geometry = await request.film(), await request.geometry() if request.geometry else None
        geometry = None if geometry is None else geometry.to(self.worker.device)
        video = await engine.see(watch, shown.frames)
        compose = self.model.decoder.compose
        inputs = await self.worker.run(watch, compose, request.prompt, shown.grid, video, geometry)
        if isinstance(request.task, Choice):
            return await engine.choose(watch, inputs, request.task.letters)
        return await engine.generate(watch, inputs, request.task.max_tokens)


@dataclass(frozen=True)
class Whole(Bench):
    """The geometry comes from encoder and selector, in the same thread as the decoder, which a clip's memory spares
    the next question, as in the service. The plain answer computes it for every question."""

    _memories: Cached[int, Memory] = field(default_factory=lambda: Cached(1 << 40, lambda memory: memory.nbytes))

    def geometry(self, clip: int, shown: Film, question: int, prompt: Prompt) -> Callable[[], Awaitable[Tensor]]:
        async def remember() -> Memory:
            return await self.worker.run(Stopwatch(), self._remember, shown)

        async def select() -> Tensor:
            memory, _ = await self._memories.get(clip, remember)
            return await self.worker.run(Stopwatch(), self._select, prompt, memory)

        return select

    async def plainly(self, request: Request) -> list[float] | list[int]:
        self._memories.drop_where(lambda clip: True)
        try:
            return await super().plainly(request)
        finally:
            self._memories.drop_where(lambda clip: True)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        self._memories.drop_where(lambda clip: True)
        async with super().engine() as engine:
            yield engine

    def _remember(self, shown: Film) -> Memory:
        geometry = self.model.selector.remember(self.model.encoder(shown.frames), shown.grid)
        return self.model.selector.project(geometry, shown.grid)

    def _select(self, prompt: Prompt, memory: Memory) -> Tensor:
        text = self.model.decoder.embed(prompt.text_ids)
        return self.model.selector.select([text], [memory]).tokens[0]


def asked(tokenizer: QwenTokenizer, question: int) -> Prompt:
    return build_prompt(tokenizer, f"How does the distance to the moving object change after {question} s?", OPTIONS)


def film(frames: FramesConfig, clip: int) -> Film:
    """A clip of noise, of as many frames and pixels as the preset takes."""
    side = frames.side_multiple
    scale = min(1.0, (frames.max_pixels / (HEIGHT * WIDTH)) ** 0.5)
    rows, columns = (max(1, int(size * scale) // side) for size in (HEIGHT, WIDTH))
    shape = (FRAMES, side * rows, side * columns, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(clip))
    return Film(pixels, Grid(FRAMES // frames.temporal_patch, rows, columns, 0.6))


def _ready(value: T) -> Callable[[], Awaitable[T]]:
    async def come() -> T:
        return value

    return come
