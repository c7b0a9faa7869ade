"""Wrong options as the public sets draw them: white noise in the words of the true answer's kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import numpy as np

from training.questions.candidates import Candidate, candidates
from training.questions.cues import Cues
from training.questions.records import LETTERS, Record
from training.questions.templates import KINDS, TYPES, question
from training.questions.verbalise import Statements, numbered


def noisy(scenes: list[Cues], per_type: int, random: Random) -> Iterator[Record]:
    """`per_type` questions of each type and scene. Options have as many statements as the truth."""
    for cues in scenes:
        for type_ in TYPES:
            for asked, _ in zip(_tellable(cues, type_, random), range(per_type), strict=False):
                yield _record(asked, random)


def _tellable(cues: Cues, type_: str, random: Random) -> Iterator[Candidate]:
    """Those with at least two statements: one alone is neither smooth nor rough."""
    for asked in candidates(cues, type_, 60, random, Counter()):
        if 2 <= len(asked.statements) <= 4:
            yield asked


def _record(asked: Candidate, random: Random) -> Record:
    options = [asked.statements]
    noise = np.random.default_rng(random.getrandbits(32))
    while len(options) < 4:
        option = _spoken_noise(asked, noise)
        if option not in options:
            options.append(option)
    order = random.sample(options, len(options))
    text = question(asked.cues, asked.around, asked.ask, random)
    answer = LETTERS[order.index(asked.statements)]
    return Record(asked.cues.video, text, tuple(map(numbered, order)), answer, asked.ask.type)


def _spoken_noise(asked: Candidate, noise: np.random.Generator) -> Statements:
    while True:
        values = noise.normal(size=(30, *asked.values.shape[1:]))
        if asked.ask.kind in ("dis", "spd", "spd_comp"):
            values = np.abs(values)
        said = KINDS[asked.ask.kind].say(values)
        if len(said) >= len(asked.statements):
            return said[: len(asked.statements)]
