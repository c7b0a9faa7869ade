"""From logits to a token or to the probabilities of letters. A row's outcome depends on that row alone.

Legend: B requests of a pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serve.engine.requests import Choice, Text, Token


@dataclass(frozen=True)
class Letters:
    """The outcome of a `Choice`."""

    probabilities: tuple[float, ...]
    logprobs: tuple[float, ...] | None


@dataclass(frozen=True)
class Draw:
    """How the next token of a `Text` is found: `uniform` in [0, 1) decides when the temperature is not 0."""

    task: Text
    uniform: float


def chance(task: Choice | Text) -> torch.Generator:
    """A request's own source of chance, on the CPU whatever the device: the same seed gives the same text."""
    source = torch.Generator()
    if isinstance(task, Choice) or task.seed is None:
        source.seed()
    else:
        source.manual_seed(task.seed)
    return source


def pick(logits: Sequence[Tensor], wanted: Sequence[Choice | Draw]) -> list[Letters | Token | None]:
    """One outcome per row of logits [V]; None where the logits are not finite."""
    rows = torch.stack(list(logits)).float()
    finite = rows.isfinite().all(dim=-1)
    fine = finite.tolist()
    rows = rows.where(finite[:, None], 0)  # drawing from what is no distribution would fail for the whole batch
    tokens = _tokens(rows, wanted)
    outcomes: list[Letters | Token | None] = []
    for index, want in enumerate(wanted):
        if not fine[index]:
            outcomes.append(None)
        elif isinstance(want, Choice):
            outcomes.append(_letters(rows[index], want))
        else:
            outcomes.append(_described(rows[index], tokens[index], want.task))
    return outcomes


def nucleus(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Ids [B] drawn from logits [B, V] by inversion: the likeliest tokens that together reach `top_p`, others never.

    The other arguments are [B], temperatures above 0.
    """
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature[:, None]
    likely, ids = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    reached = likely.cumsum(dim=-1)
    kept = likely * (reached - likely < top_p[:, None])
    summed = kept.cumsum(dim=-1)
    # Where rounding would land behind the last kept token, that one is meant.
    place = torch.searchsorted(summed, uniform[:, None] * summed[:, -1:], right=True)
    place = place.minimum((kept > 0).sum(dim=-1, keepdim=True) - 1)
    return ids.gather(1, place)[:, 0]


def _tokens(rows: Tensor, wanted: Sequence[Choice | Draw]) -> list[int]:
    """The next id of each row; of no meaning for a choice."""
    ids = rows.argmax(dim=-1)
    drawn = [(index, want) for index, want in enumerate(wanted) if isinstance(want, Draw) and want.task.temperature > 0]
    if drawn:
        chosen = torch.tensor([index for index, _ in drawn], device=rows.device)
        settings = [(want.task.temperature, want.task.top_p, want.uniform) for _, want in drawn]
        ids[chosen] = nucleus(rows[chosen], *torch.tensor(settings, device=rows.device).T)
    return ids.tolist()


def _letters(row: Tensor, want: Choice) -> Letters:
    letters = row[list(want.letters)]
    logprobs = tuple((letters - row.logsumexp(dim=-1)).tolist()) if want.logprobs else None
    return Letters(tuple(letters.softmax(dim=-1).tolist()), logprobs)


def _described(row: Tensor, token: int, task: Text) -> Token:
    if task.logprobs is None:
        return Token(token)
    logprobs = row.log_softmax(dim=-1)
    values, ids = logprobs.topk(min(task.logprobs, len(row)))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Token(token, float(logprobs[token]), top)
