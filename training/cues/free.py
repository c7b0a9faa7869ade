"""Free questions (type `non_temp`): a language model is told where things were, and writes one. Off unless asked for.

    python -m training.cues.free RECORDS --language-model URL --model NAME      # writes RECORDS/free.json

The model is any behind an OpenAI-compatible server; a key is read from OPENAI_API_KEY. It sees numbers, not the
video, so that it cannot ask about what geometry does not tell. What it writes is checked in its form, not in its truth:
look at it with `training.review` before anybody learns from it.

Exits with 1 when nothing came of a video, 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np

from training.cues import record
from training.cues.language_model import LanguageModel, object_in
from training.questions import records
from training.questions.cues import Cues, Track
from training.questions.viewpoints import camera_axes

TYPE = "non_temp"
MOMENTS = 8  # of a path that the model is told: enough for its shape
LONGEST_QUESTION, LONGEST_OPTION = 300, 200  # characters
MOST_TOKENS = 512
RULES = (
    "Things moved in a video. You get their positions over time in metres-like units, seen from where the camera "
    "stood at the start: forward, left, up. Write one multiple-choice question about their motion in 3D, "
    'as JSON {"question": "...", "options": ["...", "...", "...", "..."], "right": 0}. Times and things as they are '
    "given. `right` is the index of the one option that the numbers prove; the other three must be wrong by them, and "
    "as long and as likely by themselves."
)


def told(cues: Cues) -> dict[str, Any]:
    """What the model gets: times in seconds, and paths of the camera and of all things that are known at two moments.

    Positions are rounded to 0.1, as what is finer is noise; None where a thing was not seen.
    """
    moments = np.unique(np.linspace(0, len(cues.times) - 1, MOMENTS).round().astype(int))
    axes, origin = camera_axes(cues.camera_to_world)[0], cues.camera_to_world[0, :3, 3]

    def path(world: np.ndarray) -> list[list[float] | None]:
        placed = (world[moments] - origin) @ axes.T
        return [[round(float(x), 1) for x in place] if np.isfinite(place).all() else None for place in placed]

    def thing(track: Track) -> dict[str, Any]:
        first = int(np.isfinite(track.boxes).all(axis=1).argmax())
        return {"name": track.name, "box": np.nan_to_num(track.boxes[first]).round().astype(int).tolist(),
                "path": path(track.centres)}  # fmt: skip

    things = [made for made in map(thing, cues.tracks) if sum(place is not None for place in made["path"]) > 1]
    return {
        "times": [round(float(cues.times[moment]), 1) for moment in moments],
        "camera": path(cues.camera_to_world[:, :3, 3]),
        "things": things,
    }


def understood(text: str, cues: Cues, random: Random) -> records.Record:
    """The question with its options in a new order. ValueError says what is wrong with the answer."""
    data = object_in(text, cues.video)
    question, options, right = (data.get(name) for name in ("question", "options", "right"))
    if not isinstance(question, str) or not 0 < len(question.strip()) <= LONGEST_QUESTION:
        raise ValueError(f"{cues.video}: question must be a text of at most {LONGEST_QUESTION} characters")
    if not isinstance(options, list) or len(options) != 4 or not all(isinstance(option, str) for option in options):
        raise ValueError(f"{cues.video}: options must be four texts")
    options = [option.strip() for option in options]
    if any(not 0 < len(option) <= LONGEST_OPTION for option in options):
        raise ValueError(f"{cues.video}: options must have 1 to {LONGEST_OPTION} characters")
    if len({option.lower() for option in options}) != 4:
        raise ValueError(f"{cues.video}: two options are the same")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < 4:
        raise ValueError(f"{cues.video}: right is {right!r}, expected 0 to 3")
    order = random.sample(range(4), 4)
    letter = records.LETTERS[order.index(right)]
    return records.Record(cues.video, question.strip(), tuple(options[place] for place in order), letter, TYPE)


def write(cues: Cues, model: LanguageModel, random: Random) -> records.Record:
    """ValueError when the answer is no question, or nothing is known of the video; httpx.HTTPError without one."""
    facts = told(cues)
    if not facts["things"]:
        raise ValueError(f"{cues.video}: nothing is known long enough to ask about")
    return understood(model.ask(RULES, json.dumps(facts), MOST_TOKENS), cues, random)


def write_all(videos: Iterable[Cues], model: LanguageModel, random: Random) -> tuple[list[records.Record], list[str]]:
    """A question for each video, and what went wrong with the others."""
    made, errors = list[records.Record](), list[str]()
    for cues in videos:
        try:
            made.append(write(cues, model, random))
        except (ValueError, httpx.HTTPError) as error:
            errors.append(str(error) if isinstance(error, ValueError) else f"{cues.video}: {error!r}")
    return made, errors


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.cues.free", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("records", type=Path, help="folder that `python -m training.cues` made")
    parser.add_argument("--language-model", metavar="URL", required=True, help="OpenAI-compatible, ends with /v1")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0, help="of the options' order")
    given = parser.parse_args(arguments)
    usable = [found.cues for found in record.read_all(given.records) if found.usable]
    if not usable:
        sys.stderr.write(f"free: {given.records} has no usable record\n")
        return 2
    with LanguageModel.connect(given.language_model, given.model) as model:
        made, errors = write_all(usable, model, Random(given.seed))
    records.write(given.records / record.FREE, made)
    sys.stderr.write("".join(f"free: {error}\n" for error in errors))
    sys.stderr.write(f"{len(made)} questions in {given.records / record.FREE}\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
