"""Cues in, records out: as many questions of each type, four by four, with options of which only the video tells.

The same scenes and the same seed give the same records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from random import Random

import numpy as np

from training.questions.candidates import Candidate, candidates
from training.questions.cues import Cues
from training.questions.foretold import Foretold, Group, learn
from training.questions.options import FOUR, Four, fours
from training.questions.records import LETTERS, Extras, Record
from training.questions.templates import KINDS, TYPES, Ask, question
from training.questions.verbalise import numbered


@dataclass(frozen=True)
class Plan:
    """How much to ask. `per_scene` records per scene on average, over all `types`.

    `drawn` questions per scene and type are drawn to choose from. Only scenes of one block share options, so that a
    set can be cut between blocks into parts that know nothing of each other; `block` is about how many scenes it has.
    `learned` questions per type, drawn from all scenes alike, show what the text of a question foretells.
    """

    per_scene: int = 24
    drawn: int = 100
    block: int = 64
    learned: int = 6000
    types: tuple[str, ...] = TYPES

    @property
    def fours_per_scene(self) -> float:
        """Of one type."""
        return self.per_scene / FOUR / len(self.types)


def generate(
    scenes: Sequence[Cues], random: Random, plan: Plan | None = None, dropped: Counter[str] | None = None
) -> Iterator[Record]:
    """The records of `asked`."""
    return (record for record, _ in asked(scenes, random, plan, dropped))


def asked(
    scenes: Sequence[Cues], random: Random, plan: Plan | None = None, dropped: Counter[str] | None = None
) -> Iterator[tuple[Record, Candidate]]:
    """Records about all scenes, with what they were made of; block by block, each block in a drawn order.

    What a type lacks in one block it makes up for in the next ones. `dropped` counts by reason what was drawn and not
    asked, and under `"missing: TYPE"` the questions that the scenes did not have.

    Raises:
        ValueError: two scenes have one name.
    """
    plan, dropped = plan or Plan(), Counter() if dropped is None else dropped
    if len({cues.video for cues in scenes}) < len(scenes):
        raise ValueError("two scenes have the same video name")
    told = _told(scenes, plan, random)
    wanted, made = 0.0, Counter[str]()
    for block in _blocks(scenes, plan.block):
        wanted += len(block) * plan.fours_per_scene
        records: list[tuple[Record, Candidate]] = []
        for type_ in plan.types:
            for four in _asked(block, type_, told, round(wanted) - made[type_], plan, random, dropped):
                records += _records(four, f"{four.members[0].cues.video}/{type_}/{made[type_]}", random)
                made[type_] += 1
        yield from random.sample(records, len(records))
    for type_ in plan.types:
        if made[type_] < round(wanted):
            dropped[f"missing: {type_}"] += FOUR * (round(wanted) - made[type_])


def visible_frames(ask: Ask, frames: int) -> int:
    """How many of a video's frames, from the first, may be shown to whoever answers."""
    return ask.end + 1 if KINDS[ask.kind].foretells else frames


def _blocks(scenes: Sequence[Cues], size: int) -> Iterator[Sequence[Cues]]:
    """Parts of about equal size: a short last one would have too little to choose from."""
    borders = np.linspace(0, len(scenes), max(1, round(len(scenes) / size)) + 1).round().astype(int)
    for start, end in pairwise(borders.tolist()):
        yield scenes[start:end]


def _told(scenes: Sequence[Cues], plan: Plan, random: Random) -> dict[Group, Foretold]:
    count = min(plan.drawn, ceil(plan.learned / max(len(scenes), 1)))
    told: dict[Group, Foretold] = {}
    for type_ in plan.types:
        told |= learn(found for cues in scenes for found in candidates(cues, type_, count, random, Counter()))
    return told


def _asked(
    block: Sequence[Cues],
    type_: str,
    told: dict[Group, Foretold],
    most: int,
    plan: Plan,
    random: Random,
    dropped: Counter[str],
) -> list[Four]:
    pool = [found for cues in block for found in candidates(cues, type_, plan.drawn, random, dropped)]
    # A scene with many good questions may have a few times its share of them.
    most_per_video = max(FOUR, round(4 * FOUR * plan.fours_per_scene))
    return list(fours(pool, told, most, most_per_video, random, dropped)) if pool else []


def _records(four: Four, group: str, random: Random) -> Iterator[tuple[Record, Candidate]]:
    """One for each member. Over the four, each letter is right once; which one is drawn."""
    for right, letter in enumerate(random.sample(range(FOUR), FOUR)):
        order = random.sample([n for n in range(FOUR) if n != right], FOUR - 1)
        order.insert(letter, right)
        yield _record(four, right, order, group, random), four.members[right]


def _record(four: Four, right: int, order: list[int], group: str, random: Random) -> Record:
    truth: Candidate = four.members[right]
    cues, ask = truth.cues, truth.ask
    extras = Extras(
        statements=truth.statements,
        interval=(float(cues.times[ask.start]), float(cues.times[ask.end])),
        frames=(ask.start, ask.end),
        viewer=truth.around[ask.viewer].name,
        visible_frames=visible_frames(ask, len(cues.times)),
        group=group,
        sources=tuple(four.changes[right][n] for n in order),
    )
    options = tuple(numbered(four.members[n].statements) for n in order)
    asked = question(cues, truth.around, ask, random)
    return Record(cues.video, asked, options, LETTERS[order.index(right)], ask.type, extras)
