"""The selector stage: a clip's key and the text of a question in, a few geometry tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from models import checkpoint
from models.rope import Grid
from models.selector import Memory
from serve.batch import Batcher
from serve.cache import CacheStats
from serve.calls import call
from serve.encoder import Features
from serve.keys import ClipKey, prefix_of
from serve.messages import Report
from serve.scaling import WORK
from serve.settings import SelectorStage
from serve.tensors import PackedTensor, pack, unpack
from serve.trace import Made, Stopwatch, TracedCache
from serve.worker import TorchWorker


@dataclass(frozen=True, eq=False)
class Selected:
    """Geometry `tokens` [Q, D]. `attention`, when asked for: float32 [Q, T, R, C], where in the clip's grid (times,
    rows, columns) each query looked, a mean over the heads; a query's weights sum to 1."""

    tokens: PackedTensor
    attention: PackedTensor | None = None

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + (self.attention.nbytes if self.attention is not None else 0)


@dataclass(frozen=True, eq=False)
class Question:
    """One question's text and the memory, on this replica's device, of the clip that it is about."""

    text_ids: tuple[int, ...]
    memory: Memory
    attention: bool


class Selector:
    """Keeps the memory of a clip and the tokens of a question, so that a new question costs two Q-Former layers.

    Questions that come while it is busy, about whatever clips, go through these layers together.
    """

    def __init__(self, settings: SelectorStage, location: str, encoder: DeploymentHandle) -> None:
        self._encoder = encoder
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        layout = checkpoint.open_layout(location)
        checkpoint.refuse_damaged(layout, "selector.safetensors")
        self._selector = checkpoint.load_selector(layout, settings.device, self._worker.dtype)
        self._embeddings = checkpoint.load_embeddings(layout)
        self._batches: Batcher[Question, Selected] = Batcher(
            self._worker, self._select, settings.batch_questions, linger_seconds=settings.linger_seconds
        )
        self._memories: TracedCache[Memory] = TracedCache("selector", settings.cache_bytes, lambda m: m.nbytes)
        self._tokens: TracedCache[Selected] = TracedCache("selector", settings.token_cache_bytes, lambda s: s.nbytes)
        self._self_test()

    async def select(self, key: ClipKey, text_ids: tuple[int, ...], attention: bool = False) -> Made[Selected]:
        """Geometry tokens for the question whose text tokens (`Prompt.text_ids`) are given, and with `attention` where
        in the clip they come from."""

        async def compute(watch: Stopwatch) -> Made[Selected]:
            memory = await self._memories.get(str(key), lambda memory_watch: self._remember(memory_watch, key))
            question = Question(text_ids, memory.value, attention)
            return Made(await self._batches.run(watch, question), memory.trace)

        silent, explained = f"{key} {text_ids}", f"{key} {text_ids} attention"
        return await self._tokens.get(explained if attention or explained in self._tokens else silent, compute)

    async def flush(self, video: str | None = None) -> None:
        """Forgets memories and tokens of every clip, or of one video's."""
        for cache in (self._memories, self._tokens):
            cache.flush(prefix_of(video))

    def stats(self) -> dict[str, CacheStats]:
        return {"memory": self._memories.stats, "tokens": self._tokens.stats}

    def report(self) -> Report:
        return self._batches.report(self.stats())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks: see `serve.scaling`."""
        return {WORK: self._batches.cost}

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    async def _remember(self, watch: Stopwatch, key: ClipKey) -> Made[Memory]:
        features: Made[Features] = await call(self._encoder.encode, key, clip=key)
        return Made(await self._worker.run(watch, self._memorise, features.value), features.trace)

    def _memorise(self, features: Features) -> Memory:
        tokens = unpack(features.tokens, self._worker.device).to(self._worker.dtype)
        return self._selector.project(self._selector.remember(tokens, features.grid), features.grid)

    def _select(self, questions: Sequence[Question]) -> list[Selected]:
        text = [self._embeddings[list(q.text_ids)].to(self._worker.device, self._worker.dtype) for q in questions]
        wanted = any(question.attention for question in questions)
        selection = self._selector.select(text, [question.memory for question in questions], wanted)
        weights: Sequence[Tensor | None] = selection.attention or [None] * len(questions)
        return [
            _packed(tokens, own if question.attention else None, question.memory.grid)
            for question, tokens, own in zip(questions, selection.tokens, weights, strict=True)
        ]

    def _self_test(self) -> None:
        with torch.inference_mode():
            nothing = torch.zeros(1, self._selector.config.hidden_size, device=self._worker.device)
            memory = self._selector.project(nothing.to(self._worker.dtype), Grid(1, 1, 1, 1.0))
            [selected] = self._select([Question((0,), memory, attention=False)])
        if not unpack(selected.tokens).isfinite().all():
            raise RuntimeError("the selector's self-test gave non-finite tokens")


def _packed(tokens: Tensor, attention: Tensor | None, grid: Grid) -> Selected:
    """tokens [Q, D], attention [Q, M]. Copied: a view that is kept would keep its whole batch."""
    weights = None
    if attention is not None:
        weights = rearrange(attention, "q (t r c) -> q t r c", t=grid.times, r=grid.rows, c=grid.columns)
    return Selected(pack(tokens.clone()), pack(weights.clone()) if weights is not None else None)
