"""One generated set of questions that many tests look at: 2,016 records about 84 scenes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from tests.training.questions.motions import scenes
from training.questions.cues import Cues
from training.questions.engine import Plan, generate
from training.questions.records import Record

PLAN = Plan(per_scene=24, drawn=80, block=28, learned=2500)


@dataclass(frozen=True)
class Asked:
    scenes: dict[str, Cues]
    records: list[Record]
    dropped: Counter[str]

    @property
    def groups(self) -> list[list[Record]]:
        """The records of each set of four."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            assert record.extras is not None
            groups.setdefault(record.extras.group, []).append(record)
        return list(groups.values())


@pytest.fixture(scope="session")
def asked() -> Asked:
    some, dropped = scenes(84), Counter[str]()
    records = list(generate(some, Random(0), PLAN, dropped))
    return Asked({cues.video: cues for cues in some}, records, dropped)
