"""Records in, an audited set of questions out: `questions.json`, and `audit.json` and `audit.md` beside it.

Each type is asked of the videos that are good enough for it (`training.cues.keep`), by the one question engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from training.cues.keep import Table
from training.cues.record import AUDIT, QUESTIONS, CuesRecord
from training.questions import records
from training.questions.audit import LEAST_ITEMS, Report, audit
from training.questions.engine import Plan, generate
from training.whole import replacing


@dataclass(frozen=True)
class Made:
    """`left_out`: reason -> videos; `kept`: type -> videos that it was asked of; `dropped`: the engine's own counts.

    `report` is None where there are too few questions or videos for an audit.
    """

    questions: int
    left_out: Counter[str]
    kept: dict[str, int]
    dropped: Counter[str]
    report: Report | None

    def as_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "left_out": dict(self.left_out),
            "videos_by_type": self.kept,
            "dropped": dict(self.dropped),
        }


def ask(
    found: Sequence[CuesRecord],
    out: Path,
    table: Table,
    most_changed: float,
    plan: Plan,
    seed: int,
    least: int = LEAST_ITEMS,
) -> Made:
    """Writes the files. `plan.per_scene` questions of each video on average, over `plan.types`, each for itself;
    `least` items for a verdict of the audit."""
    usable = [record for record in found if record.usable]
    left_out = Counter(reason.split(":")[0] for record in found for reason in record.reasons)
    random, dropped = Random(seed), Counter[str]()
    asked: list[records.Record] = []
    kept: dict[str, int] = {}
    for type_ in plan.types:
        own = [record.cues for record in usable if type_ in table.kept(record.noise, most_changed)]
        kept[type_] = len(own)
        if own:
            # One type at a time, so that each has its own videos.
            share = max(1, round(plan.per_scene / len(plan.types)))
            asked += generate(own, random, replace(plan, per_scene=share, types=(type_,)), dropped)
    asked = random.sample(asked, len(asked))
    with replacing(out / QUESTIONS) as unfinished:
        records.write(unfinished, asked)
    report = audit(asked, least=least) if len({record.videoID for record in asked}) > 1 else None
    if report is not None:
        (out / AUDIT).write_text(report.as_json(), encoding="utf-8")
        (out / AUDIT).with_suffix(".md").write_text(report.as_markdown(), encoding="utf-8")
    made = Made(len(asked), left_out, kept, dropped, report)
    (out / f"{QUESTIONS}.facts").write_text(json.dumps(made.as_json(), indent=1) + "\n", encoding="utf-8")
    return made
