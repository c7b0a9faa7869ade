"""How the selector is taught to look: token k of a question should know the k-th sample of what is asked about.

Legend: B questions, Q geometry tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.lessons.reading import TOKEN_SIZE, weights
from training.lessons.samples import WIDTH
from training.loop.task import Metrics


class LookingHead(nn.Module):
    """Reads the samples off the geometry tokens; no part of the model that is served."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens / TOKEN_SIZE).float()


def lesson(
    head: LookingHead, tokens: Tensor, samples: Tensor, types: Tensor, told: Tensor | None = None
) -> tuple[Tensor, Metrics]:
    """The loss, a mean over the questions, and what to log: name -> (sum, count).

    `tokens` [B, Q, D] of the selector, `samples` [B, Q, 5], `types` [B]; `told` [B, Q, D]: the tokens that the language
    model has learned to read, to which these are drawn.
    """
    weight = weights(types)[:, None]
    error = (weight * (head(tokens) - samples).square()).sum((1, 2)) / (tokens.shape[1] * weight.sum((1, 2)))
    count = float(len(types))
    metrics = {"sample_error": (float(error.detach().sum()), count)}
    if told is None:
        return error.mean(), metrics
    apart = ((tokens.float() - told.float()) / TOKEN_SIZE).square().mean()
    return error.mean() + 0.5 * apart, {**metrics, "apart": (float(apart.detach()) * count, count)}
