"""The decoder's engine: from a composed prompt to probabilities or tokens. Runs and is tested without ray.

`Engine` is what the decoder stage needs. `GenerateEngine` is the plain one: transformers' own `generate`, one request
after the other, nothing shared between them. It is also the oracle that any faster engine is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from models.decoder import Decoder, Inputs
from serve.trace import Stopwatch
from serve.worker import TorchWorker


class Engine(Protocol):
    async def see(self, watch: Stopwatch, frames: Tensor) -> Tensor:
        """Video tokens [V, D] of uint8 frames [F, H, W, 3]."""
        ...

    async def choose(self, watch: Stopwatch, inputs: Inputs, letters: Sequence[int]) -> list[float]:
        """Probabilities of the letters' ids as the next token; they sum to 1."""
        ...

    async def generate(self, watch: Stopwatch, inputs: Inputs, max_tokens: int) -> list[int]:
        """Greedy token ids, up to and including the end token."""
        ...


class GenerateEngine:
    def __init__(self, decoder: Decoder, worker: TorchWorker) -> None:
        self._decoder = decoder
        self._worker = worker

    async def see(self, watch: Stopwatch, frames: Tensor) -> Tensor:
        return await self._worker.run(watch, self._decoder.see, frames)

    async def choose(self, watch: Stopwatch, inputs: Inputs, letters: Sequence[int]) -> list[float]:
        [probabilities] = await self._worker.run(watch, self._decoder.choose, [inputs], [letters])
        return probabilities.tolist()

    async def generate(self, watch: Stopwatch, inputs: Inputs, max_tokens: int) -> list[int]:
        [ids] = await self._worker.run(watch, self._decoder.generate, [inputs], max_tokens)
        return ids
