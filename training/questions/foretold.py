"""What the text of a question foretells of its answer, learned from the questions about other videos.

A box at the left edge tells where a thing is for the camera; a wide box shows a car from its side; a class that is
quick is likely to be the faster one. A linear model predicts the answer in numbers from such things. Questions whose
predictions differ only where their answers agree can share their answers as options.

Legend: M questions, A numbers of an answer, T numbers of a text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.questions.candidates import Candidate
from training.questions.cues import FloatArray
from training.questions.templates import KINDS
from training.questions.verbalise import Statements, directions, place
from training.questions.viewpoints import Body

FOLDS = 4
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
# A number of the answers that is predicted worse than this (share of its variance) counts as not foretold.
LEAST_FORETOLD = 0.005
SHRINK = 0.05  # of the residuals' covariance towards a multiple of the identity
MANY = 8  # answers with more statements have one mean
COMMON = 60  # words that are common enough to learn from

IntArray = NDArray[np.int64]
Group = tuple[str, bool, bool]


def group(candidate: Candidate) -> Group:
    """What must agree for texts to foretell in the same way: the type, who looks, and whether at itself or a camera."""
    ask = candidate.ask
    return ask.type, ask.viewer == 0, ask.viewer in ask.targets or 0 in ask.targets


def learn(candidates: Iterable[Candidate]) -> dict[Group, Foretold]:
    """What the texts of each group foretell; a group about too few videos to learn from is left out."""
    groups: dict[Group, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[group(candidate)].append(candidate)
    videos = {own: {candidate.cues.video for candidate in members} for own, members in groups.items()}
    return {own: Foretold(members) for own, members in groups.items() if len(videos[own]) >= FOLDS}


class Foretold:
    """A linear model of one group's answers. What it says of a question was learned without the question's video."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        counted = Counter(word for candidate in candidates for word in sorted(_words(candidate)))
        self.column = {word: number for number, (word, _) in enumerate(counted.most_common(COMMON))}
        texts = self._texts(candidates)
        self.middle, self.spread = texts.mean(0), np.maximum(texts.std(0), 0.05)
        self.spread[: len(self.column)] = 1
        counts, answers = _counts(candidates), np.stack([_answer(candidate) for candidate in candidates])
        self.means = {int(count): answers[counts == count].mean(0) for count in np.unique(counts)}
        videos = sorted({candidate.cues.video for candidate in candidates})
        self.fold = {video: number % FOLDS for number, video in enumerate(videos)}
        fold = self._folds(candidates)
        answers, texts = self._centred(candidates), (texts - self.middle) / self.spread
        self.weights = _ridge(texts, answers, fold)
        residual = answers - _predicted(texts, self.weights, fold)
        covariance = residual.T @ residual / len(residual)
        covariance += (SHRINK * np.trace(covariance) / len(covariance) + 1e-6) * np.eye(len(covariance))
        size, axes = np.linalg.eigh(covariance)
        self.scale = axes / np.sqrt(size)

    def __call__(self, candidates: Sequence[Candidate]) -> tuple[FloatArray, FloatArray]:
        """[M, A] predictions and [M, A] answers, both scaled so that what is not foretold has variance 1.

        Their product is then the log of how much likelier a text makes an answer, but for terms of only one of the two.
        """
        texts = (self._texts(candidates) - self.middle) / self.spread
        guesses = _predicted(texts, self.weights, self._folds(candidates))
        return guesses @ self.scale, self._centred(candidates) @ self.scale

    def _folds(self, candidates: Sequence[Candidate]) -> IntArray:
        """[M]; a video that nothing was learned from may be in any."""
        return np.array([self.fold.get(candidate.cues.video, 0) for candidate in candidates])

    def _centred(self, candidates: Sequence[Candidate]) -> FloatArray:
        """[M, A] numbers of the answers, less their mean over the answers with as many statements."""
        nothing = np.zeros_like(next(iter(self.means.values())))
        means = [self.means.get(int(count), nothing) for count in _counts(candidates)]
        return np.stack([_answer(candidate) for candidate in candidates]) - np.stack(means)

    def _texts(self, candidates: Sequence[Candidate]) -> FloatArray:
        """[M, T] words, numbers and products of two numbers."""
        said = np.zeros((len(candidates), len(self.column)))
        for row, candidate in enumerate(candidates):
            said[row, [self.column[word] for word in _words(candidate) if word in self.column]] = 0.5
        numbers = np.stack([_numbers(candidate) for candidate in candidates])
        one, other = np.triu_indices(numbers.shape[1])
        return np.concatenate([said, numbers, numbers[:, one] * numbers[:, other]], axis=1)


