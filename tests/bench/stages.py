"""Every stage of one clip alone, as the service runs it: how long, how much of what the device can do, how much memory.

Legend: F frames, B questions at a time, Q geometry tokens, W model width, n tokens of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.prompt import letter_ids
from models.rope import text_positions
from serve.engine import Choice, Text, chunk_for
from serve.engine.memory import Prefix
from serve.engine.sampling import Draw, pick
from serve.engine.transformer import KeysValues, Segment, Transformer
from serve.trace import Stopwatch
from tests.bench import costs
from tests.bench.asked import OPTIONS, QUERIES, Model, asked, film
from tests.bench.meter import Ceilings, Measured, Meter
from tests.bench.record import MiB, Record, median

BATCHES = (1, 8, 32)
ANSWER = 32  # tokens of an answer so far, when a decoding step is measured


@dataclass(frozen=True)
class Stage:
    """`count` `unit`s came of each run. `operations`, `nbytes`: what it had to compute and to read, where counted."""

    name: str
    measured: Measured
    count: int
    unit: str
    operations: int | None = None
    nbytes: int | None = None

    def records(self, ceilings: Ceilings) -> Iterator[Record]:
        seconds = self.measured.seconds
        yield median(f"{self.name}_time", [1000 * s for s in seconds], "ms", "absolute")
        yield median(f"{self.name}_rate", [self.count / s for s in seconds], f"{self.unit}/s", "absolute")
        if self.operations is not None:
            rates = [self.operations / s for s in seconds]
            yield median(f"{self.name}_computes", [r / 1e12 for r in rates], "TFLOP/s", "absolute")
            yield median(f"{self.name}_of_matmul", [r / ceilings.matmul for r in rates], "1", "ceiling_matmul")
        if self.nbytes is not None:
            rates = [self.nbytes / s for s in seconds]
            yield median(f"{self.name}_reads", [r / 1e9 for r in rates], "GB/s", "absolute")
            yield median(f"{self.name}_of_copy", [r / ceilings.copy for r in rates], "1", "ceiling_copy")
        if self.measured.peak is not None:
            yield median(f"{self.name}_peak", [self.measured.peak / MiB], "MiB", "what was there before")


def geometry(model: Model, meter: Meter) -> Iterator[Stage]:
    """Encoder and merger over a clip, the selector for some questions about it."""
    shown = film(model.config.frames, 0)
    frames, grid = shown.frames, shown.grid
    encoder, selector, decoder = model.encoder, model.selector, model.decoder
    operations = costs.encoder(encoder.config, grid)
    patches = costs.PAIR * grid.size
    yield Stage("encoder", meter.measure(lambda: encoder(frames)), patches, "patches", operations)

    with torch.inference_mode():
        features = encoder(frames)
        geometry = selector.remember(features, grid)
        memory = selector.project(geometry, grid)
    operations = costs.merger(selector.config, grid)
    merged = meter.measure(lambda: selector.remember(features, grid))
    yield Stage("merger", merged, grid.size, "tokens", operations)

    project = meter.measure(lambda: selector.project(geometry, grid))
    yield Stage("memory", project, grid.size, "tokens", costs.counted(lambda: selector.project(geometry, grid)))

    for batch in BATCHES:

        def select(batch: int = batch) -> Tensor:
            text = [decoder.embed(asked(model.tokenizer, question).text_ids) for question in range(batch)]
            return selector.select(text, [memory] * batch).tokens

        yield Stage(f"selector_{batch}", meter.measure(select), batch, "questions", costs.counted(select))


def vision(model: Model, meter: Meter) -> Iterator[Stage]:
    """Qwen's tower over a clip: at once, as the plain engine calls it, and faster and in chunks, as the engine does."""
    shown, decoder = film(model.config.frames, 0), model.decoder
    frames, grid = shown.frames, shown.grid
    patches = costs.MERGE**2 * grid.size
    operations = costs.vision(model.config.decoder, grid)
    yield Stage("vision", meter.measure(lambda: decoder.see(frames)), patches, "patches", operations)
    chunks = torch.split(
        frames, len(frames) // grid.times * max(1, chunk_for(meter.device.type) // (grid.rows * grid.columns))
    )
    by_chunk = meter.measure(lambda: [model.served.see(chunk) for chunk in chunks])
    yield Stage("vision_by_chunk", by_chunk, patches, "patches", operations)


