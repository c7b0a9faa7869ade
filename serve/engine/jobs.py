"""One request on its way: what it has, what it needs next, what it has said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.errors import OutOfLimits
from models.rope import text_positions
from serve.cache import Source
from serve.engine.memory import Prefix
from serve.engine.requests import Choice, Piece, Request, Result, Text, Token
from serve.engine.sampling import Draw, Letters, chance
from serve.engine.transformer import KeysValues, Segment
from serve.engine.words import Words
from serve.trace import Stopwatch


@dataclass(frozen=True, eq=False)
class Step:
    """What a job does in the next pass. `want` None: its suffix does not end in this pass."""

    job: Job
    segment: Segment
    want: Choice | Draw | None


class Job:
    """Waits (for its geometry, a film, room), then runs (once it has room of its own), then is over."""

    def __init__(self, request: Request, prefix: Prefix, source: Source, words: Words, ends: frozenset[int]) -> None:
        self.request = request
        self.prefix = prefix
        self.source = source
        self.words = words
        self.ends = ends  # ids that end an answer
        self.events: asyncio.Queue[Piece | Result | BaseException] = asyncio.Queue()
        self.geometry: Tensor | None = None
        self.awaited: asyncio.Task[None] | None = None  # while the geometry is not here
        self.over = False
        self._task = request.task
        self._chance = chance(self._task)
        self._fed = 0  # tokens of the suffix that were passed
        self._tokens: list[Token] = []
        self._said = ""
        self._delivered = 0  # tokens that went out with a piece
        self._watch = Stopwatch()

    @property
    def suffix_tokens(self) -> int:
        return self._geometry_tokens + len(self.request.prompt.after)

    @property
    def own_tokens(self) -> int:
        """The most that it needs room for. The last token of an answer is never passed."""
        return self.suffix_tokens + (0 if isinstance(self._task, Choice) else self._task.max_tokens - 1)

    @property
    def answering(self) -> bool:
        """Whether it only needs its next token."""
        return self._fed == self.suffix_tokens

    def step(self, own: KeysValues, most: int) -> Step:
        """At most `most` tokens of the suffix, or the answer's last token; `own` is this job's room."""
        if self.answering:
            parts: tuple[list[int] | Tensor, ...] = ([self._tokens[-1].id],)
            start = self._fed + len(self._tokens) - 1
            count = 1
        else:
            start, count = self._fed, min(most, self.suffix_tokens - self._fed)
            parts = self._suffix(start, start + count)
        positions = text_positions(count, self.prefix.next_position + start)
        wanted = start + count >= self.suffix_tokens
        segment = Segment(parts, positions, own, start, self.prefix.room, wanted)
        return Step(self, segment, self._want() if wanted else None)

    def advance(self, step: Step, outcome: Letters | Token | None, watch: Stopwatch) -> Result | None:
        """The step was passed. Delivers what is certain of the text; returns the result with the last token."""
        self._watch.add(watch.seconds, watch.span)
        if not self.answering:
            self._fed += step.segment.count
        if isinstance(outcome, Letters):
            return self._result("choice", outcome)
        if isinstance(outcome, Token) and isinstance(step.want, Draw):
            return self._say(outcome, step.want.task)
        return None

    def refuse_too_large(self, max_bytes: int, token_bytes: int, max_length: int) -> None:
        """
        Raises:
            OutOfLimits: it would not fit if it were alone. Until its geometry is here, that is not counted.
        """
        whole = self.prefix.length + self.own_tokens
        asked = "the clip and its question" if isinstance(self._task, Choice) else "the clip, its question and answer"
        advice = "ask for fewer frames" if isinstance(self._task, Choice) else "ask for fewer frames or max_tokens"
        if whole > max_length:
            message = f"{asked} need {whole} tokens and the model has {max_length}: {advice}"
            raise OutOfLimits(message, field="frames", value=whole, limit=max_length)
        if whole * token_bytes > max_bytes:
            message = (
                f"{asked} need {whole * token_bytes} bytes of keys and values ({whole} tokens) and there are "
                f"{max_bytes}: {advice}"
            )
            raise OutOfLimits(message, field="frames", value=whole * token_bytes, limit=max_bytes)

    @property
    def _geometry_tokens(self) -> int:
        return 0 if self.geometry is None else len(self.geometry)

    def _suffix(self, start: int, stop: int) -> tuple[list[int] | Tensor, ...]:
        ids = list(self.request.prompt.after)
        if self.geometry is None:
            return (ids[start:stop],)
        border = len(self.geometry)
        return self.geometry[start:stop], ids[max(0, start - border) : max(0, stop - border)]

    def _want(self) -> Choice | Draw:
        if isinstance(self._task, Choice):
            return self._task
        # Drawn for greedy answers too: it costs nothing and keeps one path.
        return Draw(self._task, float(torch.rand((), generator=self._chance)))

    def _say(self, token: Token, task: Text) -> Result | None:
        self._tokens.append(token)
        ended = token.id in self.ends
        text = "" if ended else self.words.add(token.id)
        over = ended or self.words.stopped or len(self._tokens) == task.max_tokens
        if over:
            text += self.words.end()
        self._said += text
        fresh = self._tokens[self._delivered :]
        if text or over:
            self.events.put_nowait(Piece(text, tuple(fresh)))
            self._delivered = len(self._tokens)
        if not over:
            return None
        return self._result("stop" if self.words.stopped else "end" if ended else "length", None)

    def _result(self, finish: Literal["choice", "end", "stop", "length"], letters: Letters | None) -> Result:
        prefix = self.prefix
        if self.source == "miss":
            self._watch.add(prefix.watch.seconds, prefix.watch.span)
        return Result(
            text=self._said,
            tokens=tuple(self._tokens),
            finish=finish,
            probabilities=letters.probabilities if letters else None,
            logprobs=letters.logprobs if letters else None,
            prompt_tokens=prefix.length + self.suffix_tokens,
            video_tokens=prefix.video_tokens,
            geometry_tokens=self._geometry_tokens,
            about=prefix.about,
            source=self.source,
            seconds=self._watch.seconds,
            span=self._watch.span,
        )
