"""Decoder stage: vision tower and language model, one engine for all requests of a replica.

The clip's prefix (vision tower, keys and values) is computed while the encoder and the selector work on the geometry;
the engine keeps it for the next question. What a question adds goes through together with other requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import torch
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from models import checkpoint
from models.prompt import LETTERS, Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.tokenizer import QwenTokenizer
from models.video import Clip
from models.vlm import clip_frames, clip_grid
from serve.calls import call
from serve.engine import Choice, Engine, Film, Limits, Request, Result, Text
from serve.messages import Ask, Reply, Seen
from serve.selector import Selected
from serve.settings import DecoderStage
from serve.tensors import unpack
from serve.trace import Made, Trace, Work, merge
from serve.worker import TorchWorker


@dataclass(frozen=True)
class About:
    """What is kept of a clip beside its prefix, and how its frames came to be."""

    seen: Seen
    trace: Trace


class Decoder:
    def __init__(
        self, settings: DecoderStage, location: str, frames: DeploymentHandle, selector: DeploymentHandle | None
    ) -> None:
        self._frames = frames
        self._selector = selector
        self._worker = TorchWorker(settings)
        layout = checkpoint.open_layout(location)
        self._tokenizer = QwenTokenizer(layout.decoder)
        self._decoder = checkpoint.load_decoder(layout, settings.device, self._worker.dtype)
        limits = Limits(
            memory_bytes=settings.cache_bytes,
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
            chunk_tokens=settings.chunk_tokens,
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
        prompt = build_prompt(self._tokenizer, ask.question, ask.options)
        traces: list[Trace] = []
        task = self._task(ask)
        result = await self._engine.answer(
            Request(str(ask.clip), prompt, task, self._film(ask), self._geometry(ask, prompt, traces))
        )
        return Made(_reply(result), merge(_own(result), *traces))

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()
        self._engine.check_health()

    def _task(self, ask: Ask) -> Choice | Text:
        if ask.options:
            return Choice(tuple(letter_ids(self._tokenizer, len(ask.options))))
        return Text(ask.max_tokens, ask.temperature, ask.top_p, ask.stop, ask.seed)

    def _film(self, ask: Ask) -> Callable[[], Awaitable[Film]]:
        async def film() -> Film:
            made: Made[Clip] = await call(self._frames.get, ask.clip)
            clip = made.value
            # Copied: a view would keep the clip's frames alive in the object store.
            seen = Seen(clip.facts, clip.times.copy())
            return Film(clip_frames(clip), clip_grid(clip), About(seen, made.trace))

        return film

    def _geometry(self, ask: Ask, prompt: Prompt, traces: list[Trace]) -> Callable[[], Awaitable[Tensor]] | None:
        selector = self._selector
        if not ask.geometry or selector is None:
            return None

        async def geometry() -> Tensor:
            selected: Made[Selected] = await call(selector.select, ask.clip, prompt.text_ids)
            traces.append(selected.trace)
            return unpack(selected.value.tokens, self._worker.device)

        return geometry

    def _self_test(self) -> None:
        """One token from a black clip of one grid cell: a replica that cannot compute never becomes ready."""
        prompt = build_prompt(self._tokenizer, "?", ("yes", "no"))
        with torch.inference_mode():
            video = self._decoder.see(torch.zeros(2, 28, 28, 3, dtype=torch.uint8))
            inputs = self._decoder.compose(prompt, Grid(1, 1, 1, 1.0), video)
            [probabilities] = self._decoder.choose([inputs], [letter_ids(self._tokenizer, 2)])
        if not probabilities.isfinite().all():
            raise RuntimeError("the decoder's self-test gave non-finite probabilities")


def _reply(result: Result) -> Reply:
    assert isinstance(result.about, About)  # noqa: S101 - it is what `_film` put there
    by_letter = dict(zip(LETTERS, result.probabilities, strict=False)) if result.probabilities else None
    return Reply(
        text=max(by_letter, key=by_letter.__getitem__) if by_letter else result.text.strip(),
        probabilities=by_letter,
        seen=result.about.seen,
        video_tokens=result.video_tokens,
        geometry_tokens=result.geometry_tokens,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=1 if by_letter else len(result.tokens),
    )


def _own(result: Result) -> Trace:
    """Whoever joined a prefix under way sees what was missed for it, but none of the seconds: they are another's."""
    assert isinstance(result.about, About)  # noqa: S101
    own = {"decoder": Work(result.seconds, "hit" if result.source == "hit" else "miss")}
    if result.source == "hit":
        return own
    if result.source == "joined":
        return {**{stage: Work(0.0, work.cache) for stage, work in result.about.trace.items()}, **own}
    return {**result.about.trace, **own}
