"""The engine's front and its schedule. All state changes in the event loop's thread, between two passes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

import torch
from torch import Tensor

from models.decoder import Decoder
from models.errors import OutOfLimits
from models.prompt import Tokenizer
from serve.cache import CacheStats, Source
from serve.engine import parity
from serve.engine.jobs import Job, Step
from serve.engine.memory import Chunk, Memory, Prefix
from serve.engine.requests import Film, Limits, Piece, Request, Result, Token, check
from serve.engine.sampling import Letters, pick
from serve.engine.transformer import KeysValues, Transformer
from serve.engine.words import Words
from serve.trace import Stopwatch
from serve.worker import TorchWorker


class Engine:
    """Answers many requests at a time on one model. Belongs to the event loop that first asks it.

    `wrap` may compile the token-wise halves of a layer, as `torch.compile` does. On a CPU it does not pay: 22 s of
    compiling, and passes of the same length.

    Raises:
        RuntimeError: the engine computes something else than transformers does with this model.
        ValueError: the device has less free memory than `limits` promise.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        worker: TorchWorker,
        limits: Limits,
        wrap: Callable[[Any], Any] = lambda function: function,
    ) -> None:
        self.limits = limits
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._worker = worker
        self._transformer = Transformer(decoder, wrap)
        self.deviation = parity.check(decoder, self._transformer)
        self._refuse_promise(worker.device)
        self._memory = Memory(limits.memory_bytes, self._transformer.token_bytes, self._transformer.room)
        self._waiting: dict[Job, None] = {}
        self._running: dict[Job, KeysValues] = {}
        self._driver: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._broken: BaseException | None = None
        self.passes = self.items = 0  # over questions and answers, and the requests in them

    async def answer(self, request: Request) -> Result:
        """The result alone. Cancelling it frees what the request holds, at once.

        Raises:
            OutOfLimits, InvalidQuestion: the request breaks a limit, which the error names.
            Exception: what `request.film` or `request.geometry` raised.
        """
        async for event in self.stream(request):
            if isinstance(event, Result):
                return event
        raise AssertionError("a stream ends with its result")

    async def stream(self, request: Request) -> AsyncGenerator[Piece | Result, None]:
        """Pieces of text as they become certain, then the result. Closing it cancels the request."""
        job = self._submit(request)
        try:
            while True:
                event = await job.events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Result):
                    return
        finally:
            self._leave(job)

    def flush(self, clips: str = "") -> None:
        """Forgets the prefixes of clips whose names start so; those in use, as soon as their requests are through."""
        self._memory.flush(clips)

    def check_health(self) -> None:
        """Raises when the schedule itself broke down, which no request can repair."""
        if self._broken is not None:
            raise RuntimeError(f"the engine broke down: {self._broken!r}") from self._broken

    @property
    def stats(self) -> CacheStats:
        return self._memory.stats

    @property
    def load(self) -> tuple[int, int]:
        """Requests that wait (for geometry, a film or room) and that run."""
        return len(self._waiting), len(self._running)

    @property
    def fullness(self) -> float:
        """Share of the memory that requests under way and their clips hold, in [0, 1]; what could go counts as free."""
        return self._memory.held / self._memory.max_bytes if self._memory.max_bytes else 0.0

    async def close(self) -> None:
        """Fails what is under way. The engine may be asked again, from another event loop too."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.cancel()
            await asyncio.wait({driver})
        self._fail_all(RuntimeError("the engine was closed"))

    # From here on: between two passes.

    def _submit(self, request: Request) -> Job:
        self.check_health()
        check(request, self.limits, len(self._decoder.embeddings))
        prefix, known = self._memory.find((request.clip, request.prompt.before))
        source: Source = "hit" if prefix.ready else "joined" if known else "miss"
        words = Words(self._tokenizer.decode, getattr(request.task, "stop", ()))
        job = Job(request, prefix, source, words, self._decoder.end_ids)
        prefix.jobs[job] = None
        self._waiting[job] = None
        if not known:
            self._fetch(prefix)
        if request.geometry is not None:
            job.awaited = asyncio.create_task(self._await_geometry(job, request.geometry))
        self._refuse_too_large([job])
        if self._driver is None or self._driver.done():
            self._wake = asyncio.Event()
            self._driver = _in_no_request(self._drive())
        self._wake.set()
        return job

    def _leave(self, job: Job) -> None:
        """The job is over: what it holds is free from now on, even if a pass still works on it."""
        if job.over:
            return
        job.over = True
        self._waiting.pop(job, None)
        if job.awaited is not None:
            job.awaited.cancel()
        own = self._running.pop(job, None)
        if own is not None:
            self._memory.free(own)
            job.prefix.pins -= 1
        del job.prefix.jobs[job]
        self._memory.leave(job.prefix)
        self._wake.set()

    def _fail(self, job: Job, error: BaseException) -> None:
        if not job.over:
            self._leave(job)
            job.events.put_nowait(error)

    def _fail_all(self, error: BaseException) -> None:
        for job in [*self._running, *self._waiting]:
            self._fail(job, error)

    def _fetch(self, prefix: Prefix) -> None:
        """Asks the longest waiting request for the film. It serves all of them, so it is no request's own task."""
        prefix.fetch = _in_no_request(self._await_film(prefix, next(iter(prefix.jobs))))

    async def _await_film(self, prefix: Prefix, job: Job) -> None:
        """A failure is that of the request that was asked; the next one is asked when it is its turn."""
        try:
            film = await job.request.film()
            self._refuse_other_shape(film)
            prefix.receive(film, self._decoder.tokens_per_second)
        except (Exception, asyncio.CancelledError) as error:
            if prefix.fetch is not asyncio.current_task():
                raise
            prefix.fetch = None
            self._fail(job, error)
        else:
            prefix.fetch = None
            self._refuse_too_large(list(prefix.jobs))
        self._wake.set()

    async def _await_geometry(self, job: Job, geometry_of: Callable[[], Awaitable[Tensor]]) -> None:
        try:
            geometry = await geometry_of()
            width = self._decoder.embeddings.shape[1]
            if geometry.ndim != 2 or geometry.shape[1] != width:
                raise ValueError(f"geometry of shape {tuple(geometry.shape)}; it is [Q, {width}]")
        except (Exception, asyncio.CancelledError) as error:
            if job.over:
                raise
            job.awaited = None
            self._fail(job, error)
            return
        job.geometry, job.awaited = geometry.to(self._decoder.embeddings), None
        self._refuse_too_large([job])
        self._wake.set()

    def _refuse_too_large(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                job.refuse_too_large(self.limits.memory_bytes, self._transformer.token_bytes, self._longest)
            except OutOfLimits as refusal:
                self._fail(job, refusal)

    @property
    def _longest(self) -> int:
        return self._decoder.model.config.text_config.max_position_embeddings

    def _refuse_other_shape(self, film: Film) -> None:
        vision, grid = self._decoder.model.config.vision_config, film.grid
        side = vision.patch_size * vision.spatial_merge_size
        expected = (vision.temporal_patch_size * grid.times, side * grid.rows, side * grid.columns, 3)
        if tuple(film.frames.shape) != expected:
            raise ValueError(f"frames of shape {tuple(film.frames.shape)} for {grid}, which needs {expected}")

    def _refuse_promise(self, device: str) -> None:
        if device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info(device)
            if self.limits.memory_bytes > free:
                raise ValueError(f"memory_bytes {self.limits.memory_bytes}: {device} has {free} free bytes")

    # The schedule.

    async def _drive(self) -> None:
        try:
            while True:
                if not await self._turn():
                    self._wake.clear()
                    await self._wake.wait()
        except Exception as error:
            self._broken = error
            self._fail_all(error)
            raise

    async def _turn(self) -> bool:
        """A pass and a chunk; whether there was either. In a function, so that an idle engine holds on to nothing."""
        self._admit()
        if steps := self._steps():
            await self._advance(steps)
        if prefix := self._unfinished():
            await self._extend(prefix)
        return bool(steps or prefix)

    def _admit(self) -> None:
        """First come, first served among those that could start; then room for the prefixes of those that wait."""
        for job in list(self._waiting):
            prefix = job.prefix
            if job.awaited is not None:
                continue
            if not prefix.ready and prefix.film is None:
                if prefix.fetch is None:
                    job.source = "miss"
                    self._fetch(prefix)
                continue
            own = self._memory.reserve(prefix, job.own_tokens)
            if own is None:
                return
            prefix.pins += 1
            del self._waiting[job]
            self._running[job] = own
        for job in self._waiting:
            if job.prefix.film is not None and job.prefix.room is None:
                self._memory.prepare(job.prefix)

    def _steps(self) -> list[Step]:
        """The next token of every running answer; then new questions, while there is room in the pass."""
        able = [job for job in self._running if job.prefix.ready]
        able.sort(key=lambda job: not job.answering)
        steps: list[Step] = []
        room = self.limits.batch_tokens
        for job in able[: self.limits.running]:
            if room == 0:
                break
            step = job.step(self._running[job], room)
            room -= step.segment.count
            steps.append(step)
        return steps

    def _unfinished(self) -> Prefix | None:
        """The prefix to go on with: one that a running request needs before one that is only hoped for."""
        jobs = [*self._running, *self._waiting]
        return next((job.prefix for job in jobs if job.prefix.room is not None and not job.prefix.ready), None)

    async def _advance(self, steps: Sequence[Step]) -> None:
        """One pass. When it fails, each half is tried, and so on: only those fail that cannot be computed, and what was
        too much for the device's memory goes in smaller parts."""
        watch = Stopwatch()
        self.passes, self.items = self.passes + 1, self.items + len(steps)
        try:
            outcomes = await self._worker.run(watch, self._pass, steps)
        except Exception as error:
            if len(steps) == 1:
                self._fail(steps[0].job, error)
                return
            middle = len(steps) // 2
            for half in (steps[:middle], steps[middle:]):
                if left := [step for step in half if not step.job.over]:
                    await self._advance(left)
            return
        for step, outcome in zip(steps, outcomes, strict=True):
            if step.job.over:
                continue
            if step.want is not None and outcome is None:
                self._fail(step.job, FloatingPointError("the decoder gave logits that are not finite"))
                continue
            result = step.job.advance(step, outcome, watch)
            if result is not None:
                self._leave(step.job)
                step.job.events.put_nowait(result)

    async def _extend(self, prefix: Prefix) -> None:
        """One chunk of a prefix. Its failure is that of all requests that wait for it."""
        watch = Stopwatch()
        chunk = prefix.chunk(self.limits.chunk_tokens)
        try:
            await self._worker.run(watch, self._fill, chunk)
        except Exception as error:
            for job in list(prefix.jobs):
                self._fail(job, error)
            return
        if prefix.room is chunk.room:
            prefix.advance(chunk, watch)

    # In the worker's thread.

    def _pass(self, steps: Sequence[Step]) -> list[Letters | Token | None]:
        logits = self._transformer.forward([step.segment for step in steps])
        rows = [row for row in logits if row is not None]
        wants = [step.want for step in steps if step.want is not None]
        outcomes = iter(pick(rows, wants) if wants else [])
        return [None if step.want is None else next(outcomes) for step in steps]

    def _fill(self, chunk: Chunk) -> None:
        self._transformer.forward([chunk.segment(self._decoder)])


def _in_no_request(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task in an empty context: a context says which request of Ray Serve calls belong to, and are cancelled with."""
    return asyncio.create_task(coroutine, context=contextvars.Context())
