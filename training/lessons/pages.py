"""Questions as padded token ids, with everything that the reading lesson asks of each position.

A page has two forms: with options (the answer is a letter) and without (the answer is text, statement by statement).
A `Sheet` keeps many of them small; a `Page` is some of its rows, on the device where they are read.

Legend: N, B questions, L tokens after the geometry tokens, T tokens that the selector reads (both padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.prompt import LETTERS, Prompt, build_prompt
from models.tokenizer import QwenTokenizer

OPTIONS = 4
NOTHING = -100


@dataclass(frozen=True)
class Asked:
    """What is printed of a question; `statements` are the true ones."""

    question: str
    options: tuple[str, ...]
    right: int
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """`ids` [N, L] and `length` [N]; `text` [N, T] and `text_length` [N]: what the selector reads of each prompt.

    `say` [N, L]: the token that this position should know, or -100. Without options it is the next token of the
    answer; with options, at every " (i)" it is the true i-th statement. `told` [N]: the place after the question, where
    its quantity should be known. With options: `ends` [N, 4], where an option has been read; `right` [N]; `same`
    [N, L]: 1 where this statement of an option is the true one, 0 where not, -100 elsewhere.
    """

    ids: Tensor
    length: Tensor
    text: Tensor
    text_length: Tensor
    say: Tensor
    told: Tensor
    ends: Tensor | None = None
    right: Tensor | None = None
    same: Tensor | None = None

    @classmethod
    def joined(cls, sheets: Sequence[Sheet]) -> Sheet:
        columns = ([getattr(sheet, field.name) for sheet in sheets] for field in fields(cls))
        return cls(*(_stacked(column) for column in columns))


@dataclass(frozen=True)
class Page:
    """Some rows of a sheet, no wider than they must be. `real` and `text_real` are False in the padding.

    `known` and `judged` are places in the flattened ids, `said` and `same` what is to be known there. `last` [B] is the
    place of the last token. `ends`, `right`, `judged`, `same` are there with options alone.
    """

    ids: Tensor
    real: Tensor
    last: Tensor
    text: Tensor
    text_real: Tensor
    told: Tensor
    known: Tensor
    said: Tensor
    ends: Tensor | None = None
    right: Tensor | None = None
    judged: Tensor | None = None
    same: Tensor | None = None

    @classmethod
    def of(cls, sheet: Sheet, rows: Tensor) -> Page:
        """The rows [B] of a sheet."""
        length, text_length = sheet.length[rows].long(), sheet.text_length[rows].long()
        wide, text_wide = int(length.max()), int(text_length.max())
        known, said = _taught(sheet.say[rows, :wide])
        page = cls(
            ids=sheet.ids[rows, :wide].long().clamp(min=0),
            real=torch.arange(wide) < length[:, None],
            last=length - 1,
            text=sheet.text[rows, :text_wide].long().clamp(min=0),
            text_real=torch.arange(text_wide) < text_length[:, None],
            told=sheet.told[rows].long(),
            known=known,
            said=said,
        )
        if sheet.ends is None or sheet.right is None or sheet.same is None:
            return page
        judged, same = _taught(sheet.same[rows, :wide])
        choice = {"ends": sheet.ends[rows].long(), "right": sheet.right[rows].long(), "judged": judged, "same": same}
        return cls(**{**{field.name: getattr(page, field.name) for field in fields(cls)}, **choice})


class Printer:
    """Makes sheets with one tokenizer. Every statement, and every number of one, must be a single token in it."""

    def __init__(self, tokenizer: QwenTokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.special.im_end
        self.numbers = {self._one(f" ({n})"): n - 1 for n in range(1, 16)}
        self.options, self.line = self._one("\nOptions:\n"), self._one("\n")
        self.before = build_prompt(tokenizer, "?").before
        self.letters = torch.tensor([self._one(letter) for letter in LETTERS[:OPTIONS]])

    def with_options(self, asked: Sequence[Asked]) -> Sheet:
        prompts = [build_prompt(self.tokenizer, one.question, one.options) for one in asked]
        say, same, ends, told = [], [], [], []
        for one, prompt in zip(asked, prompts, strict=True):
            ids = list(prompt.after)
            truth = [self._one(f" {statement}.") for statement in one.statements]
            begin, last = ids.index(self.options), len(ids) - 1 - ids[::-1].index(self.end)
            lines = [place for place in range(begin + 1, last) if ids[place] == self.line]
            known = [truth[self.numbers[i]] if i in self.numbers else NOTHING for i in ids]
            known = [token if begin < place < last else NOTHING for place, token in enumerate(known)]
            after = [NOTHING, *known[:-1]]
            same.append([NOTHING if t == NOTHING else int(t == i) for t, i in zip(after, ids, strict=True)])
            say.append(known)
            ends.append([*lines[: OPTIONS - 1], last])
            told.append(begin)
        plain = self._sheet(prompts, [prompt.after for prompt in prompts], say, told)
        right = torch.tensor([one.right for one in asked], dtype=torch.int8)
        return Sheet(**plain, ends=_small(torch.tensor(ends)), right=right, same=_rows(same, NOTHING).to(torch.int8))

    def without_options(self, asked: Sequence[Asked]) -> Sheet:
        prompts = [build_prompt(self.tokenizer, one.question) for one in asked]
        rows, say, told = [], [], []
        for one, prompt in zip(asked, prompts, strict=True):
            answer = [*self.tokenizer.encode(one.options[one.right]), self.end]
            rows.append([*prompt.after, *answer][:-1])
            say.append([NOTHING] * (len(prompt.after) - 1) + answer)
            told.append(len(prompt.after) - 1)
        return Sheet(**self._sheet(prompts, rows, say, told))

    def _sheet(
        self, prompts: Sequence[Prompt], rows: Sequence[Sequence[int]], say: Sequence[Sequence[int]], told: list[int]
    ) -> dict[str, Tensor]:
        text = [prompt.text_ids for prompt in prompts]
        return {
            "ids": _rows(rows, self.end),
            "length": _small(torch.tensor([len(row) for row in rows])),
            "text": _rows(text, self.end),
            "text_length": _small(torch.tensor([len(row) for row in text])),
            "say": _rows(say, NOTHING),
            "told": _small(torch.tensor(told)),
        }

    def _one(self, text: str) -> int:
        ids = self.tokenizer.encode(text)
        if len(ids) != 1:
            raise ValueError(
                f"{text!r} is {len(ids)} tokens, expected one: this tokenizer was not made for these lessons"
            )
        return ids[0]


def _taught(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where something is to be known in the flattened [B, L], and what."""
    flat = values.flatten()
    places = torch.nonzero(flat != NOTHING)[:, 0]
    return places, flat[places].long()


def _small(values: Tensor) -> Tensor:
    return values.to(torch.int16)


def _rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """int16 [N, the longest row], filled up with `value`."""
    return pad_sequence([torch.tensor(row, dtype=torch.int16) for row in rows], batch_first=True, padding_value=value)


def _stacked(parts: Sequence[Any]) -> Any:
    """Below each other; rows are filled up to the longest. What stands in the padding is never read."""
    if parts[0] is None:
        return None
    if parts[0].ndim == 1:
        return torch.cat(list(parts))
    wide = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, wide - part.shape[1]), value=NOTHING) for part in parts])
