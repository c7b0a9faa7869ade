"""The decoder stage: a question about a clip in, the answer out. It asks frames and selector for what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from models import checkpoint
from models.config import DecoderConfig
from models.errors import OutOfLimits
from models.prompt import Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.tokenizer import QwenTokenizer
from models.vlm import Answer, choice_answer, clip_frames, clip_grid
from serve.calls import call
from serve.engine import Engine, GenerateEngine
from serve.keys import ClipKey
from serve.messages import Ask, Reply, Seen
from serve.settings import DecoderStage
from serve.tensors import PackedTensor, unpack
from serve.trace import Made, Stopwatch, TracedCache, Work, merge
from serve.worker import TorchWorker

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Video:
    """What the decoder keeps of a clip: its video tokens [V, D] on the device, its grid and its facts."""

    tokens: Tensor
    grid: Grid
    seen: Seen


class Decoder:
    def __init__(
        self, settings: DecoderStage, location: str, frames: DeploymentHandle, selector: DeploymentHandle | None
    ) -> None:
        self._settings = settings
        self._frames = frames
        self._selector = selector
        self._worker = TorchWorker(settings)
        layout = checkpoint.open_layout(location)
        self._sizes: DecoderConfig = layout.model.decoder
        self._tokenizer = QwenTokenizer(layout.decoder)
        self._decoder = checkpoint.load_decoder(layout, settings.device, self._worker.dtype)
        self._engine: Engine = GenerateEngine(self._decoder, self._worker)
        self._videos: TracedCache[Video] = TracedCache("decoder", settings.cache_bytes, lambda v: v.tokens.nbytes)
        self._self_test()

    async def answer(self, ask: Ask) -> Made[Reply]:
        """Vision tower and geometry run side by side; they meet in the prompt.

        Raises:
            InvalidQuestion: question and options make no sense together.
            OutOfLimits: `max_tokens` is beyond this deployment's, or the prompt beyond the model's.
        """
        if ask.max_tokens > self._settings.max_tokens:
            limit = self._settings.max_tokens
            message = f"max_tokens {ask.max_tokens} is beyond this service's {limit}"
            raise OutOfLimits(message, field="max_tokens", value=ask.max_tokens, limit=limit)
        prompt = build_prompt(self._tokenizer, ask.question, ask.options)
        video, geometry = await _both(self._see(ask.clip), self._geometry(ask, prompt))
        watch = Stopwatch()
        answer = await self._complete(watch, ask, prompt, video.value, geometry.value)
        reply = Reply(
            text=answer.text,
            probabilities=answer.probabilities,
            seen=video.value.seen,
            video_tokens=len(video.value.tokens),
            geometry_tokens=0 if geometry.value is None else len(geometry.value),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )
        own = {"decoder": Work(watch.seconds, "hit")}
        return Made(reply, merge(video.trace, geometry.trace, own))

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    async def _see(self, key: ClipKey) -> Made[Video]:
        async def compute(watch: Stopwatch) -> Made[Video]:
            clip = await call(self._frames.get, key)
            tokens = await self._engine.see(watch, clip_frames(clip.value))
            # Copied: a view would keep the clip's frames alive in the object store.
            seen = Seen(clip.value.facts, clip.value.times.copy())
            return Made(Video(tokens, clip_grid(clip.value), seen), clip.trace)

        return await self._videos.get(str(key), compute)

    async def _geometry(self, ask: Ask, prompt: Prompt) -> Made[Tensor | None]:
        if not ask.geometry or self._selector is None:
            return Made(None)
        packed: Made[PackedTensor] = await call(self._selector.select, ask.clip, prompt.text_ids)
        return Made(unpack(packed.value, self._worker.device), packed.trace)

    async def _complete(
        self, watch: Stopwatch, ask: Ask, prompt: Prompt, video: Video, geometry: Tensor | None
    ) -> Answer:
        inputs = await self._worker.run(watch, self._decoder.compose, prompt, video.grid, video.tokens, geometry)
        length = len(inputs.embeds)
        self._refuse_too_long(ask, length)
        if ask.options:
            letters = letter_ids(self._tokenizer, len(ask.options))
            return choice_answer(torch.tensor(await self._engine.choose(watch, inputs, letters)), length)
        ids = await self._engine.generate(watch, inputs, ask.max_tokens)
        return Answer(self._tokenizer.decode(ids).strip(), None, length, len(ids))

    def _refuse_too_long(self, ask: Ask, prompt_tokens: int) -> None:
        wanted, limit = prompt_tokens + (1 if ask.options else ask.max_tokens), self._sizes.max_position_embeddings
        if wanted > limit:
            raise OutOfLimits(
                f"prompt and answer need {wanted} tokens and the model has {limit}: ask for fewer frames or max_tokens",
                field="frames",
                value=wanted,
                limit=limit,
            )

    def _self_test(self) -> None:
        """One token from a black clip of one grid cell: a replica that cannot compute never becomes ready."""
        prompt = build_prompt(self._tokenizer, "?", ("yes", "no"))
        with torch.inference_mode():
            video = self._decoder.see(torch.zeros(2, 28, 28, 3, dtype=torch.uint8))
            inputs = self._decoder.compose(prompt, Grid(1, 1, 1, 1.0), video)
            [probabilities] = self._decoder.choose([inputs], [letter_ids(self._tokenizer, 2)])
        if not probabilities.isfinite().all():
            raise RuntimeError("the decoder's self-test gave non-finite probabilities")


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Runs two coroutines side by side. When one fails the other is cancelled, and that one error is raised, bare."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
