"""How the language model is taught to answer from geometry tokens: what to know at which layer of which token.

    after the question   its quantity, sampled              (a linear layer reads it)
    at " (2)"            the true second statement
    at a statement       whether it is the true one
    after an option      whether it is the right one
    at the end           the letter, or without options the text

Each is a small step from the one before, and each gets its own error; from letters alone none of it is found.

Legend: B questions, Q geometry tokens, L tokens after them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from training.lessons.pages import Page
from training.lessons.samples import SAMPLES, WEIGHTS, WIDTH
from training.loop.task import Metrics, Number
from training.questions.templates import TYPES

RECALLED = 8  # samples that are asked for after the question
TOKEN_SIZE = 0.1  # root mean square of a geometry token at the start: beside embeddings of 0.02 it is heard


@dataclass(frozen=True)
class Layers:
    """After which layer each thing should be known."""

    quantity: int = 3
    statement: int = 4
    same: int = 5
    option: int = 6


class Told(nn.Module):
    """Geometry tokens made of the true samples: what the selector should learn to say, and what reading starts with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH + len(TYPES), width), nn.GELU(), nn.Linear(width, width))
        self.queries = nn.Parameter(0.02 * torch.randn(SAMPLES, width))
        self.norm = nn.RMSNorm(width)
        nn.init.constant_(self.norm.weight, TOKEN_SIZE)

    def forward(self, samples: Tensor, types: Tensor) -> Tensor:
        """samples [B, Q, 5], types [B] -> [B, Q, D]."""
        kind = F.one_hot(types, len(TYPES)).to(samples.dtype)[:, None].expand(-1, samples.shape[1], -1)
        return self.norm(self.mlp(torch.cat([samples, kind], dim=-1)) + self.queries)


class ReadingHeads(nn.Module):
    """What reads the lesson off the hidden states; none of it is part of the model that is served."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.quantity = nn.Linear(width, RECALLED * WIDTH)
        self.statement = nn.RMSNorm(width)
        self.same = nn.Linear(width, 1)
        self.option = nn.Linear(width, 1)


def weights(types: Tensor) -> Tensor:
    """[B, 5] how much each of the samples' numbers counts for questions of these types."""
    table = torch.tensor([WEIGHTS[key.split("_", 1)[1]] for key in TYPES], device=types.device)
    return table[types]


def lesson(
    heads: ReadingHeads,
    page: Page,
    hidden: Sequence[Tensor],
    embeddings: Tensor,
    letters: Tensor,
    samples: Tensor,
    types: Tensor,
    layers: Layers = Layers(),
) -> tuple[Tensor, Metrics]:
    """The loss, a mean over the questions, and what to log: name -> (sum, count).

    `hidden`: the states [B, L, D] of the page's tokens, before the first layer, after each, and normed at the end.
    """
    rows, count = torch.arange(len(page.ids), device=page.ids.device), float(len(page.ids))
    recalled = heads.quantity(hidden[layers.quantity][rows, page.told]).float()
    loss = _quantity(rearrange(recalled, "b (r c) -> b r c", c=WIDTH), samples, types)
    metrics: dict[str, tuple[Number, Number]] = {"quantity": (loss.detach() * count, count)}
    state = hidden[-1] if page.right is None else heads.statement(hidden[layers.statement])
    said = (state.flatten(0, 1)[page.known] @ embeddings.T).float()
    loss = loss + F.cross_entropy(said, page.said)
    hit = (said.argmax(-1) == page.said).sum()
    metrics["text" if page.right is None else "statement"] = (hit, float(len(page.said)))
    if page.right is None or page.same is None or page.ends is None:
        return loss, metrics
    same = heads.same(hidden[layers.same].flatten(0, 1)[page.judged]).squeeze(-1).float()
    option = heads.option(hidden[layers.option][rows[:, None], page.ends]).squeeze(-1).float()
    letter = (hidden[-1][rows, page.last] @ embeddings[letters].T).float()
    loss = loss + F.binary_cross_entropy_with_logits(same, page.same.float())
    loss = loss + F.cross_entropy(option, page.right) + F.cross_entropy(letter, page.right)
    metrics["option"] = ((option.argmax(-1) == page.right).sum(), count)
    metrics["letter"] = ((letter.argmax(-1) == page.right).sum(), count)
    return loss, metrics


def _quantity(recalled: Tensor, samples: Tensor, types: Tensor) -> Tensor:
    """The mean squared error [B, 8, 5] of every fourth sample or so, each number with its weight."""
    places = torch.linspace(0, samples.shape[1] - 1, RECALLED, device=samples.device).round().long()
    weight = weights(types)[:, None]
    error = weight * (recalled - samples[:, places]).square()
    return (error.sum((1, 2)) / (RECALLED * weight.sum((1, 2)))).mean()
