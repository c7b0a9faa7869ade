"""How many answers change under noise of a known size: `python -m training.cues.noise --scenes N`.

Scenes are rendered, their questions answered from their own cues; then the same questions are answered from cues that
went through the whole pipeline with noise on one estimator. The table is printed, and kept as JSON for
`training.cues.keep`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from training.arguments import positive
from training.cues.aggregate import Aggregated, aggregate
from training.cues.keep import TABLE
from training.cues.measure import measure
from training.cues.oracle import Noise, Truth, oracle
from training.cues.settings import Settings
from training.progress import shown
from training.questions.candidates import Candidate, Refused, candidate, candidates
from training.questions.cues import Cues
from training.questions.templates import TYPES, Ask
from training.questions.viewpoints import Body, bodies
from training.scenes import SceneConfig, Seeds, sample_scene
from training.whole import replacing

LEVELS: dict[str, Noise] = {
    "none": Noise(),
    "camera 0.25°": Noise(turn=0.25),
    "camera 0.5°": Noise(turn=0.5),
    "camera 1°": Noise(turn=1.0),
    "camera 2°": Noise(turn=2.0),
    "camera 1° drifting": Noise(turn=1.0, drift=0.9),
    "camera moved 0.5 %": Noise(move=0.005),
    "camera moved 1 %": Noise(move=0.01),
    "camera moved 2 %": Noise(move=0.02),
    "camera moved 5 %": Noise(move=0.05),
    "depth 0.5 %": Noise(depth=0.005),
    "depth 1 %": Noise(depth=0.01),
    "depth 2 %": Noise(depth=0.02),
    "depth 5 %": Noise(depth=0.05),
    "depth 10 %": Noise(depth=0.1),
    "depth 2 % drifting": Noise(depth=0.02, drift=0.9),
    "front 5°": Noise(front=5.0),
    "front 10°": Noise(front=10.0),
    "front 20°": Noise(front=20.0),
    "front 40°": Noise(front=40.0),
    "what is seen": Noise(surface=True),
    "masks 1 px wider": Noise(surface=True, grow=1),
    "masks 2 px wider": Noise(surface=True, grow=2),
    "masks 1 px narrower": Noise(surface=True, grow=-1),
    "masks 2 px narrower": Noise(surface=True, grow=-2),
    "masks 1 px aside": Noise(surface=True, shift=1),
    "masks 2 px aside": Noise(surface=True, shift=2),
}
CURVES = {"turn": "turn", "move": "move", "centre": "depth", "front": "front"}
"""What the paths show of noise -> the kind of noise whose levels tell what it does."""


@dataclass
class Tally:
    """Of one level: by type how many answers are the `same`, `changed`, or `lost`: no longer to be had. `shown`: what
    each scene's paths show of the noise, by the fields of `PathNoise`."""

    same: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def share(self, type_: str) -> float:
        """Changed of those that still have an answer; 0 where there are none."""
        answered = self.same[type_] + self.changed[type_]
        return self.changed[type_] / answered if answered else 0.0

    def add(self, other: Tally) -> None:
        for name in ("same", "changed", "lost"):
            getattr(self, name).update(getattr(other, name))
        for key, values in other.shown.items():
            self.shown[key] += values


def tally(truth: Truth, questions: Sequence[Candidate], noise: Noise, settings: Settings, seed: int) -> Tally:
    """One scene at one level."""
    found = estimated(truth, noise, settings, seed)
    around, out = bodies(found.cues), Tally()
    places = {body.name: number for number, body in enumerate(around)}
    for asked in questions:
        answer = again(asked, around, places, found.cues)
        kind = out.lost if answer is None else out.same if answer == asked.statements else out.changed
        kind[asked.ask.type] += 1
    for name, value in asdict(found.noise).items():
        out.shown[name].append(float(value))
    return out


def estimated(truth: Truth, noise: Noise, settings: Settings, seed: int = 0) -> Aggregated:
    """The scene through the whole pipeline, but for its video file."""
    measured = measure(truth.footage(), oracle(lambda _: truth, noise, seed), settings)
    return aggregate(truth.scene.video, measured, settings)