def leaning(guesses: FloatArray, answers: FloatArray) -> FloatArray:
    """The most that a text speaks for or against an answer, in nats, beside the mean: of each set in [..., M, A]."""
    apart = guesses - guesses.mean(-2, keepdims=True), answers - answers.mean(-2, keepdims=True)
    return np.abs(apart[0] @ apart[1].swapaxes(-1, -2)).max((-2, -1))


def _ridge(texts: FloatArray, answers: FloatArray, fold: IntArray) -> FloatArray:
    """[FOLDS, T, A] weights, each fold's from the others; per number of the answers the penalty that predicts best."""
    tried = np.zeros((len(PENALTIES), FOLDS, texts.shape[1], answers.shape[1]))
    for held in range(FOLDS):
        known = texts[fold != held]
        size, axes = np.linalg.eigh(known.T @ known)
        target = axes.T @ (known.T @ answers[fold != held])
        for number, penalty in enumerate(PENALTIES):
            tried[number, held] = axes @ (target / (np.maximum(size, 0) + penalty)[:, None])
    error = np.stack([((_predicted(texts, weights, fold) - answers) ** 2).mean(0) for weights in tried])
    weights = np.take_along_axis(tried, error.argmin(0)[None, None, None], 0)[0]
    weights[:, :, error.min(0) > (1 - LEAST_FORETOLD) * (answers**2).mean(0)] = 0
    return weights


def _predicted(texts: FloatArray, weights: FloatArray, fold: IntArray) -> FloatArray:
    predicted = np.zeros((len(texts), weights.shape[2]))
    for held in range(FOLDS):
        predicted[fold == held] = texts[fold == held] @ weights[held]
    return predicted


def _counts(candidates: Sequence[Candidate]) -> IntArray:
    return np.array([min(len(candidate.statements), MANY) for candidate in candidates])


def _answer(candidate: Candidate) -> FloatArray:
    return _meant(candidate.ask.kind, candidate.statements)


@lru_cache(10_000)
def _meant(kind: str, statements: Statements) -> FloatArray:
    """[A] an answer in numbers; not to be written to, as it is kept for the next time."""
    meant = np.stack([place(statement) for statement in statements])
    first, last, mean = meant[0], meant[-1], meant.mean(0)
    if KINDS[kind].foretells:
        return _along(first)
    if KINDS[kind].say is directions:
        return np.concatenate([_along(first), _along(last), mean])
    level = meant[:, 0]
    jumps = np.abs(np.diff(level)).mean() if len(level) > 1 else 0.0
    return np.array([first[0], last[0], mean[0], jumps, np.abs(level).mean()])


def _along(v: FloatArray) -> FloatArray:
    """The direction, and on which diagonal or axis of the ground it lies, whichever way along it."""
    return np.array([*v, v[0] ** 2 - v[1] ** 2, v[0] * v[1]])


def _words(candidate: Candidate) -> set[str]:
    ask, words = candidate.ask, set[str]()
    for role, number in enumerate((ask.viewer, *ask.targets)):
        body = candidate.around[number]
        words |= {f"{role} {word}" for word in body.name.lower().split()} | {
            f"{role} is the viewer {number == ask.viewer}"
        }
        words.add(f"{role} kind {body.kind}")
    return words | {"|".join(candidate.around[number].kind for number in (ask.viewer, *ask.targets))}


def _numbers(candidate: Candidate) -> FloatArray:
    """Boxes of the viewer and the targets, and the times."""
    ask, cues = candidate.ask, candidate.cues
    at = ask.start if ask.at is None else ask.at
    times = np.array([2 * ask.start, 2 * ask.end, at - ask.start]) / len(cues.times)
    boxes = [_box(candidate.around[number], ask.start, cues.size) for number in (ask.viewer, *ask.targets)]
    return np.concatenate([*boxes, times - [1, 1, 0]])


def _box(body: Body, frame: int, size: tuple[int, int]) -> FloatArray:
    """Middle (-1 to 1 over the picture), log of size and of shape; 0 for the camera."""
    if body.track is None:
        return np.zeros(4)
    box = body.track.boxes[frame] / [*size, *size]
    (x, y), (width, height) = box[:2] + box[2:] - 1, box[2:] - box[:2]
    return np.array([x, y, np.log(width * height) / 2 + 2, np.log(width / height)])
