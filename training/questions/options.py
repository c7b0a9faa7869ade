"""Four options of which nothing but the video tells the right one.

Four questions with four different answers share these answers as their options. Each option is the truth of one of the
four, so whatever rule picks by the options alone is right in exactly one of them: by construction, not on average.
What is left is the question's text, and so the four are chosen so that their texts foretell the same of the answers.

Legend: M candidates of one key, A numbers of an answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from math import ceil
from random import Random

import numpy as np
from numpy.typing import NDArray

from training.questions.candidates import Candidate
from training.questions.counterfactuals import counterfactuals, step_change
from training.questions.cues import BoolArray, FloatArray
from training.questions.foretold import Foretold, Group, group, leaning
from training.questions.verbalise import Statements

FOUR = 4
# Nats by which a text of a set may speak for one of its answers. One that always speaks for the right one by t, and
# against the others by t / 3, is right in 1 / (1 + 3 exp(-4 t / 3)) of the questions: 26.8 % and 28.6 %.
TOLERANCES = (0.07, 0.14)
NEAREST = 60  # answers of questions that foretell the same, among which a question's three others are chosen
PATIENCE = 150  # questions in a row without a set, after which those like them are given up

IntArray = NDArray[np.int64]
Key = tuple[Group, int]


@dataclass(frozen=True)
class Alike:
    """Candidates of one key. `index` [M] in the pool, `answer` [M]: equal numbers for equal answers.

    `row` is where a candidate of the pool stands here. `guesses` and `answers` [M, A] are those of `foretold`.
    """

    index: IntArray
    answer: IntArray
    row: dict[int, int]
    guesses: FloatArray
    answers: FloatArray

    @classmethod
    def of(cls, pool: Sequence[Candidate], index: IntArray, guesses: FloatArray, answers: FloatArray) -> Alike:
        number: dict[Statements, int] = {}
        answer = [number.setdefault(pool[n].statements, len(number)) for n in index]
        return cls(index, np.array(answer), {int(n): row for row, n in enumerate(index)}, guesses, answers)

    def fitting(self, chosen: Sequence[int], rest: Sequence[int], tolerance: float) -> list[int]:
        """Those of the rest with which no text of the chosen leans to an answer."""
        sets = np.array([[self.row[index] for index in (*chosen, other)] for other in rest])
        fit = leaning(self.guesses[sets], self.answers[sets]) <= tolerance
        return list(compress(rest, fit))

    def others(self, seed: int, free: BoolArray, tolerance: float) -> list[int]:
        """One free candidate for each answer but the seed's, those first of which the same is foretold."""
        row = self.row[seed]
        guesses = self.guesses - self.guesses[row]
        # Of two, each entry of the product in `leaning` is a quarter of this.
        apart = (guesses * (self.answers - self.answers[row])).sum(1)
        fit = (np.abs(apart) <= FOUR * tolerance) & free[self.index] & (self.answer != self.answer[row])
        rows = np.flatnonzero(fit)
        rows = rows[np.argsort((guesses[rows] ** 2).sum(1), kind="stable")]
        _, first = np.unique(self.answer[rows], return_index=True)
        return self.index[rows[np.sort(first)[:NEAREST]]].tolist()


@dataclass(frozen=True)
class Four:
    """Four questions with each other's answers as options. `changes[i][j]`: what makes answer j of answer i."""

    members: tuple[Candidate, ...]
    changes: tuple[tuple[str, ...], ...]


def fours(
    pool: Sequence[Candidate],
    told: dict[Group, Foretold],
    most: int,
    most_per_video: int,
    random: Random,
    dropped: Counter[str],
) -> Iterator[Four]:
    """At most `most` sets from candidates of one type, of which `told` was learned; no candidate is in two of them.

    Each way of looking gets its share of the sets as long as it has candidates for them. No video is asked more than
    `most_per_video` of the questions. `dropped` counts the candidates that are in no set by reason.
    """
    search = _Search(pool, told, most_per_video, random)
    shares = {key: ceil(most * count / len(pool)) for key, count in search.groups.items()}
    made = Counter[Group]()
    for tolerance, share in ((TOLERANCES[0], shares), (TOLERANCES[1], shares), (TOLERANCES[1], {})):
        failures = Counter[Key]()
        for seed in search.order:
            own, key = search.group[seed], search.key(seed)
            if made.total() == most:
                break
            if made[own] >= share.get(own, most) or failures[key] >= PATIENCE or not search.open(seed):
                continue
            chosen = search.partners(seed, tolerance)
            failures[key] = 0 if chosen else failures[key] + 1
            if chosen:
                made[own] += 1
                yield _four([pool[index] for index in chosen])
    search.report(dropped)


