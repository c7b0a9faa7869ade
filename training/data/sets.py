"""Question sets to be measured on: each question with the very video file that whoever answers may see.

A prediction must not see the frames it predicts. For it a shorter file is made, with only the frames before, and this
file is what the model in this process and a service far away both get.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from models.errors import InputError
from models.video import Sampling, read
from training.questions.engine import Plan, generate
from training.questions.records import Record, from_json
from training.questions.records import read as read_json
from training.questions.records import write as write_records
from training.scenes.clips import encode, read_cues, write_clips
from training.scenes.config import SceneConfig, Seeds
from training.scenes.scene import Scene

SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".mov", ".avi")
PREDICTION = "dir_pred"
HIDDEN = 2  # frames at the end of a public video that its predictions are about


@dataclass(frozen=True)
class Sample:
    """A question and its video: `frames` of `path`, spread evenly, are what is seen. `id` is unique in its set."""

    id: str
    record: Record
    path: Path
    frames: int


@dataclass(frozen=True)
class QuestionSet:
    """`missing`: videos that are not there, or cannot be read, with the number of questions that are lost."""

    samples: tuple[Sample, ...]
    missing: dict[str, int]


def scenes(directory: Path, count: int, first: int = 0, per_scene: int = 24) -> Iterator[tuple[int, int]]:
    """Renders held-out scenes `first`, `first + 1`, … and asks about them; yields (ready, all).

    Afterwards `of_records(directory / "questions.json", directory)` has the questions. What is there is not made again.
    """
    seeds = [Seeds.held_out(first + index) for index in range(count)]
    for ready in write_clips(directory, seeds, SceneConfig()):
        yield ready, count
    path = directory / "questions.json"
    if not path.exists():
        cues = [read_cues(directory / f"{Scene.name_of(seed)}.json") for seed in seeds]
        unfinished = path.with_suffix(".part")
        write_records(unfinished, generate(cues, Random(first), Plan(per_scene=per_scene), Counter()))
        os.replace(unfinished, path)


def of_records(file: Path, videos: Path, sampling: Sampling, cuts: Path, limit: int | None = None) -> QuestionSet:
    """The questions of a JSON or parquet file, ours or in the public format, whose videos lie in the folder `videos`.

    Shortened videos are written to `cuts`. With a `limit` that many questions are taken, evenly from the whole set.
    """
    records = list(records_of(file))
    if limit is not None and limit < len(records):
        records = [records[int(place)] for place in np.linspace(0, len(records) - 1, limit)]
    samples: list[Sample] = []
    missing = Counter[str]()
    for number, record in enumerate(records):
        path = find(videos, record.videoID)
        try:
            if path is None:
                raise FileNotFoundError(record.videoID)
            seen, frames = _seen(path, record, sampling, cuts)
        except (InputError, FileNotFoundError):
            missing[record.videoID] += 1
        else:
            samples.append(Sample(f"{number}/{record.videoID}", record, seen, frames))
    return QuestionSet(tuple(samples), dict(missing))


def records_of(file: Path) -> Iterable[Record]:
    """Records of a `.json` list or a `.parquet` table with the public fields; options may be a list or JSON text.

    Raises:
        ValueError: neither of the two, or a field is missing.
    """
    if file.suffix == ".json":
        return read_json(file)
    if file.suffix != ".parquet":
        raise ValueError(f"{file.name}: a question set is a .json or a .parquet file")
    import pyarrow.parquet

    return [from_json(_public(row)) for row in pyarrow.parquet.read_table(file).to_pylist()]


def find(videos: Path, name: str) -> Path | None:
    """The file of a video, whether or not its name has a suffix; never one outside the folder."""
    for suffix in SUFFIXES:
        path = videos / f"{name}{suffix}"
        if path.is_file() and path.resolve().is_relative_to(videos.resolve()):
            return path
    return None


def _public(row: dict[str, Any]) -> dict[str, Any]:
    options = row.get("options")
    return row | {"options": json.loads(options) if isinstance(options, str) else list(options or ())}


def _seen(path: Path, record: Record, sampling: Sampling, cuts: Path) -> tuple[Path, int]:
    """The file with what may be seen of the video, and how many frames of it are sampled."""
    frames = sampling.count or 32
    if not record.type.endswith(PREDICTION):
        return path, frames
    visible = min(record.extras.visible_frames if record.extras else frames - HIDDEN, frames - HIDDEN)
    cut = cuts / f"{path.stem}-first-{visible}-of-{frames}.mp4"
    if not cut.exists():
        cuts.mkdir(parents=True, exist_ok=True)
        clip = read(path, sampling)
        visible = min(visible, clip.sampled - HIDDEN)  # a video may have fewer frames than are sampled
        if visible < 2:
            raise FileNotFoundError(f"{record.videoID} has {clip.sampled} frames: too few to hide {HIDDEN}")
        # A file's clock is in milliseconds, and its frames must be evenly spaced.
        times = np.arange(visible) * round(1000 * float(np.diff(clip.times[: clip.sampled]).mean())) / 1000
        unfinished = cut.with_suffix(".part.mp4")
        encode(unfinished, clip.frames[:visible], times)
        os.replace(unfinished, cut)
    return cut, visible


def videos_of(samples: Sequence[Sample]) -> list[Path]:
    """Each file once, in the order of the questions."""
    return list(dict.fromkeys(sample.path for sample in samples))
