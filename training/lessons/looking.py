"""How the selector is taught to look: token k of a question should know the k-th sample of what is asked about.

    question queries   which things the question names, and when          (read off by a linear layer)
    attention          each head on its thing, at the token's moment
    tokens             where these things are, and the question's own quantity

From the last error alone the selector stays where it started: what a word means and where it is seen must be found at
the same time.

Legend: B questions, Q geometry tokens, H heads, M memory tokens, D width; things: see `training.lessons.spots`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from models.rope import rotate
from models.selector import Angles, Selector
from training.lessons.reading import TOKEN_SIZE, weights
from training.lessons.samples import WIDTH
from training.lessons.spots import COLOUR, KIND, PLACE, THINGS, UNKNOWN
from training.loop.task import Metrics, Number

NAMES = len(KIND) + len(COLOUR)
NOWHERE = -1e4  # a logarithm of attention: what cannot be looked at
SECONDS = 5.0  # the unit of moments
PLACE_WEIGHT = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Sights:
    """`training.lessons.spots.Spots` of B questions: who [B, 3, 2], times [B, 3, Q], cells [B, 3, Q, cells],
    places [B, Q, 18], moments [B, Q, 3]."""

    who: Tensor
    times: Tensor
    cells: Tensor
    places: Tensor
    moments: Tensor


class LookingHead(nn.Module):
    """What reads the lesson off the selector; none of it is part of the model that is served."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sample = nn.Linear(width, WIDTH)
        self.place = nn.Linear(width, THINGS * PLACE)
        self.named = nn.Linear(width, THINGS * NAMES + 3)


@dataclass
class Overheard:
    """The normed question queries [B, Q, D] that enter Q-Former 2 and the logarithm of its attention [B, H, Q, M]."""

    queries: Tensor
    attention: Tensor


