"""Question sets to learn from or to be measured on: records, each with its video's file; what is missing is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.video import Clip, Sampling, read
from training.data.formats import record_of, rows_of
from training.data.seen import shortened
from training.questions.records import Record

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


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
