"""Decoder stage: vision tower and language model, one engine for all requests of a replica.

The clip's prefix (vision tower, keys and values) is computed while the encoder and the selector work on the geometry;
the engine keeps it for the next question. What a question adds goes through together with other requests.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from models import checkpoint
from models.errors import InvalidQuestion
from models.prompt import LETTERS, build_chat, build_prompt, letter_ids
from models.rope import Grid
from models.tokenizer import QwenTokenizer
from models.tower import quicken
from models.video import Clip
from models.vlm import clip_frames, clip_grid
from serve.cache import CacheStats
from serve.calls import call
from serve.engine import Choice, Engine, Film, Limits, Piece, Request, Result, Text, Token, chunk_for
from serve.errors import Deadline
from serve.keys import ClipKey, prefix_of
from serve.messages import Ask, Explanation, Likely, Reply, Report, Said, Seen
from serve.scaling import FULL, WORK
from serve.selector import Selected
from serve.settings import DecoderStage
from serve.tensors import PackedTensor, unpack
from serve.trace import Made, Trace, Work, merge
from serve.worker import TorchWorker


@dataclass(frozen=True)
class About:
    """What is kept of a clip beside its prefix, and how its frames came to be."""

    seen: Seen
    trace: Trace


class Geometry:
    """The geometry tokens of one request, once they are selected; how they came to be, and what they looked at."""

    def __init__(self, selector: DeploymentHandle, device: str) -> None:
        self._selector = selector
        self._device = device
        self._attention: PackedTensor | None = None
        self.trace: Trace = {}

    async def select(self, clip: ClipKey, text_ids: tuple[int, ...], explain: bool) -> Tensor:
        """[Q, D]"""
        made: Made[Selected] = await call(
            self._selector.select, clip, text_ids, explain, clip=clip, by_value=not explain
        )
        self.trace = made.trace
        self._attention = made.value.attention if explain else None  # a kept result may have more than was asked for
        return unpack(made.value.tokens, self._device)

    def explanation(self, times: NDArray[np.float64]) -> Explanation | None:
        """`times` [F] of the frames. None where no attention was asked for."""
        if self._attention is None:
            return None
        attention = self._attention.array.astype(np.float64).mean(axis=0)
        middles = reduce(times, "(t s) -> t", "mean", t=len(attention))
        return Explanation((attention / attention.sum()).astype(np.float32), middles)


class Decoder:
    def __init__(
        self, settings: DecoderStage, location: str, frames: DeploymentHandle, selector: DeploymentHandle | None
    ) -> None:
        self._frames = frames
        self._selector = selector
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        layout = checkpoint.open_layout(location)
        checkpoint.refuse_damaged(layout, "decoder/")
        self._tokenizer = QwenTokenizer(layout.decoder)
        self._decoder = checkpoint.load_decoder(layout, settings.device, self._worker.dtype)
        quicken(self._decoder)
        limits = Limits(
            memory_bytes=settings.cache_bytes,
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
            chunk_tokens=settings.chunk_tokens or chunk_for(settings.device),
            running=settings.running,
        )
        self._self_test()
        self._engine = Engine(self._decoder, self._tokenizer, self._worker, limits)

    async def answer(self, ask: Ask) -> Made[Reply]:
        """
        Raises:
            InvalidQuestion: question and options make no sense together.
            OutOfLimits: `max_tokens` is beyond this deployment's, or the prompt beyond the model or the memory.
        """
        geometry = self._geometry(ask)
        async with _until(ask.deadline):
            return self._made(await self._engine.answer(self._request(ask, geometry)), geometry)

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        """The answer's text as it is written, then what `answer` returns. Closing it cancels the request.

        Raises what `answer` raises.
        """
        geometry = self._geometry(ask)
        async with aclosing(self._engine.stream(self._request(ask, geometry))) as events:
            async for event in _ending(events, ask.deadline):
                if isinstance(event, Result):
                    yield self._made(event, geometry)
                elif event.text:
                    yield Said(event.text, self._likely(event.tokens))

    async def flush(self, video: str | None = None) -> None:
        """Forgets the keys and values of one video, or of all."""
        self._engine.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"prefixes": self._engine.stats}

    def report(self) -> Report:
        engine = self._engine
        return Report(
            self.stats(),
            *engine.load,
            work=float(sum(engine.load)),
            full=engine.fullness,
            passes=engine.passes,
            items=engine.items,
            device_bytes=self._worker.device_bytes,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks: see `serve.scaling`."""
        return {WORK: float(sum(self._engine.load)), FULL: self._engine.fullness}

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()
        self._engine.check_health()

    def _request(self, ask: Ask, geometry: Geometry | None) -> Request:
        prompt = build_chat(self._tokenizer, ask.turns)
        task: Choice | Text
        if ask.options:
            task = Choice(tuple(letter_ids(self._tokenizer, len(ask.options))))
        else:
            task = Text(ask.max_tokens, ask.temperature, ask.top_p, ask.stop, ask.seed, ask.logprobs)
        select = None if geometry is None else partial(geometry.select, ask.clip, prompt.text_ids, ask.explain)
        return Request(str(ask.clip), prompt, task, partial(self._film, ask.clip), select)

    async def _film(self, clip_key: ClipKey) -> Film:
        made: Made[Clip] = await call(self._frames.get, clip_key, clip=clip_key)
        clip = made.value
        # Copied: a view would keep the clip's frames alive in the object store.
        seen = Seen(clip.facts, clip.times.copy())
        return Film(clip_frames(clip), clip_grid(clip), About(seen, made.trace))

    def _geometry(self, ask: Ask) -> Geometry | None:
        """
        Raises:
            InvalidQuestion: an explanation is asked for of an answer without geometry.
        """
        if ask.geometry and self._selector is not None:
            return Geometry(self._selector, self._worker.device)
        if ask.explain:
            raise InvalidQuestion("without geometry there is nothing to explain", field="explain", value=True)
        return None

    def _made(self, result: Result, geometry: Geometry | None) -> Made[Reply]:
        assert isinstance(result.about, About)  # noqa: S101 - it is what `_film` put there
        by_letter = dict(zip(LETTERS, result.probabilities, strict=False)) if result.probabilities else None
        reply = Reply(
            text=max(by_letter, key=by_letter.__getitem__) if by_letter else result.text.strip(),
            probabilities=by_letter,
            seen=result.about.seen,
            video_tokens=result.video_tokens,
            geometry_tokens=result.geometry_tokens,
            prompt_tokens=result.prompt_tokens,
            completion_tokens=1 if by_letter else len(result.tokens),
            finish="length" if result.finish == "length" else "stop",
            tokens=self._likely(result.tokens),
            explanation=geometry.explanation(result.about.seen.times) if geometry else None,
        )
        return Made(reply, merge(_own(result), geometry.trace if geometry else {}))

    def _likely(self, tokens: Sequence[Token]) -> tuple[Likely, ...]:
        """Those with log-probabilities, but for the end token, which is no text."""
        raw = self._tokenizer.raw
        return tuple(
            Likely(raw(token.id), token.logprob, tuple((raw(other), logprob) for other, logprob in token.top))
            for token in tokens
            if token.logprob is not None and token.id not in self._decoder.end_ids
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


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """Work that nobody waits for any more ends, even where the ingress that would cancel it is gone.

    Raises:
        Deadline: it is later than `deadline`, in seconds since 1970.
    """
    try:
        async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.time()):
            yield
    except TimeoutError:
        raise Deadline("nobody waits for this answer any more") from None


async def _ending(events: AsyncGenerator[Piece | Result, None], deadline: float) -> AsyncIterator[Piece | Result]:
    while True:
        async with _until(deadline):
            event = await anext(events, None)
        if event is None:
            return
        yield event


def _own(result: Result) -> Trace:
    """Whoever joined a prefix under way sees what was missed for it, but none of the seconds: they are another's."""
    assert isinstance(result.about, About)  # noqa: S101
    own = {"decoder": Work(result.seconds, "hit" if result.source == "hit" else "miss", result.span)}
    if result.source == "hit":
        return own
    if result.source == "joined":
        return {**{stage: Work(0.0, work.cache) for stage, work in result.about.trace.items()}, **own}
    return {**result.about.trace, **own}
