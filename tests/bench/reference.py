"""What the service is compared with: `models.vlm` in this process, every answer from scratch, one after the other."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from models.video import read
from models.vlm import VisionLanguageModel
from serve.settings import DType
from serve.worker import fastest

OPTIONS = ["Become larger.", "Become smaller.", "Keep nearly constant.", "Become smaller. Become larger."]
RUNS = 5


def question(number: int) -> str:
    """Never the same twice, so that no cache knows the geometry tokens of the next one."""
    return f"How does the distance to the moving object change after {number / 10:.1f} s?"


@dataclass(frozen=True)
class Reference:
    """`baseline` names it in a figure, `suffix` ends the figure's name."""

    model: VisionLanguageModel
    baseline: str
    suffix: str = ""

    def seconds(self, video: bytes) -> float:
        """Of an answer: the better median of one thread and all; on a busy machine torch with all cores mostly
        waits."""
        medians = []
        for threads in {1, os.cpu_count() or 1}:
            torch.set_num_threads(threads)
            self._timed(video, 0)
            medians.append(statistics.median(self._timed(video, number) for number in range(RUNS)))
        return min(medians)

    def _timed(self, video: bytes, number: int) -> float:
        start = time.perf_counter()
        self.model.answer(read(video, self.model.sampling), question(number), OPTIONS)
        return time.perf_counter() - start


def references(checkpoint: str, dtype: DType) -> Iterator[Reference]:
    """First in float32, as models on CPUs compute; then in the type of a service of `dtype`, where that is another:
    what the service gains by more than its type."""
    yield Reference(VisionLanguageModel.load(checkpoint), "models.vlm")
    same = fastest("cpu") if dtype == "auto" else getattr(torch, dtype)
    if same != torch.float32:
        name = str(same).removeprefix("torch.")
        yield Reference(VisionLanguageModel.load(checkpoint, dtype=same), f"models.vlm in {name}", f"_over_{name}")
