"""Which questions were measured, so that another run measures the same ones: the rule, their ids and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from training.data.sets import QuestionSet, Sample

READABLE = "every question of the file whose video can be read"


def rule(limit: int | None) -> str:
    return READABLE if limit is None else f"{limit} questions, evenly from the whole file; of these {READABLE}"


@dataclass(frozen=True)
class Subset:
    """`sha256` is that of ids, videos' names, questions, options, answers and types: a changed word changes it."""

    rule: str
    ids: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, asked: QuestionSet, rule: str) -> Self:
        return cls(rule, tuple(sample.id for sample in asked.samples), _digest(asked.samples))

    @classmethod
    def read(cls, report: Path) -> Self:
        """That of an earlier report. ValueError when the file is none."""
        try:
            said = json.loads(report.read_text(encoding="utf-8"))["subset"]
            return cls(str(said["rule"]), tuple(said["ids"]), str(said["sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{report} is no report with a subset ({type(error).__name__}: {error})") from None

    def of_set(self, asked: QuestionSet) -> QuestionSet:
        """These questions of a set.

        Raises:
            ValueError: one of them is not there or its video is not, or one has changed. Without it no comparison.
        """
        there = {sample.id: sample for sample in asked.samples}
        absent = [id_ for id_ in self.ids if id_ not in there]
        if absent:
            gone = f"{len(absent)} of {len(self.ids)} pinned questions cannot be asked, the first {absent[0]}"
            video = asked.missing.get(absent[0].partition("/")[2])
            raise ValueError(f"{gone}: {video.why if video else 'the file has no such question'}")
        found = replace(asked, samples=tuple(there[id_] for id_ in self.ids))
        if (digest := _digest(found.samples)) != self.sha256:
            raise ValueError(f"the pinned questions have changed: their hash was {self.sha256[:12]}, is {digest[:12]}")
        return found

    def as_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "items": len(self.ids), "sha256": self.sha256, "ids": list(self.ids)}


def _digest(samples: Sequence[Sample]) -> str:
    told = (
        (s.id, s.record.videoID, s.record.question, s.record.options, s.record.answer, s.record.type) for s in samples
    )
    lines = (json.dumps(fields, ensure_ascii=False) for fields in told)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
