"""A text-only classifier: what can be learned about the right option from question and options, without the video.

A linear model scores every option; the four scores of a question go through a softmax. Features are hashed: words and
pairs of words of the option, its rank among the four, and each of them together with what the question tells (its
type, its words, the places and sizes of its boxes, its times), so that "a box at the left is told to be on the left"
can be learned.

Legend: R questions, O options of all questions, E entries (a feature of an option), H hash buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, compress, pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from training.questions.cues import FloatArray
from training.questions.heuristics import RULES, statements
from training.questions.records import LETTERS, Record
from training.questions.sharing import together

BUCKETS = 1 << 18
ROUNDS = 60
RATE = 0.3
DECAY = 3e-4  # of the weights, each round
SEVERAL_FOLDS = 5
_BOX = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")
_TIME = re.compile(r"(\d+\.\d) s")
# `car` of "the red car [", `camera` of "the camera"; no other "the" in between
_NAME = re.compile(r"\bthe (camera)\b|\bthe (?:(?!the\b)[^\[\]]+ )?(\w+) \[")

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Features of many options. Entry e says that option `option[e]` has feature `bucket[e]`.

    `option` [E], `bucket` [E], `question` [O]: the question of each option, `right` [R]: each question's right option.
    """

    option: IntArray
    bucket: IntArray
    question: IntArray
    right: IntArray


def held_out_points(records: Sequence[Record], seed: int = 0) -> list[float]:
    """For each question 1 or 0: does a classifier find the right option that never saw a question of this fold?

    A fold never shares a video, nor a set of options, with the others as long as several folds can be made so.
    """
    folds = split(records, seed)
    earned = np.zeros(len(records))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        if held.all():
            raise ValueError("all questions are about one video: nothing can be held out")
        weights = fit(table(list(compress(records, ~held))))
        asked = table(list(compress(records, held)))
        earned[held] = predict(weights, asked) == asked.right
    return earned.tolist()


def split(records: Sequence[Record], seed: int = 0) -> IntArray:
    """[R] the fold of each question. Videos that share a set of options go together, unless that leaves one fold."""
    parts = together(records)
    if len(parts) < 2:
        parts = {record.videoID: [record.videoID] for record in records}
    names = sorted(parts)
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {
        video: int(place) % SEVERAL_FOLDS for name, place in zip(names, order, strict=True) for video in parts[name]
    }
    return np.array([fold[record.videoID] for record in records])


def fit(data: Table) -> FloatArray:
    """[H] weights, by full gradient steps that are scaled per feature (Adagrad). Deterministic."""
    weights, seen = np.zeros(BUCKETS), np.full(BUCKETS, 1e-8)
    options, questions = len(data.question), len(data.right)
    truth = np.zeros(options)
    truth[data.right] = 1
    for _ in range(ROUNDS):
        scores = np.asarray(np.bincount(data.option, weights[data.bucket], options), np.float64)
        slope = (_softmax(scores, data.question, questions) - truth) / questions**0.5
        gradient = np.bincount(data.bucket, slope[data.option], BUCKETS) + DECAY * weights
        seen += gradient**2
        weights -= RATE * gradient / np.sqrt(seen)
    return weights


def predict(weights: FloatArray, data: Table) -> IntArray:
    """[R] the option with the highest score of each question."""
    scores = np.bincount(data.option, weights[data.bucket], len(data.question))
    order = np.lexsort((scores, data.question))
    last = np.flatnonzero(np.diff(data.question[order], append=-1))
    return order[last]


def table(records: Sequence[Record]) -> Table:
    option: list[IntArray] = []
    bucket: list[IntArray] = []
    question: list[int] = []
    right: list[int] = []
    for number, record in enumerate(records):
        right.append(len(question) + record.right)
        for features in _features(record):
            option.append(np.full(len(features), len(question)))
            bucket.append(features % BUCKETS)
            question.append(number)
    return Table(np.concatenate(option), np.concatenate(bucket), np.array(question), np.array(right))