@contextmanager
def overhearing(selector: Selector, sights: Sights | None = None, guided: float = 0.0) -> Iterator[list[Overheard]]:
    """What passes through Q-Former 2 in this block. Its fused attention keeps no weights: here it is done step by step.

    For a random share `guided` of the questions the heads are pointed at their things, whatever they attend to by
    themselves: what is to be said of a thing is then learned before the thing is found.
    """
    attn, heard = selector.q_former_2.attn, list[Overheard]()

    def listen(
        x: Tensor, angles: Angles, keys: Tensor, values: Tensor, mask: Tensor, weights: bool
    ) -> tuple[Tensor, None]:
        size = selector.config.head_size
        q = rotate(rearrange(attn.q_proj(x), "b q (n e) -> b n q e", e=size), *angles)
        k, v = (repeat(one, "b k m e -> b (k g) m e", g=q.shape[1] // one.shape[1]) for one in (keys, values))
        scores = (q @ k.transpose(-1, -2)).float() / size**0.5
        scores = scores.masked_fill(~rearrange(mask, "b m -> b 1 1 m"), NOWHERE).log_softmax(dim=-1)
        heard.append(Overheard(x, scores))
        share = scores.exp()
        if sights is not None and guided:
            share = _pointed(share, sights, torch.rand(len(x), device=x.device) < guided)
        return attn.o_proj(rearrange(share.to(v.dtype) @ v, "b n q e -> b q (n e)")), None

    attn.forward = listen  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        del attn.forward


def _pointed(share: Tensor, sights: Sights, guided: Tensor) -> Tensor:
    """`share` [B, H, Q, M] with the first heads of the `guided` [B] questions on their things, where these are seen."""
    cells, known = _thing_cells(share, sights)
    grid = rearrange(share[:, :THINGS], "b h q (t c) -> b h q t c", c=cells.shape[-1])
    then = _then(sights, grid)
    even = cells / cells.sum(-1, keepdim=True).clamp(min=1)
    pointed = torch.zeros_like(grid).scatter(3, then, even.to(grid.dtype).unsqueeze(3))
    use = rearrange(known & guided[:, None, None], "b h q -> b h q 1 1")
    return torch.cat([rearrange(torch.where(use, pointed, grid), "b h q t c -> b h q (t c)"), share[:, THINGS:]], dim=1)


def lesson(
    head: LookingHead,
    heard: Overheard,
    tokens: Tensor,
    sights: Sights,
    samples: Tensor,
    types: Tensor,
    told: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss, a mean over the questions, and what to log: name -> (sum, count).

    `tokens` [B, Q, D] of the selector, `samples` [B, Q, 5], `types` [B]; `told` [B, Q, D]: the tokens that the language
    model has learned to read, to which these are drawn.
    """
    count, spoken = float(len(types)), tokens / TOKEN_SIZE
    weight = weights(types)[:, None]
    error = (weight * (head.sample(spoken).float() - samples).square()).sum((1, 2)) / (
        tokens.shape[1] * weight.sum((1, 2))
    )
    attended, mass, places = _attended(heard.attention, sights)
    who, when = _named(head.named(heard.queries).float(), sights)
    where = _placed(head.place(spoken).float(), sights)
    loss = error.mean() + 0.3 * attended + 0.3 * who + 2.0 * when + where
    metrics: dict[str, tuple[Number, Number]] = {
        "sample_error": (error.detach().sum(), count),
        "attention": (mass, places),
        "place_error": (where.detach() * count, count),
        "named": (who.detach() * count, count),
    }
    if told is None:
        return loss, metrics
    apart = ((tokens.float() - told.float()) / TOKEN_SIZE).square().mean()
    return loss + 0.5 * apart, {**metrics, "apart": (apart.detach() * count, count)}


def _attended(attention: Tensor, sights: Sights) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the mean logarithm of a head's attention on its thing; the sum of this attention, and of how many.

    Heads beyond the third are free.
    """
    cells, known = _thing_cells(attention, sights)
    grid = rearrange(attention[:, :THINGS], "b h q (t c) -> b h q t c", c=cells.shape[-1])
    at = grid.gather(3, _then(sights, grid)).squeeze(3)
    mass = torch.where(known, at.masked_fill(~cells, -torch.inf).logsumexp(-1), 0.0)
    known = known & (mass > NOWHERE / 2)
    mass = torch.where(known, mass, 0.0)
    total = known.sum().clamp(min=1)
    return -mass.sum() / total, (mass.detach().exp() * known).sum(), total


def _thing_cells(attention: Tensor, sights: Sights) -> tuple[Tensor, Tensor]:
    """The cells [B, 3, Q, C] to look at, and whether there are any in the clip that is seen [B, 3, Q]."""
    times = attention.shape[-1] // sights.cells.shape[-1]
    return sights.cells, sights.cells.any(-1) & (sights.times < times)


def _then(sights: Sights, grid: Tensor) -> Tensor:
    """The time to look at, as an index [B, 3, Q, 1, C] into `grid` [B, 3, Q, T, C]."""
    then = sights.times.clamp(max=grid.shape[3] - 1)
    return repeat(then, "b h q -> b h q 1 c", c=grid.shape[4])


def _named(found: Tensor, sights: Sights) -> tuple[Tensor, Tensor]:
    """Entropies of kind and colour of the things, and the squared error of the moments."""
    names = rearrange(found[..., : THINGS * NAMES], "b q (h n) -> b h q n", h=THINGS)
    kind, colour = names[..., : len(KIND)], names[..., len(KIND) :]
    who = repeat(sights.who, "b h two -> two b h q", q=found.shape[1])
    entropy = sum(
        F.cross_entropy(guess.reshape(-1, guess.shape[-1]), truth.reshape(-1), ignore_index=UNKNOWN, reduction="sum")
        for guess, truth in ((kind, who[0]), (colour, who[1]))
    )
    moments = (found[..., THINGS * NAMES :] - sights.moments / SECONDS).square().mean()
    return entropy / (who[0] != UNKNOWN).sum().clamp(min=1), moments


def _placed(found: Tensor, sights: Sights) -> Tensor:
    """Mean squared error of where the things are, over those that the question has."""
    there = (sights.who[:, :, 0] != UNKNOWN).to(found.dtype)
    weight = torch.tensor(PLACE_WEIGHT, device=found.device)
    error = rearrange((found - sights.places).square(), "b q (h c) -> b h q c", h=THINGS)
    error = (error * weight).sum((-1, -2)) / (found.shape[1] * weight.sum())
    return (error * there).sum() / there.sum().clamp(min=1)
