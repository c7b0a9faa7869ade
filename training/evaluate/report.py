"""The figures of an evaluation, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.sets import Sample
from training.questions.audit import CHANCE, LIMIT, Row
from training.questions.classifier import held_out_points
from training.questions.heuristics import RULES, points
from training.questions.templates import TYPES

ORDER = (*TYPES, "non_temp")
LEAST_FOR_CLASSIFIER = 200  # questions: with fewer it learns nothing

# MODEL.md's table of the public benchmark, accuracy in percent: types in the order of `ORDER`, then all.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "Qwen2.5-VL-7B": (18.8, 15.3, 14.6, 42.8, 29.0, 19.4, 31.8, 19.3, 11.1, 22.2, 19.2, 20.2, 30.1, 23.5),
    "Gemini-2.5-Pro": (20.0, 44.6, 53.6, 27.3, 38.7, 30.5, 23.2, 32.9, 43.2, 17.1, 28.5, 27.9, 34.3, 31.7),
    "VG-LLM": (55.2, 32.3, 58.5, 57.1, 51.6, 32.2, 56.0, 36.3, 32.0, 30.3, 32.1, 29.1, 27.9, 38.4),
    "GSM + 50K": (87.0, 73.8, 84.1, 73.8, 72.0, 35.5, 75.8, 76.1, 77.7, 60.6, 37.1, 35.1, 46.4, 58.9),
}


@dataclass(frozen=True)
class Report:
    """`points`: for each row, by the id of a sample, whether it was right; rows that were not measured are missing."""

    samples: Sequence[Sample]
    points: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, str]
    setup: Mapping[str, Any]
    missing: Mapping[str, int]

    def row(self, name: str, of: str = "all") -> Row:
        earned = [
            self.points[name][sample.id]
            for sample in self.samples
            if sample.id in self.points[name] and of in ("all", sample.record.type)
        ]
        return Row.of_points(name, of, earned) if earned else Row(name, of, 0.0, 0)

    @property
    def types(self) -> list[str]:
        there = {sample.record.type for sample in self.samples}
        return [key for key in ORDER if key in there] + sorted(there - set(ORDER))

    def as_dict(self) -> dict[str, Any]:
        """accuracy, items, interval, types, blind, ablations; and what was measured how."""
        answers = self.row("answers")
        own = {key: self.row("answers", key) for key in self.types}
        return {
            "accuracy": answers.accuracy,
            "items": answers.items,
            "interval": list(answers.interval),
            "types": {key: {"accuracy": row.accuracy, "items": row.items} for key, row in own.items()},
            **{
                group: {name: self.row(name).accuracy for name in self.points if self.groups[name] == group}
                for group in ("blind", "ablations")
            },
            "setup": dict(self.setup),
            "missing_videos": dict(self.missing),
        }

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1) + "\n"

    def as_table(self, published: bool = False) -> str:
        """Markdown. An accuracy never stands without its blind rows."""
        types = self.types
        lines = [_line("", *types, "all", "95 % interval"), _line(*["---"] * (len(types) + 3))]
        lines.append(
            _line("items", *(str(self.row("answers", key).items) for key in types), str(len(self.samples)), "")
        )
        for name in self.points:
            row = self.row(name)
            low, high = row.interval if row.items else (0.0, 0.0)
            label = name if self.groups[name] == "accuracy" else f"{self.groups[name]}: {name}"
            cells = [f"{100 * self.row(name, key).accuracy:.1f}" for key in types]
            lines.append(_line(label, *cells, f"{100 * row.accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"))
        if published:
            for name, values in PUBLISHED.items():
                known = dict(zip((*ORDER, "all"), values, strict=True))
                lines.append(_line(f"published: {name}", *(f"{known.get(key, '')}" for key in (*types, "all")), ""))
        lines += ["", f"Chance is {100 * CHANCE:.0f} %; a blind row of 2,000 questions may have {100 * LIMIT:.0f} %."]
        if self.missing:
            lost = sum(self.missing.values())
            lines.append(f"{len(self.missing)} videos are missing or unreadable, {lost} questions with them: "
                         + ", ".join(sorted(self.missing)))  # fmt: skip
        return "\n".join(lines) + "\n"


def blind_text_rows(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """What every rule, and a classifier that reads question and options, would earn without any video."""
    records = [sample.record for sample in samples]
    rows = {f"rule: {name}": points(rule, records) for name, rule in RULES.items()}
    if len(samples) >= LEAST_FOR_CLASSIFIER:
        rows["text-only classifier"] = held_out_points(records)
    ids = [sample.id for sample in samples]
    return {name: dict(zip(ids, earned, strict=True)) for name, earned in rows.items()}


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
