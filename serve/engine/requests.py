"""What the engine is asked and what it answers. A request that breaks a limit is refused before it costs anything."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from models.errors import InvalidQuestion, OutOfLimits
from models.prompt import Prompt
from models.rope import Grid
from serve.cache import Source
from serve.trace import Span

MAX_TEMPERATURE = 2.0
MAX_STOPS = 16
MAX_ALTERNATIVES = 20


CHUNK_TOKENS, GPU_CHUNK_TOKENS = 1056, 2112


def chunk_for(device: str) -> int:
    """Tokens of a clip in one pass. On an H200 a 7B model takes 37 ms for a frame pair of 264 tokens and 64 for eight:
    pair by pair a cold answer took 1.49 s, eight by eight 0.59 (`tests/bench/README.md`). On a CPU with bfloat16
    instructions four by four take 12 % less than pair by pair; in float32 it makes no difference."""
    return CHUNK_TOKENS if device == "cpu" else GPU_CHUNK_TOKENS


@dataclass(frozen=True)
class Limits:
    """Of one engine. `memory_bytes`: keys and values of all prefixes and requests together; activations come on top,
    and are bounded by the tokens of a pass.

    `batch_tokens`: tokens of running answers and new questions in one pass; `chunk_tokens`: of a clip's prefix in one
    (at least one frame pair), which is how long a long clip can hold up the others; `running`: requests in a pass.
    """

    memory_bytes: int
    max_tokens: int = 1024
    batch_tokens: int = 1024
    chunk_tokens: int = CHUNK_TOKENS
    running: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}: {value} is below 1")
        if self.running > self.batch_tokens:
            raise ValueError(f"running: {self.running} answers do not fit into batch_tokens {self.batch_tokens}")


@dataclass(frozen=True)
class Film:
    """A clip: uint8 frames [F, H, W, 3] of a grid, and `about`, which comes back with every result about the clip."""

    frames: Tensor
    grid: Grid
    about: object = None


@dataclass(frozen=True)
class Choice:
    """One pass: the probabilities of the options' letters, whose ids these are, as the answer's first token.

    `logprobs`: also their log-probabilities among all tokens, which tell whether the model meant to name a letter.
    """

    letters: tuple[int, ...]
    logprobs: bool = False


@dataclass(frozen=True)
class Text:
    """Text until an end token, a stop string (which is left out) or `max_tokens`. Temperature 0: the likeliest token.

    `seed` None: another text every time. `logprobs`: that many likeliest alternatives beside each token; None: neither.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None


@dataclass(frozen=True)
class Request:
    """A task about a clip. `clip` names the content: requests of one name share what is computed from it.

    `film` is called only when the clip's prefix is not in memory, and one caller's film then serves all who wait.
    `geometry` is called at once; it gives [Q, W], or is None for an answer without geometry.
    """

    clip: str
    prompt: Prompt
    task: Choice | Text
    film: Callable[[], Awaitable[Film]]
    geometry: Callable[[], Awaitable[Tensor]] | None = None


@dataclass(frozen=True)
class Token:
    """`logprob` and the `top` alternatives (id, log-probability), of the model's own distribution, where asked for."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next part of a streamed text. The pieces' texts add up to the result's text, their tokens to its tokens."""

    text: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Result:
    """`tokens` include the end token. `seconds`: of the passes that this request took part in, and the `span` from the
    first to the last of them. `source`: of the prefix.

    With letters: `probabilities` in their order, adding up to 1; `logprobs` where asked for.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: Literal["choice", "end", "stop", "length"]
    probabilities: tuple[float, ...] | None
    logprobs: tuple[float, ...] | None
    prompt_tokens: int
    video_tokens: int
    geometry_tokens: int
    about: object
    source: Source
    seconds: float
    span: Span | None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]


def check(request: Request, limits: Limits, vocabulary: int) -> None:
    """
    Raises:
        OutOfLimits, InvalidQuestion: the caller's parameters; says which.
        ValueError: ids outside of the vocabulary, or no letters, which is an error of ours.
    """
    ids = [*request.prompt.before, *request.prompt.after]
    if isinstance(request.task, Choice):
        if not request.task.letters:
            raise ValueError("letters: none given")
        ids += request.task.letters
    else:
        _check_text(request.task, limits)
    wrong = [i for i in ids if not 0 <= i < vocabulary]
    if wrong:
        raise ValueError(f"token id {wrong[0]} is not in the vocabulary of {vocabulary}")
    if not request.prompt.after:
        raise ValueError("prompt.after: empty, so that there is no token to answer from")


def _check_text(task: Text, limits: Limits) -> None:
    _within("max_tokens", task.max_tokens, 1, limits.max_tokens)
    if not (math.isfinite(task.temperature) and 0 <= task.temperature <= MAX_TEMPERATURE):
        _refuse("temperature", task.temperature, f"0 to {MAX_TEMPERATURE}", MAX_TEMPERATURE)
    if not 0 < task.top_p <= 1:
        _refuse("top_p", task.top_p, "above 0 and at most 1", 1)
    if len(task.stop) > MAX_STOPS:
        _refuse("stop", len(task.stop), f"at most {MAX_STOPS} strings", MAX_STOPS)
    if "" in task.stop:
        _refuse("stop", "", "no empty string", None)
    if task.logprobs is not None:
        _within("logprobs", task.logprobs, 0, MAX_ALTERNATIVES)
    if task.seed is not None and not -(2**63) <= task.seed < 2**63:
        _refuse("seed", str(task.seed), "a 64-bit integer", None)


def _within(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise OutOfLimits(f"{field} {value}: this engine takes {low} to {high}", field=field, value=value, limit=high)


def _refuse(field: str, value: float | str, allowed: str, limit: float | None) -> None:
    raise InvalidQuestion(f"{field} {value!r}: {allowed}", field=field, value=value, limit=limit)
