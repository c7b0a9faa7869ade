"""A small random model, clips and requests for it, and what the plain engine answers to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from models.config import DecoderConfig, VisionConfig
from models.decoder import Decoder, Inputs, transformers_config
from models.prompt import Prompt
from models.rope import Grid
from models.tokenizer import QwenTokenizer
from serve.engine import Choice, Engine, Film, Limits, Request, Text
from serve.engine.plain import GenerateEngine
from serve.engine.sampling import chance, nucleus
from serve.trace import Stopwatch
from serve.worker import TorchWorker

WIDTH = 64
GRIDS = [Grid(3, 2, 2, 0.5), Grid(1, 1, 3, 1.0), Grid(5, 1, 2, 9.0)]
# Of a probability near 1/4: another order of summation in float32 (eps 1.2e-7). Measured 1e-6.
FLOAT32 = 1e-5

CONFIG = DecoderConfig(
    vocab_size=640,
    hidden_size=WIDTH,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    mrope_section=(2, 3, 3),
    max_position_embeddings=512,
    vision=VisionConfig(32, 48, 2, 2, 112, (1,)),
)


def small_decoder(tokenizer: QwenTokenizer) -> Decoder:
    """Random weights, large enough that answers depend on every part of the prompt."""
    torch.manual_seed(3)
    model = Qwen2_5_VLForConditionalGeneration(transformers_config(CONFIG, tokenizer.special)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(7)
    return Decoder(model)


class Noted(TorchWorker):
    """A worker that keeps the names of what it ran, and the seconds."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.ran: list[str] = []
        self.seconds: list[float] = []

    async def run(self, watch: Stopwatch, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.ran.append(function.__name__)
        result = await super().run(watch, function, *args, **kwargs)
        self.seconds.append(watch.seconds)
        return result


@asynccontextmanager
async def opened(
    decoder: Decoder, tokenizer: QwenTokenizer, memory_bytes: int = 1 << 24, **limits: Any
) -> AsyncIterator[tuple[Engine, Noted]]:
    """An engine that must be idle in the end."""
    worker = Noted()
    engine = Engine(decoder, tokenizer, worker, Limits(memory_bytes, **limits))
    try:
        yield engine, worker
        assert engine.load == (0, 0)
        engine.check_health()
    finally:
        await engine.close()


def film(clip: int) -> Film:
    grid = GRIDS[clip % len(GRIDS)]
    shape = (2 * grid.times, 28 * grid.rows, 28 * grid.columns, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(clip))
    return Film(frames, grid, about=f"clip {clip}")


def geometry_tokens(seed: int, count: int = 6) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def ids(seed: int, count: int) -> tuple[int, ...]:
    """Text, no special token."""
    return tuple(torch.randint(300, 600, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def later(value: Any, seconds: float = 0.0) -> Callable[[], Awaitable[Any]]:
    async def come() -> Any:
        await asyncio.sleep(seconds)
        return value

    return come


def never() -> Callable[[], Awaitable[Any]]:
    async def wait() -> Any:
        await asyncio.Event().wait()

    return wait


def failing(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def fail() -> Any:
        await asyncio.sleep(0)
        raise error

    return fail


def request(
    tokenizer: QwenTokenizer, clip: int, task: Choice | Text, question: int = 0, geometry: Tensor | None = None
) -> Request:
    """Question `question`, some tokens long, about clip `clip`."""
    prompt = Prompt(ids(-1, 4), ids(question, 5 + question % 7), tokenizer.special)
    return Request(f"clip {clip}", prompt, task, later(film(clip)), None if geometry is None else later(geometry))


@torch.inference_mode()
def compose(decoder: Decoder, asked: Request, clip: int, geometry: Tensor | None = None) -> Inputs:
    shown = film(clip)
    return decoder.compose(asked.prompt, shown.grid, decoder.see(shown.frames), geometry)


async def plainly(decoder: Decoder, asked: Request, inputs: Inputs) -> list[float] | list[int]:
    """Probabilities for a choice, ids for a text, from the engine without any cleverness."""
    engine = GenerateEngine(decoder, TorchWorker(threads=1))
    if isinstance(asked.task, Choice):
        return await engine.choose(Stopwatch(), inputs, asked.task.letters)
    if asked.task.temperature == 0:
        return await engine.generate(Stopwatch(), inputs, asked.task.max_tokens)
    return drawn(decoder, inputs, asked.task)


@torch.inference_mode()
def drawn(decoder: Decoder, inputs: Inputs, task: Text) -> list[int]:
    """Token by token over the whole prompt, without a cache."""
    found: list[int] = []
    source = chance(task)
    settings = torch.tensor([task.temperature]), torch.tensor([task.top_p])
    while len(found) < task.max_tokens and not decoder.end_ids & set(found):
        uniform = torch.rand((), generator=source)[None]
        found += nucleus(decoder.logits([inputs], last_only=True)[0].float(), *settings, uniform).tolist()
        position = (inputs.positions.max() + 1).expand(3, 1)
        embeds = torch.cat([inputs.embeds, decoder.embed(found[-1:])])
        inputs = Inputs(embeds, torch.cat([inputs.positions, position], dim=1))
    return found
