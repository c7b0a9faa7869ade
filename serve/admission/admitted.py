"""The gate before a backend: a question goes through it, and teaches it what its clip costs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from serve.admission.costs import Costs
from serve.admission.gate import Gate
from serve.asking import AnswerBackend
from serve.messages import Ask, Reply, Said
from serve.trace import Made


class Admitted:
    """A `serve.asking.AnswerBackend`; raises Busy, too."""

    def __init__(self, backend: AnswerBackend, gate: Gate, costs: Costs) -> None:
        self._backend = backend
        self._gate = gate
        self._costs = costs

    def knock(self, caller: str) -> None:
        self._gate.knock(caller)

    async def answer(self, ask: Ask) -> Made[Reply]:
        async with self._turn(ask):
            made = await self._backend.answer(ask)
            self._costs.learn(ask, made)
        return made

    async def stream(self, ask: Ask) -> AsyncGenerator[Said | Made[Reply], None]:
        async with self._turn(ask), aclosing(self._backend.stream(ask)) as items:
            async for item in items:
                if isinstance(item, Made):
                    self._costs.learn(ask, item)
                yield item

    @asynccontextmanager
    async def _turn(self, ask: Ask) -> AsyncIterator[None]:
        with self._costs.expecting(ask) as patches:
            async with self._gate.turn(ask.caller, patches, ask.deadline - time.time()):
                yield