class _Search:
    """Which candidates are free, what their texts foretell, and which of them fit together."""

    def __init__(
        self, pool: Sequence[Candidate], told: dict[Group, Foretold], most_per_video: int, random: Random
    ) -> None:
        self.pool, self.most_per_video, self.random = pool, most_per_video, random
        self.order = random.sample(range(len(pool)), len(pool))
        self.group = [group(candidate) for candidate in pool]
        self.groups = Counter(self.group)
        self.free, self.taken, self.failed = (np.full(len(pool), start) for start in (True, False, False))
        self.of_video: dict[str, list[int]] = defaultdict(list)
        for index, candidate in enumerate(pool):
            self.of_video[candidate.cues.video].append(index)
        self.told = told
        self.alike: dict[Key, Alike] = {}
        self._foretell()

    def _foretell(self) -> None:
        alike: dict[Group, list[int]] = defaultdict(list)
        # In a drawn order, so that of candidates that foretell the same none comes first because of its video.
        for index in self.order:
            alike[self.group[index]].append(index)
        for own, indices in alike.items():
            if own not in self.told:
                continue
            guesses, answers = self.told[own]([self.pool[index] for index in indices])
            counts = np.array([len(self.pool[index].statements) for index in indices])
            for count in np.unique(counts):
                rows = np.flatnonzero(counts == count)
                found = Alike.of(self.pool, np.array(indices)[rows], guesses[rows], answers[rows])
                if found.answer.max() >= FOUR - 1:  # numbered from 0
                    self.alike[own, int(count)] = found

    def key(self, index: int) -> Key:
        return self.group[index], len(self.pool[index].statements)

    def open(self, index: int) -> bool:
        return bool(self.free[index]) and self.key(index) in self.alike

    def partners(self, seed: int, tolerance: float) -> list[int] | None:
        """The seed and three others; None if there are none. Answers that are close to the seed's are preferred."""
        alike = self.alike[self.key(seed)]
        others = alike.others(seed, self.free, tolerance)
        if len(others) < FOUR - 1:
            self.failed[seed] = True
            return None
        truth = self.pool[seed]
        counterfactual = counterfactuals(truth.ask.kind, truth.values)
        changes = {index: change(truth, self.pool[index], counterfactual) for index in others}
        rest, kinds, chosen = self.random.sample(others, len(others)), Counter[str](), [seed]
        while len(chosen) < FOUR:
            rest = alike.fitting(chosen, rest, tolerance)
            if len(rest) < FOUR - len(chosen):
                self.failed[seed] = True
                return None
            best = min(rest, key=lambda index: (kinds[changes[index]], _distance(changes[index])))
            rest.remove(best)
            kinds[changes[best]] += 1
            chosen.append(best)
        self._take(chosen)
        return chosen

    def report(self, dropped: Counter[str]) -> None:
        for index in np.flatnonzero(~self.taken).tolist():
            if self.group[index] not in self.told:
                dropped["too few videos to learn what the text foretells"] += 1
            elif self.key(index) not in self.alike:
                dropped["no four answers with as many statements"] += 1
            elif self.failed[index]:
                dropped["no three others of which only the video tells it apart"] += 1
            else:
                dropped["more than were asked for"] += 1

    def _take(self, chosen: list[int]) -> None:
        self.taken[chosen] = True
        self.free[chosen] = False
        for video in {self.pool[index].cues.video for index in chosen}:
            own = self.of_video[video]
            if self.taken[own].sum() + FOUR > self.most_per_video:
                self.free[own] = False


def change(truth: Candidate, other: Candidate, counterfactual: dict[Statements, str]) -> str:
    """How the other's answer comes about: a change of the true trajectory, or what else it is the truth of."""
    if truth is other:
        return "truth"
    changed = counterfactual.get(other.statements) or step_change(truth.statements, other.statements)
    if changed is not None:
        return changed
    if truth.cues.video != other.cues.video:
        return "another scene"
    if truth.ask.targets != other.ask.targets:
        return "another object"
    if (truth.ask.viewer, truth.ask.at) != (other.ask.viewer, other.ask.at):
        return "another viewpoint"
    return "another interval"


def _distance(made_by: str) -> int:
    if made_by.startswith("another"):
        return 2
    return 1 if "step" in made_by else 0


def _four(members: Sequence[Candidate]) -> Four:
    rows = []
    for truth in members:
        counterfactual = counterfactuals(truth.ask.kind, truth.values)
        rows.append(tuple(change(truth, other, counterfactual) for other in members))
    return Four(tuple(members), tuple(rows))
