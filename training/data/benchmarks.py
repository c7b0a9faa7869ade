"""Public benchmarks, each in its own files, as one kind of question set: `load(LAYOUTS["vsi-bench"], files, videos)`.

The names of fields are those of the files that the benchmarks' authors publish, as their own evaluation code reads
them. We had that code and descriptions at hand, not the files themselves: a row that is otherwise is reported as
unusable, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from models.prompt import question_text
from training.data.formats import Numeric, checked, options_of, record_of, rows_of
from training.data.sets import QuestionSet, of_rows
from training.questions.records import LETTERS, Record

Row = Mapping[str, Any]


def recipe(record: Record) -> str:
    """The prompt of the published training recipe, which every checkpoint of ours has learned."""
    return question_text(record.question, record.options)


@dataclass(frozen=True)
class Layout:
    """`read` makes a record of a row, or says by a ValueError why not. `prompt`: how its authors ask for a letter.

    `source`: where the format is described. `merged`: types that count as one where types are averaged; None where the
    published figure is an average over questions.
    """

    source: str
    read: Callable[[Any], Record]
    prompt: Callable[[Record], str] = recipe
    merged: Mapping[str, str] | None = None


def load(layout: Layout, files: Sequence[Path], videos: Path, limit: int | None = None) -> QuestionSet:
    """The questions of all files. ValueError when a file is of no kind that is known."""
    return of_rows(chain.from_iterable(map(rows_of, files)), layout.read, videos, limit)


def _asked_as_dsr_bench(record: Record) -> str:
    """As its authors' evaluation asks, after the video.

    Whether the options have their letters in the file as "A. " we could not see; without any there is no letter to say.
    """
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, record.options, strict=False))
    return (
        "These are the frames of a video. Select the best answer to the following multiple-choice question based on "
        "the video. Respond with only the letter (A, B, C, or D) of the correct option.\n"
        f"Question: {record.question}\n{options}\nAnswer:"
    )


def vsi_bench(row: Row) -> Record:
    """`dataset` and `scene_name` name the video, `dataset/scene_name.mp4`. `question_type`, `question`, `ground_truth`.

    `options` ("A. left") are null where `ground_truth` is a number; such a question ends in the authors' own request.
    """
    said = _told(row, "dataset", "scene_name", "question_type", "question", "ground_truth")
    video = f"{said['dataset']}/{said['scene_name']}"
    options = row.get("options")
    if options is None or len(options) == 0:
        question = f"{said['question']}\nPlease answer the question using a single word or phrase."
        return checked(Numeric(video, question, (), said["ground_truth"], said["question_type"]))
    return _record(video, said["question"], options_of(options), said["ground_truth"], said["question_type"])


def sti_bench(row: Row) -> Record:
    """`Video`, `Task`, `Question`, `Candidates` (an object of letters A to E, or its JSON), `Answer` a letter.

    `time_start` and `time_end` in seconds say of which part of the video is asked; as in the authors' code the whole
    video is shown and the question begins with them.
    """
    said = _told(row, "Video", "Task", "Question", "Answer", "time_start", "time_end")
    question = f"From {said['time_start']} s to {said['time_end']} s. {said['Question']}"
    return _record(said["Video"], question, _lettered(row.get("Candidates")), said["Answer"], said["Task"])


def vlm4d(row: Row) -> Record:
    """`video` is a URL whose part after `resolve/main/` is the path of the file; `choices` an object of letters A to D.

    `answer` is the text of the right choice. The type is the folder of the video: `videos_real`, `videos_synthetic`.
    """
    said = _told(row, "video", "question", "answer")
    path = said["video"].partition("resolve/main/")[2] or said["video"]
    options = _lettered(row.get("choices"))
    same = [option for option in options if option.strip().lower() == said["answer"].strip().lower()]
    answer = LETTERS[options.index(same[0])] if same else said["answer"]
    return _record(path, said["question"], options, answer, path.partition("/")[0])


def video_mme(row: Row) -> Record:
    """`videoID` (the file's name), `question`, `options` ("A. red"), `answer` a letter. The type is its `duration`."""
    said = _told(row, "videoID", "question", "answer", "duration")
    return _record(said["videoID"], said["question"], options_of(row.get("options")), said["answer"], said["duration"])


def _told(row: Any, *names: str) -> dict[str, str]:
    """The fields as text. ValueError when one is missing or empty."""
    if not isinstance(row, Mapping):
        raise ValueError(f"is a {type(row).__name__}, expected an object")
    missing = [name for name in names if row.get(name) in (None, "")]
    if missing:
        raise ValueError(f"a row has no {', '.join(missing)}")
    return {name: str(row[name]) for name in names}


def _record(video: str, question: str, options: Sequence[str], answer: str, type_: str) -> Record:
    return checked(Record(video, question, tuple(options), answer.strip().strip("().:"), type_))


def _lettered(given: Any) -> list[str]:
    """`{"A": "left", "B": …}`, or its JSON, in the order of the letters; a letter without text is not there."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise ValueError(f"options {given[:40]!r} are no JSON") from None
    if not isinstance(given, Mapping):
        raise ValueError(f"options are a {type(given).__name__}, expected an object of letters")
    there = {str(letter): str(option) for letter, option in sorted(given.items()) if option is not None}
    if "".join(there) != LETTERS[: len(there)]:
        raise ValueError(f"options have the letters {', '.join(there)}, expected {LETTERS} from the first on")
    return list(there.values())


_DIRECTIONS = {f"object_rel_direction_{level}": "object_rel_direction" for level in ("easy", "medium", "hard")}

LAYOUTS: Mapping[str, Layout] = {
    "dsr-bench": Layout("arXiv 2512.20557, the release's evaluation code", record_of, _asked_as_dsr_bench),
    "vsi-bench": Layout("arXiv 2412.14171, the evaluation code in lmms-eval", vsi_bench, merged=_DIRECTIONS),
    "sti-bench": Layout("arXiv 2503.23765, the authors' evaluation code", sti_bench),
    "vlm4d": Layout("the authors' description of the files", vlm4d),
    "video-mme": Layout("arXiv 2405.21075, the evaluation code in lmms-eval", video_mme),
}