class Passes:
    """The language model's passes about one clip, on the engine's own transformer."""

    def __init__(self, model: Model, wrap: Callable[[Any], Any]) -> None:
        self._model = model
        self._transformer = Transformer(model.decoder, wrap)
        plain = Transformer(model.decoder)  # what is not measured need not be compiled
        self._film = film(model.config.frames, 0)
        with torch.inference_mode():
            self._video = model.decoder.see(self._film.frames)
        self._prompt = asked(model.tokenizer, 0)
        self._choice = Choice(tuple(letter_ids(model.tokenizer, len(OPTIONS))))
        self._prefix, segments = self.prefix(self._film.grid.size)
        with torch.inference_mode():
            for segment in segments:
                plain.forward([segment])

    @property
    def shared(self) -> KeysValues:
        assert self._prefix.room is not None
        return self._prefix.room

    @property
    def suffix_tokens(self) -> int:
        return QUERIES + len(self._prompt.after)

    def prefix(self, chunk_tokens: int) -> tuple[Prefix, list[Segment]]:
        """Room for a clip's prefix, and the passes that fill it, cut as the engine cuts them."""
        prefix, segments = Prefix(("clip", self._prompt.before)), []
        prefix.receive(self._film, self._model.decoder.tokens_per_second)
        prefix.room = self._transformer.room(prefix.length)
        while not prefix.ready:
            chunk = prefix.chunk(chunk_tokens)
            first = max(0, chunk.start - len(self._prompt.before))
            video = self._video[first : first + chunk.positions.shape[1] - len(chunk.before)]
            parts = (chunk.before, video)
            segments.append(Segment(parts, chunk.positions, chunk.room, chunk.start, wanted=False))
            prefix.advance(chunk, Stopwatch())
        return prefix, segments

    @torch.inference_mode()
    def fill(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self._transformer.forward([segment])

    def questions(self, batch: int) -> list[Segment]:
        """B suffixes: geometry tokens [Q, W], then the text after the video."""
        width, count = self._width, self.suffix_tokens
        geometry = torch.randn(QUERIES, width).to(self._video) / 10
        positions = text_positions(count, self._prefix.next_position)
        return [
            Segment((geometry, self._prompt.after), positions, self._transformer.room(count + ANSWER), 0, self.shared)
            for _ in range(batch)
        ]

    @property
    def _width(self) -> int:
        return self._video.shape[1]

    def steps(self, batch: int) -> list[Segment]:
        """The next token of B answers that are `ANSWER` tokens long with it."""
        start = self.suffix_tokens + ANSWER - 1
        positions = text_positions(1, self._prefix.next_position + start)
        room = [self._transformer.room(start + 1) for _ in range(batch)]
        for own in room:
            own.keys.zero_()
            own.values.zero_()
        return [Segment(([0],), positions, own, start, self.shared) for own in room]

    def choose(self, segments: Sequence[Segment]) -> object:
        return self._answer(segments, self._choice)

    def write(self, segments: Sequence[Segment]) -> object:
        return self._answer(segments, Draw(Text(ANSWER), 0.5))

    def _answer(self, segments: Sequence[Segment], want: Choice | Draw) -> object:
        if torch.cuda.is_available():
            # What an earlier pass left in captured graphs may go.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        rows = [row for row in self._transformer.forward(segments) if row is not None]
        return pick(rows, [want] * len(rows))


def language(model: Model, meter: Meter, wrap: Callable[[Any], Any]) -> Iterator[Stage]:
    """A clip's prefix in chunks and at once, the questions' suffixes in one pass, one step of the answers."""
    passes = Passes(model, wrap)
    tokens = passes.shared.keys.shape[2]
    config = model.config.decoder
    for name, most in (("prefix_by_chunk", chunk_for(meter.device.type)), ("prefix", tokens)):
        _, segments = passes.prefix(most)
        operations = sum(costs.language(config, [segment]) for segment in segments)
        yield Stage(name, meter.measure(partial(passes.fill, segments)), tokens, "tokens", operations)
    for batch in BATCHES:
        asked_for = passes.questions(batch)
        operations, nbytes = costs.language(config, asked_for), costs.pass_bytes(model.decoder, asked_for)
        measured = meter.measure(partial(passes.choose, asked_for))
        yield Stage(f"suffix_{batch}", measured, batch, "questions", operations, nbytes)
    yield from decoding(model, meter, passes)


def decoding(model: Model, meter: Meter, passes: Passes) -> Iterator[Stage]:
    for batch in BATCHES:
        steps = passes.steps(batch)
        operations, nbytes = costs.language(model.config.decoder, steps), costs.pass_bytes(model.decoder, steps)
        measured = meter.measure(partial(passes.write, steps))
        yield Stage(f"decode_{batch}", measured, batch, "tokens", operations, nbytes)


def sizes(model: Model) -> Iterator[Record]:
    """Weights by stage, and the keys and values that a clip takes while it is kept."""
    for name, module in (("encoder", model.encoder), ("selector", model.selector), ("decoder", model.decoder)):
        yield median(f"{name}_weights", [costs.module_bytes(module) / MiB], "MiB", "absolute")
    shown = film(model.config.frames, 0)
    transformer = Transformer(model.decoder)
    tokens = len(asked(model.tokenizer, 0).before) + shown.grid.size
    yield median("keys_and_values", [tokens * transformer.token_bytes / MiB], "MiB per clip", "absolute")
