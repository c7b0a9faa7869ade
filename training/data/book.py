"""Questions of a store as tables: read and printed once, so that a step's batch is some rows of them.

    groups of questions ─► sheets (what is read, as token ids) + numbers ─► pages of a batch

Legend: N questions, Q geometry tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.tokenizer import QwenTokenizer
from training.data.scenes import SceneStore
from training.lessons.pages import Asked, Printer, Sheet

KINDS = ("lettered", "written")
NUMBERS = ("scene", "type", "seen", "seconds", "samples", "who", "times", "cells", "places", "moments")


@dataclass(frozen=True)
class Book:
    """Everything on the CPU, in the order of the scenes. `lettered`: with options, `written`: without.

    The rest as `SceneStore.questions` has it.
    """

    lettered: Sheet
    written: Sheet
    scene: Tensor
    type: Tensor
    seen: Tensor
    seconds: Tensor
    samples: Tensor
    who: Tensor
    times: Tensor
    cells: Tensor
    places: Tensor
    moments: Tensor

    @classmethod
    def of(cls, store: SceneStore, groups: int, tokenizer: Path) -> Book:
        """The questions of the first `groups` groups, printed with the tokenizer in a directory; made when missing."""
        pairs = [printed(store, group, tokenizer) for group in range(groups)]
        lettered, written = (Sheet.joined([Sheet(**pair[which]) for pair in pairs]) for which in KINDS)
        found = [store.questions(group) for group in range(groups)]
        return cls(lettered, written, *(torch.cat([one[name] for one in found]) for name in NUMBERS))

    def of_scenes(self) -> dict[int, range]:
        """The rows of each scene's questions."""
        scenes, counts = torch.unique_consecutive(self.scene, return_counts=True)
        ends = counts.cumsum(0).tolist()
        return {
            scene: range(end - count, end)
            for scene, count, end in zip(scenes.tolist(), counts.tolist(), ends, strict=True)
        }


def printed(store: SceneStore, group: int, tokenizer: Path) -> dict[str, dict[str, Any]]:
    """The fields of both sheets of a group, by their kind; kept in the store beside its questions."""

    def make() -> dict[str, dict[str, Any]]:
        printer, found = Printer(QwenTokenizer(tokenizer)), store.questions(group)
        rows = zip(found["question"], found["options"], found["right"].tolist(), found["statements"], strict=True)
        asked = [Asked(*row) for row in rows]
        sheets = printer.with_options(asked), printer.without_options(asked)
        return dict(zip(KINDS, (vars(sheet) for sheet in sheets), strict=True))

    return store.cached(f"{tokenizer.name}-{group:05d}.pt", make)
