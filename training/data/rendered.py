"""Rendered scenes as a question set: held-out seeds ─► clips and questions in a folder, read as any other set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from training.questions.engine import Plan, generate
from training.questions.records import write as write_records
from training.scenes.clips import read_cues, write_clips
from training.scenes.config import SceneConfig, Seeds
from training.scenes.scene import Scene
from training.whole import replacing

QUESTIONS = "questions.json"  # in the folder


@dataclass(frozen=True)
class Scenes:
    """`count` scenes from the `first` on, never used in training unless `train` says so, `per_scene` questions each."""

    count: int
    first: int = 0
    per_scene: int = 24
    train: bool = False
    config: SceneConfig = field(default_factory=SceneConfig)

    @property
    def seeds(self) -> list[int]:
        seed = Seeds.train if self.train else Seeds.held_out
        return [seed(self.first + index) for index in range(self.count)]

    def folder(self, cache: Path) -> Path:
        """Where they are kept: a folder for these fields and this code."""
        key = hashlib.sha256(f"{asdict(self)} {_code()}".encode()).hexdigest()[:12]
        return cache / f"scenes-{'train' if self.train else 'held-out'}-{self.count}-from-{self.first}-{key}"

    def make(self, folder: Path) -> Iterator[int]:
        """Writes the clips and then the questions that are not there yet; yields 1, 2, … as the clips are."""
        ready = 0
        for done in write_clips(folder, self.seeds, self.config):
            yield from range(ready + 1, done + 1)
            ready = done
        file = folder / QUESTIONS
        if file.exists():
            return
        cues = [read_cues(folder / f"{Scene.name_of(seed)}.json") for seed in self.seeds]
        with replacing(file) as unfinished:
            write_records(unfinished, generate(cues, Random(self.first), Plan(per_scene=self.per_scene)))


@cache
def _code() -> str:
    """Changes with the code that draws, renders and asks: what is kept of an older one is not used."""
    digest = hashlib.sha256()
    training = Path(__file__).parents[1]
    for file in sorted([*(training / "scenes").glob("*.py"), *(training / "questions").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