def again(asked: Candidate, around: tuple[Body, ...], places: dict[str, int], cues: Cues) -> tuple[str, ...] | None:
    """The answer to the same question from other cues of the same video; None where they have none.

    An interval that would end earlier is no answer to the same question.
    """
    names = {number: asked.around[number].name for number in asked.ask.named}
    if not all(name in places for name in names.values()):
        return None
    to = {number: places[name] for number, name in names.items()}
    ask: Ask = replace(asked.ask, viewer=to[asked.ask.viewer], targets=tuple(to[n] for n in asked.ask.targets))
    try:
        found = candidate(cues, around, ask)
    except Refused:
        return None
    return found.statements if found.ask == ask else None


def questions_of(cues: Cues, per_type: int, seed: int) -> list[Candidate]:
    random = Random(seed)
    return [found for type_ in TYPES for found in candidates(cues, type_, per_type, random, Counter())]


def run(
    seeds: Sequence[int], per_type: int, settings: Settings, config: SceneConfig, levels: dict[str, Noise] = LEVELS
) -> Iterator[dict[str, Tally]]:
    """All levels of one scene after another."""
    for seed in seeds:
        truth = Truth.of(sample_scene(seed, config))
        questions = questions_of(truth.cues, per_type, seed % 2**31)
        yield {name: tally(truth, questions, noise, settings, 0) for name, noise in levels.items()}


def as_markdown(tallies: dict[str, Tally]) -> str:
    """Changed answers in %, of those that still have one; lost ones of all types together."""
    lines = [f"| noise | {' | '.join(TYPES)} | all | lost |", "|---" * (len(TYPES) + 3) + "|"]
    for name, one in tallies.items():
        answered, lost = one.same.total() + one.changed.total(), one.lost.total()
        shares = [f"{100 * one.share(type_):.1f}" for type_ in TYPES]
        everything = 100 * one.changed.total() / max(answered, 1)
        lines.append(
            f"| {name} | {' | '.join(shares)} | {everything:.1f} | {100 * lost / max(answered + lost, 1):.1f} |"
        )
    first = next(iter(tallies.values()))
    counts = [str(first.same[t] + first.changed[t] + first.lost[t]) for t in TYPES]
    lines.append(f"| (questions) | {' | '.join(counts)} | {sum(map(int, counts))} | |")
    return "\n".join(lines) + "\n"


def as_json(tallies: dict[str, Tally], levels: dict[str, Noise], facts: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "noise": name,
            "sizes": asdict(levels[name]),
            "changed": {type_: round(one.share(type_), 4) for type_ in TYPES},
            "lost": {type_: one.lost[type_] for type_ in TYPES},
            "questions": {type_: one.same[type_] + one.changed[type_] + one.lost[type_] for type_ in TYPES},
            "shown": {key: round(float(np.median(values)), 6) for key, values in one.shown.items()},
        }
        for name, one in tallies.items()
    ]
    return {**facts, "rows": rows, "curves": {name: _curve(rows, name, kind) for name, kind in CURVES.items()}}


def _curve(rows: list[dict[str, Any]], name: str, kind: str) -> list[dict[str, Any]]:
    """The levels of one kind of noise alone, by what the paths show of it; shares that fall again do so by chance."""
    own = [row for row in rows if _only(row["sizes"], kind)]
    points = sorted(({"shown": row["shown"][name], "changed": dict(row["changed"])} for row in own),
                    key=lambda point: point["shown"])  # fmt: skip
    for before, after in pairwise(points):
        for type_ in TYPES:
            after["changed"][type_] = max(after["changed"][type_], before["changed"][type_])
    return points


def _only(sizes: dict[str, Any], kind: str) -> bool:
    return all(not value for field_, value in sizes.items() if field_ != kind)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.cues.noise", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenes", type=positive, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene, of those for training")
    parser.add_argument("--per-type", type=positive, default=30, help="questions drawn of each type and scene")
    parser.add_argument("--seconds", type=float, help="no new scene is started after so many")
    parser.add_argument("--json", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    settings, config, started = Settings(), SceneConfig(), time.monotonic()
    seeds = [Seeds.train(given.first + index) for index in range(given.scenes)]
    tallies, done = {name: Tally() for name in LEVELS}, 0
    for one in shown(run(seeds, given.per_type, settings, config), len(seeds), "scenes"):
        done += 1
        for name, own in one.items():
            tallies[name].add(own)
        if given.seconds and time.monotonic() - started > given.seconds:
            break
    facts = {"scenes": done, "first": given.first, "per_type": given.per_type, "size": list(config.size)}
    with replacing(given.json) as unfinished:
        unfinished.write_text(json.dumps(as_json(tallies, LEVELS, facts), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{done} scenes\n\n{as_markdown(tallies)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
