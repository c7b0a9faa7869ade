"""The selector stage: a clip's key and the text of a question in, a few geometry tokens out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from models import checkpoint
from models.rope import Grid
from serve.calls import call
from serve.encoder import Features
from serve.keys import ClipKey
from serve.settings import SelectorStage
from serve.tensors import PackedTensor, pack, unpack
from serve.trace import Made, Stopwatch, TracedCache
from serve.worker import TorchWorker


@dataclass(frozen=True)
class Memory:
    """A clip's geometry memory [M, D], on this replica's device: what every question about the clip starts from."""

    tokens: Tensor
    grid: Grid


class Selector:
    """Keeps the memory of a clip and the tokens of a question, so that a new question costs two Q-Former layers."""

    def __init__(self, settings: SelectorStage, location: str, encoder: DeploymentHandle) -> None:
        self._encoder = encoder
        self._worker = TorchWorker(settings.device, settings.dtype, settings.threads)
        layout = checkpoint.open_layout(location)
        self._selector = checkpoint.load_selector(layout, settings.device, self._worker.dtype)
        self._embeddings = checkpoint.load_embeddings(layout)
        self._memories: TracedCache[Memory] = TracedCache("selector", settings.cache_bytes, lambda m: m.tokens.nbytes)
        self._tokens: TracedCache[PackedTensor] = TracedCache(
            "selector", settings.token_cache_bytes, lambda tokens: tokens.nbytes
        )
        self._self_test()

    async def select(self, key: ClipKey, text_ids: tuple[int, ...]) -> Made[PackedTensor]:
        """Geometry tokens [Q, D] for the question whose text tokens (`Prompt.text_ids`) are given."""

        async def compute(watch: Stopwatch) -> Made[PackedTensor]:
            memory = await self._memories.get(str(key), lambda memory_watch: self._remember(memory_watch, key))
            return Made(await self._worker.run(watch, self._select, text_ids, memory.value), memory.trace)

        return await self._tokens.get(f"{key} {text_ids}", compute)

    def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self._worker.touch()

    async def _remember(self, watch: Stopwatch, key: ClipKey) -> Made[Memory]:
        features: Made[Features] = await call(self._encoder.encode, key)
        return Made(await self._worker.run(watch, self._merge, features.value), features.trace)

    def _merge(self, features: Features) -> Memory:
        tokens = unpack(features.tokens, self._worker.device).to(self._worker.dtype)
        return Memory(self._selector.remember(tokens, features.grid), features.grid)

    def _select(self, text_ids: tuple[int, ...], memory: Memory) -> PackedTensor:
        text = self._embeddings[list(text_ids)].to(self._worker.device, self._worker.dtype)
        return pack(self._selector.select([text], [memory.tokens], [memory.grid]).tokens[0])

    def _self_test(self) -> None:
        memory = Memory(torch.zeros(1, self._selector.config.hidden_size), Grid(1, 1, 1, 1.0))
        with torch.inference_mode():
            memory = Memory(memory.tokens.to(self._worker.device, self._worker.dtype), memory.grid)
            tokens = unpack(self._select((0,), memory))
        if not tokens.isfinite().all():
            raise RuntimeError("the selector's self-test gave non-finite tokens")
