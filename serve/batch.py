"""Requests that wait for the same worker go through it together.

Natural batching: whatever has come while the worker was busy is one batch as soon as it is free. An idle stage answers
at once, and what fits into the next pass waits for one pass at most.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from serve.cache import CacheStats
from serve.messages import Report
from serve.trace import Stopwatch
from serve.worker import TorchWorker

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    """An item on its way. `done` is cancelled when its caller is."""

    item: Item
    cost: float
    kind: Hashable
    watch: Stopwatch
    done: asyncio.Future[Result]
    since: float


class Batcher(Generic[Item, Result]):
    """Runs `compute` on batches of items in the worker. Belongs to the event loop that asks it.

    A batch is the oldest item and, in the order of their arrival, later ones of the same `kind`, as long as their
    costs (above 0) add up to `max_cost` at most; a dearer item goes alone. `compute` gives one result for each item.
    When it fails, each half of the batch is tried, and so on, so that only the culprit fails, and what was too much
    for the device's memory goes in smaller parts. An item whose caller is
    cancelled before its pass starts is dropped. `linger_seconds` is how long the oldest item may wait for company that
    has not come yet.
    """

    def __init__(
        self,
        worker: TorchWorker,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        max_cost: float,
        *,
        cost: Callable[[Item], float] = lambda item: 1,
        kind: Callable[[Item], Hashable] = lambda item: None,
        linger_seconds: float = 0,
    ) -> None:
        self._worker = worker
        self._compute = compute
        self._max_cost = max_cost
        self._cost = cost
        self._kind = kind
        self._linger_seconds = linger_seconds
        self._waiting: list[_Entry[Item, Result]] = []
        self._running = 0
        self._running_cost = 0.0
        self.passes = self.items = 0  # since the start; an item that is tried again counts again
        self._lock = threading.Lock()  # the worker's thread takes from what the event loop appends to
        self._enough = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    def report(self, caches: dict[str, CacheStats]) -> Report:
        """Of a stage that does all its work here."""
        return Report(
            caches,
            *self.load,
            work=self.cost,
            passes=self.passes,
            items=self.items,
            device_bytes=self._worker.device_bytes,
        )

    async def run(self, watch: Stopwatch, item: Item) -> Result:
        """The item's result. `watch` gets the item's share, by cost, of the seconds of the passes that it was in."""
        loop = asyncio.get_running_loop()
        entry: _Entry[Item, Result] = _Entry(
            item, self._cost(item), self._kind(item), watch, loop.create_future(), loop.time()
        )
        with self._lock:
            self._waiting.append(entry)
        if self._is_enough():
            self._enough.set()
        if self._driver is None:
            # In an empty context: Ray Serve would cancel what is called in a request's context with that request.
            self._driver = asyncio.create_task(self._drive(), name="batches", context=contextvars.Context())
        return await entry.done

    @property
    def load(self) -> tuple[int, int]:
        """Items that wait, and that are being computed."""
        return len(self._waiting), self._running

    @property
    def cost(self) -> float:
        """Of all items that wait or are being computed."""
        return sum(entry.cost for entry in self._waiting) + self._running_cost

    async def _drive(self) -> None:
        try:
            while self._waiting:
                await self._linger()
                await self._pass(self._take)
        except Exception as error:  # the worker takes nothing any more: nobody may wait for it for ever
            for entry in self._waiting:
                _fail(entry, error)
            self._waiting = []
        finally:
            self._driver = None

    async def _linger(self) -> None:
        """Until the oldest has waited for `linger_seconds`, or enough waits for a whole batch."""
        self._enough.clear()
        if not self._linger_seconds or self._is_enough():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._waiting[0].since + self._linger_seconds):
                await self._enough.wait()

    def _is_enough(self) -> bool:
        return sum(entry.cost for entry in self._waiting) >= self._max_cost

    async def _pass(self, take: Callable[[], list[_Entry[Item, Result]]]) -> None:
        """One pass over what `take` gives. It takes in the worker's thread, when that is free, as late as possible."""
        batch: list[_Entry[Item, Result]] = []
        watch = Stopwatch()

        def compute() -> Sequence[Result]:
            batch.extend(take())
            self._running = len(batch)
            self._running_cost = sum(entry.cost for entry in batch)
            self.passes, self.items = self.passes + bool(batch), self.items + len(batch)
            results = self._compute([entry.item for entry in batch]) if batch else []
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
            return results

        try:
            results = await self._worker.run(watch, compute)
        except Exception as error:
            self._running, self._running_cost = 0, 0.0
            if not batch:  # not an item's fault
                raise
            _share(batch, watch)
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                await self._pass(partial(_wanted, half))
            return
        self._running, self._running_cost = 0, 0.0
        _share(batch, watch)
        for entry, result in zip(batch, results, strict=True):
            if not entry.done.done():
                entry.done.set_result(result)

    def _take(self) -> list[_Entry[Item, Result]]:
        """The next batch; empty when every caller has left."""
        with self._lock:
            waiting = [entry for entry in self._waiting if not entry.done.done()]
            batch: list[_Entry[Item, Result]] = []
            cost = 0.0
            for entry in waiting:
                if batch and entry.kind != batch[0].kind:
                    continue
                cost += entry.cost
                if batch and cost > self._max_cost:
                    break
                batch.append(entry)
            taken = set(batch)
            self._waiting = [entry for entry in waiting if entry not in taken]
            return batch


def _wanted(entries: list[_Entry[Item, Result]]) -> list[_Entry[Item, Result]]:
    return [entry for entry in entries if not entry.done.done()]


def _share(batch: Sequence[_Entry[Item, Result]], watch: Stopwatch) -> None:
    whole = sum(entry.cost for entry in batch)
    for entry in batch:
        entry.watch.add(watch.seconds * entry.cost / whole, watch.span)


def _fail(entry: _Entry[Item, Result], error: BaseException) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)
