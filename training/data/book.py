"""Questions of a store as tables: read and printed once, so that a step's batch is some rows of them.

    groups of questions ─► sheets (what is read, as token ids) + numbers ─► pages of a batch

Legend: N questions, Q geometry tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from models.tokenizer import QwenTokenizer
from training.data.scenes import SceneStore
from training.lessons.pages import Asked, Printer, Sheet

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
    def of(cls, store: SceneStore, groups: int, tokenizer: Path, processes: int) -> Book:
        """The questions of the first `groups` groups, printed with the tokenizer in a directory."""
        with ProcessPoolExecutor(max(1, processes), mp_context=get_context("spawn")) as pool:
            sheets = []
            for ready, pair in enumerate(pool.map(_printed, [store] * groups, range(groups), [tokenizer] * groups), 1):
                sheets.append(pair)
                sys.stderr.write(f"\rprinted: {ready} of {groups} groups" + "\n" * (ready == groups))
        lettered, written = (Sheet.joined([Sheet.unpacked(one[which]) for one in sheets]) for which in (0, 1))
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


def _printed(store: SceneStore, group: int, tokenizer: Path) -> tuple[dict[str, object], dict[str, object]]:
    """As arrays: the pool would hand tensors over by open files, of which there are only so many."""
    torch.set_num_threads(1)
    printer, found = Printer(QwenTokenizer(tokenizer)), store.questions(group)
    rows = zip(found["question"], found["options"], found["right"].tolist(), found["statements"], strict=True)
    asked: Sequence[Asked] = [Asked(*row) for row in rows]
    return printer.with_options(asked).packed(), printer.without_options(asked).packed()
