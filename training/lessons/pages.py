"""Questions as padded token ids, with everything that the reading lesson asks of each position.

A page has two forms: with options (the answer is a letter) and without (the answer is text, statement by statement).

Legend: B questions, L tokens after the geometry tokens (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.prompt import LETTERS, build_prompt
from models.tokenizer import QwenTokenizer
from training.data.scenes import Asked

OPTIONS = 4
NOTHING = -100


@dataclass(frozen=True)
class Page:
    """`ids` [B, L] and `real` [B, L] (False: padding). `text`: what the selector reads of each prompt.

    `say` [B, L]: the token that this position should know, or -100. Without options it is the next token of the
    answer; with options, at every " (i)" it is the true i-th statement. `told` [B]: the place after the question, where
    its quantity should be known. With options: `ends` [B, 4], where an option has been read; `right` [B]; `same`
    [B, L]: 1 where this statement of an option is the true one, 0 where not, -100 elsewhere.
    """

    ids: Tensor
    real: Tensor
    text: list[Tensor]
    say: Tensor
    told: Tensor
    ends: Tensor | None = None
    right: Tensor | None = None
    same: Tensor | None = None

    def to(self, device: torch.device) -> Page:
        return Page(**{name: _moved(getattr(self, name), device) for name in self.__dataclass_fields__})

    @property
    def last(self) -> Tensor:
        """[B] the place of the last token."""
        return self.real.sum(1) - 1


class Printer:
    """Makes pages with one tokenizer. Every statement, and every number of one, must be a single token in it."""

    def __init__(self, tokenizer: QwenTokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.special.im_end
        self.numbers = {self._one(f" ({n})"): n - 1 for n in range(1, 16)}
        self.options, self.line = self._one("\nOptions:\n"), self._one("\n")
        self.before = build_prompt(tokenizer, "?").before
        self.letters = torch.tensor([self._one(letter) for letter in LETTERS[:OPTIONS]])

    def with_options(self, asked: Sequence[Asked]) -> Page:
        rows, say, same, ends, told, text = [], [], [], [], [], []
        for one in asked:
            prompt = build_prompt(self.tokenizer, one.question, one.options)
            ids = list(prompt.after)
            truth = [self._one(f" {statement}.") for statement in one.statements]
            begin, last = ids.index(self.options), len(ids) - 1 - ids[::-1].index(self.end)
            lines = [place for place in range(begin + 1, last) if ids[place] == self.line]
            known = [truth[self.numbers[i]] if i in self.numbers else NOTHING for i in ids]
            known = [token if begin < place < last else NOTHING for place, token in enumerate(known)]
            after = [NOTHING, *known[:-1]]
            same.append(
                torch.tensor([NOTHING if t == NOTHING else int(t == i) for t, i in zip(after, ids, strict=True)])
            )
            rows.append(torch.tensor(ids))
            say.append(torch.tensor(known))
            ends.append([*lines[: OPTIONS - 1], last])
            told.append(begin)
            text.append(torch.tensor(prompt.text_ids))
        ids_, real = _padded(rows, self.end)
        return Page(
            ids_, real, text, _padded(say, NOTHING)[0], torch.tensor(told), torch.tensor(ends),
            torch.tensor([one.right for one in asked]), _padded(same, NOTHING)[0],
        )  # fmt: skip

    def without_options(self, asked: Sequence[Asked]) -> Page:
        rows, say, told, text = [], [], [], []
        for one in asked:
            prompt = build_prompt(self.tokenizer, one.question)
            answer = [*self.tokenizer.encode(one.options[one.right]), self.end]
            ids = [*prompt.after, *answer]
            rows.append(torch.tensor(ids[:-1]))
            say.append(torch.tensor([NOTHING] * (len(prompt.after) - 1) + answer))
            told.append(len(prompt.after) - 1)
            text.append(torch.tensor(prompt.text_ids))
        ids_, real = _padded(rows, self.end)
        return Page(ids_, real, text, _padded(say, NOTHING)[0], torch.tensor(told))

    def _one(self, text: str) -> int:
        ids = self.tokenizer.encode(text)
        if len(ids) != 1:
            raise ValueError(
                f"{text!r} is {len(ids)} tokens, expected one: this tokenizer was not made for these lessons"
            )
        return ids[0]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [tensor.to(device) for tensor in value]
    return value if value is None else value.to(device)


def _padded(rows: Sequence[Tensor], value: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    padded = pad_sequence(list(rows), batch_first=True, padding_value=value)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
