"""Question sets to learn from or to be measured on: our records, the public format, rendered scenes.

questions.json, benchmark.parquet  ─► records, what is unusable told ─► samples, each with the file of its video
held-out seeds ─► clips and questions in a folder ─► the same
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from models.errors import InputError
from models.prompt import question_text
from models.video import Clip, Sampling, read
from training.data.seen import shortened
from training.questions.engine import Plan, generate
from training.questions.records import LETTERS, Record, from_json
from training.questions.records import write as write_records
from training.scenes.clips import read_cues, write_clips
from training.scenes.config import SceneConfig, Seeds
from training.scenes.scene import Scene

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
QUESTIONS = "questions.json"  # in a folder of scenes
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*)", re.S)  # "A. Become larger."


@dataclass(frozen=True)
class Numeric(Record):
    """A question that is answered by a number, in `answer`, and has no options."""

    def __post_init__(self) -> None:
        if self.options or not isfinite(float(self.answer)):
            raise ValueError(f"{self.videoID}: answer {self.answer!r} of a question without options is no number")

    @property
    def number(self) -> float:
        return float(self.answer)


@dataclass(frozen=True)
class Sample:
    """A question and the file of its video. `id` is unique in its set."""

    id: str
    record: Record
    path: Path

    def clip(self, sampling: Sampling) -> Clip:
        """The frames that whoever answers may see, read now. InputError when the video cannot be read."""
        return shortened(read(self.path, sampling), self.record)


@dataclass(frozen=True)
class Missing:
    """A video that is not there or cannot be read, and how many questions are lost with it."""

    why: str
    questions: int


@dataclass(frozen=True)
class QuestionSet:
    """`missing`: by the name of the video. `unusable`: of each row that is no question, what is wrong with it."""

    samples: tuple[Sample, ...]
    missing: dict[str, Missing]
    unusable: tuple[str, ...] = ()

    def without(self, lost: dict[str, str]) -> QuestionSet:
        """The same without the samples (id: why) that turned out to have no video that can be read."""
        missing = dict(self.missing)
        for sample in self.samples:
            if sample.id in lost:
                name = sample.record.videoID
                missing[name] = Missing(lost[sample.id], 1 + (missing[name].questions if name in missing else 0))
        kept = tuple(sample for sample in self.samples if sample.id not in lost)
        return replace(self, samples=kept, missing=missing)


def of_records(file: Path, videos: Path, limit: int | None = None) -> QuestionSet:
    """The questions of a `.json` list or a `.parquet` table, ours or the public ones, and their files in `videos`.

    Names of videos may have a suffix or not. With a `limit` that many questions are taken, evenly from the whole set.

    Raises:
        ValueError: the file is neither of the two, or no list of records.
    """
    return of_rows(rows_of(file), record_of, videos, limit)


def of_rows(rows: Iterable[Any], made: Callable[[Any], Record], videos: Path, limit: int | None = None) -> QuestionSet:
    """The same of rows in any form: `made` of a row is its record, or a ValueError says why it is no question."""
    numbered = list(enumerate(rows))
    if limit is not None and limit < len(numbered):
        numbered = [numbered[int(place)] for place in np.linspace(0, len(numbered) - 1, limit)]
    samples: list[Sample] = []
    absent, unusable = Counter[str](), []
    for number, row in numbered:
        try:
            record = made(row)
        except ValueError as error:
            unusable.append(f"row {number}: {error}")
            continue
        path = find(videos, record.videoID)
        if path is None:
            absent[record.videoID] += 1
        else:
            samples.append(Sample(f"{number}/{record.videoID}", record, path))
    missing = {name: Missing("there is no such file", count) for name, count in absent.items()}
    return QuestionSet(tuple(samples), missing, tuple(unusable))


def find(videos: Path, name: str) -> Path | None:
    """The file of a video, whether or not its name has a suffix; never one outside the folder."""
    for suffix in ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        path = videos / f"{name}{suffix}"
        if path.is_file() and path.resolve().is_relative_to(videos.resolve()):
            return path
    return None


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
        unfinished = file.with_suffix(f".{os.getpid()}.part")
        write_records(unfinished, generate(cues, Random(self.first), Plan(per_scene=self.per_scene)))
        os.replace(unfinished, file)


@cache
def _code() -> str:
    """Changes with the code that draws, renders and asks: what is kept of an older one is not used."""
    digest = hashlib.sha256()
    training = Path(__file__).parents[1]
    for file in sorted([*(training / "scenes").glob("*.py"), *(training / "questions").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def rows_of(file: Path) -> Sequence[Any]:
    """What a `.json` list, a `.jsonl` or a `.parquet` table holds. ValueError when it is none of these."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if file.suffix == ".json":
        items = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(items, list):
            raise ValueError(f"{file.name} holds a {type(items).__name__}, expected a list of records")
        return items
    if file.suffix != ".parquet":
        raise ValueError(f"{file.name}: a question set is a .json, .jsonl or .parquet file")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(file).to_pylist()


def record_of(row: Any) -> Record:
    """ValueError when the row is no question with options that the prompt can hold."""
    if not isinstance(row, dict):
        raise ValueError(f"is a {type(row).__name__}, expected an object")
    if "options" in row and "answer" in row:
        options = options_of(row["options"])
        row = row | {"options": options, "answer": letter_of(str(row["answer"]), options)}
    return checked(from_json(row))


def checked(record: Record) -> Record:
    """The same. ValueError when the prompt cannot hold it."""
    if not all(isinstance(text, str) for text in (record.videoID, record.question, record.type)):
        raise ValueError(f"videoID, question and type must be text, got {record.videoID!r}")
    try:
        question_text(record.question, record.options)
    except InputError as error:
        raise ValueError(f"{record.videoID}: {error}") from None
    return record


def options_of(given: Any) -> list[str]:
    """A list, or the text of one as JSON or Python writes it; without letters of their own, which the prompt adds."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = _literal(given)
    if not isinstance(given, list | tuple):
        raise ValueError(f"options are a {type(given).__name__}, expected a list")
    options = [str(option) for option in given]
    own = [_LETTERED.fullmatch(option) for option in options]
    if all(match and match[1] == letter for match, letter in zip(own, LETTERS, strict=False)):
        return [match[2] for match in own if match]
    return options


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"options {text[:40]!r} are no list") from None


def letter_of(answer: str, options: list[str]) -> str:
    """`B` of `B`, `(B)`, `B.` or of the option itself; anything else as it is."""
    if answer in options and answer not in LETTERS:
        return LETTERS[options.index(answer)]
    return answer.strip().strip("().:")