def _softmax(scores: FloatArray, question: IntArray, questions: int) -> FloatArray:
    highest = np.full(questions, -np.inf)
    np.maximum.at(highest, question, scores)
    shares = np.exp(scores - highest[question])
    return shares / np.bincount(question, shares, questions)[question]


def _features(record: Record) -> Iterator[IntArray]:
    """One array of hashes per option."""
    told = _hashes([*_told(record)])
    ranks = {name: _ranks(rule(record.options)) for name, rule in RULES.items()}
    for place, option in enumerate(record.options):
        said = statements(option)
        alone = [*_said(said), LETTERS[place], *(f"{name} {rank[place]}" for name, rank in ranks.items())]
        alone += [f"{record.type} {feature}" for feature in alone]
        together = np.add.outer(told * 1_000_003, _hashes(_gist(said)))
        yield np.concatenate([_hashes(alone), together.ravel()])


def _hashes(features: Sequence[str]) -> IntArray:
    return np.array([crc32(feature.encode()) for feature in features], np.int64)


def _ranks(scores: Sequence[float]) -> list[int]:
    return [sum(other > score + 1e-9 for other in scores) for score in scores]


def _said(said: Sequence[str]) -> list[str]:
    """Words of an option: at the first, the last and any place, pairs of neighbours, and how many statements."""
    pairs = [f"{a} > {b}" for a, b in pairwise(said)]
    return [*said, *pairs, f"{len(said)} statements", *_gist(said)]


def _gist(said: Sequence[str]) -> list[str]:
    """The few features of an option that are put together with what the question tells."""
    first, last = (re.split(r"\|", said[place]) for place in (0, -1))
    words = {word for statement in said for word in statement.split("|")}
    return [
        *(f"first {w}" for w in first), *(f"last {w}" for w in last), *(f"any {w}" for w in sorted(words)),
        f"from {said[0]} to {said[-1]}",
    ]  # fmt: skip


def _told(record: Record) -> Iterator[str]:
    """What the question tells, each with its type and how many things it names: their classes, boxes and times."""
    question = record.question
    nouns = [camera or noun for camera, noun in _NAME.findall(question.lower())]
    boxes = [np.array([int(side) for side in sides]) for sides in _BOX.findall(question)]
    times = [float(time) for time in _TIME.findall(question)]
    kind = f"{record.type} {len(nouns)} {len(boxes)}"
    yield kind
    yield f"{kind} {nouns}"
    for role, noun in enumerate(nouns):
        yield f"{kind} {role} {noun}"
    for number, box in enumerate(boxes):
        for name, value in _box_numbers(box).items():
            yield f"{kind} box {number} {name} {value}"
    for (a, one), (b, other) in combinations(enumerate(boxes), 2):
        for name, value in _pair_numbers(one, other).items():
            yield f"{kind} boxes {a} {b} {name} {value}"
    for number, time in enumerate(times):
        yield f"{kind} time {number} {time:.0f}"
    for (a, one_time), (b, other_time) in combinations(enumerate(times), 2):
        yield f"{kind} times {a} {b} {2 * (other_time - one_time):.0f}"


def _box_numbers(box: IntArray) -> dict[str, str]:
    x, y = (box[:2] + box[2:]) / 2
    width, height = np.maximum(box[2:] - box[:2], 1)
    return {
        "x": f"{x / 80:.0f}",
        "y": f"{y / 80:.0f}",
        "xy": f"{x / 160:.0f} {y / 160:.0f}",
        "size": f"{np.log2(width * height):.0f}",
        "shape": f"{2 * np.log2(width / height):.0f}",
    }


def _pair_numbers(one: IntArray, other: IntArray) -> dict[str, str]:
    x, y = (one[:2] + one[2:] - other[:2] - other[2:]) / 2
    sizes = np.log2(np.maximum(one[2:] - one[:2], 1) / np.maximum(other[2:] - other[:2], 1))
    far = np.log2(np.hypot(x, y) + 10)
    return {"x": f"{x / 60:.0f}", "y": f"{y / 60:.0f}", "sizes": f"{sizes.mean():.0f}", "far": f"{far:.0f}"}
