"""The figures of an evaluation, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.sets import QuestionSet, Sample
from training.evaluate.rows import ANSWERS
from training.questions.audit import CHANCE, CLASSIFIER, LEAST_ITEMS, LIMIT, Row
from training.questions.classifier import held_out_points
from training.questions.heuristics import RULES, points
from training.questions.templates import TYPES

ORDER = (*TYPES, "non_temp")
GROUPS = ("accuracy", "blind", "ablations")
LEAST_FOR_CLASSIFIER = 200  # questions: from fewer it learns nothing
NAMED = 10  # videos that the table names; the JSON has them all

# Accuracy in percent on the public benchmark (arXiv 2512.20557): types in the order of `ORDER`, then all.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "Qwen2.5-VL-7B": (18.8, 15.3, 14.6, 42.8, 29.0, 19.4, 31.8, 19.3, 11.1, 22.2, 19.2, 20.2, 30.1, 23.5),
    "Gemini-2.5-Pro": (20.0, 44.6, 53.6, 27.3, 38.7, 30.5, 23.2, 32.9, 43.2, 17.1, 28.5, 27.9, 34.3, 31.7),
    "VG-LLM": (55.2, 32.3, 58.5, 57.1, 51.6, 32.2, 56.0, 36.3, 32.0, 30.3, 32.1, 29.1, 27.9, 38.4),
    "GSM + 50K": (87.0, 73.8, 84.1, 73.8, 72.0, 35.5, 75.8, 76.1, 77.7, 60.6, 37.1, 35.1, 46.4, 58.9),
}
PUBLISHED_ITEMS = (85, 65, 82, 84, 93, 118, 116, 88, 81, 99, 140, 168, 265, 1484)


@dataclass(frozen=True)
class Measured:
    """A row: `points` by the id of a sample, 1 where it was right; `group`: one of `GROUPS`."""

    name: str
    group: str
    points: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """`rows`: the answers first. `left_out`: why a row could not be measured. `refused`: of each row, how often the
    answerer refused, and why; such a question is neither right nor wrong.
    """

    asked: QuestionSet
    rows: Sequence[Measured]
    setup: Mapping[str, Any]
    left_out: Mapping[str, str]
    refused: Mapping[str, Mapping[str, int]]

    def row(self, row: Measured, of: str = "all") -> Row:
        earned = [
            row.points[sample.id]
            for sample in self.asked.samples
            if sample.id in row.points and of in ("all", sample.record.type)
        ]
        return Row.of_points(row.name, of, earned) if earned else Row(row.name, of, 0.0, 0)

    @property
    def types(self) -> list[str]:
        there = {sample.record.type for sample in self.asked.samples}
        return [key for key in ORDER if key in there] + sorted(there - set(ORDER))

    def as_dict(self) -> dict[str, Any]:
        """accuracy, items, interval, types, blind, ablations; every row in full; what was measured how, what not."""
        rows = {row.name: self._figures(row) for row in self.rows}
        return {
            **rows[ANSWERS],
            **{
                group: {row.name: rows[row.name]["accuracy"] for row in self.rows if row.group == group}
                for group in GROUPS[1:]
            },
            "rows": rows,
            "left_out": dict(self.left_out),
            "refused": {name: dict(why) for name, why in self.refused.items()},
            "missing_videos": {
                name: {"questions": video.questions, "why": video.why} for name, video in self.asked.missing.items()
            },
            "unusable_questions": list(self.asked.unusable),
            "setup": dict(self.setup),
        }

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"

    def as_table(self, published: bool = False) -> str:
        """Markdown. An accuracy never stands without its blind rows."""
        lines = [_line("", *self.types, "all", "95 % interval"), _line(*["---"] * (len(self.types) + 3))]
        answers = self.rows[0]
        lines.append(_line("items", *(str(self.row(answers, of).items) for of in (*self.types, "all")), ""))
        lines += [self._measured(row) for row in self.rows]
        if published:
            lines += [self._known(f"published: {name}", values) for name, values in PUBLISHED.items()]
            lines.append(self._known("published: items", PUBLISHED_ITEMS))
        return "\n".join([*lines, "", *self._remarks()]) + "\n"

    def _figures(self, row: Measured) -> dict[str, Any]:
        all_, own = self.row(row), {of: self.row(row, of) for of in self.types}
        return {
            "accuracy": all_.accuracy,
            "items": all_.items,
            "interval": list(all_.interval) if all_.items else None,
            "types": {of: {"accuracy": part.accuracy, "items": part.items} for of, part in own.items()},
        }

    def _measured(self, row: Measured) -> str:
        parts = [self.row(row, of) for of in (*self.types, "all")]
        cells = [f"{100 * part.accuracy:.1f}" if part.items else "" for part in parts]
        interval = "{:.1f} to {:.1f}".format(*(100 * bound for bound in parts[-1].interval)) if parts[-1].items else ""
        label = row.name if row.group == "accuracy" else f"{row.group}: {row.name}"
        return _line(label, *cells, interval)

    def _known(self, label: str, values: Sequence[float]) -> str:
        known = dict(zip((*ORDER, "all"), values, strict=True))
        return _line(label, *(f"{known.get(of, '')}" for of in (*self.types, "all")), "")

    def _remarks(self) -> Iterator[str]:
        blind = [self.row(row) for row in self.rows if row.group == "blind"]
        above = [row.row for row in blind if row.items >= LEAST_ITEMS and row.accuracy > LIMIT]
        yield f"Chance is {100 * CHANCE:.0f} %; a blind row of {LEAST_ITEMS:,} questions may have {100 * LIMIT:.0f} %."
        if above:
            yield f"Above that, without having seen the video: {', '.join(above)}."
        yield from (f"Left out: {name}; {why}." for name, why in self.left_out.items())
        for name, why in self.refused.items():
            yield f"Not answered ({name}): " + "; ".join(f"{count} because {reason}" for reason, count in why.items())
        if missing := self.asked.missing:
            lost, more = sum(video.questions for video in missing.values()), len(missing) - NAMED
            names = ", ".join(sorted(missing)[:NAMED]) + (f" and {more} more" if more > 0 else "")
            yield f"{len(missing)} videos are missing or unreadable, {lost} questions with them: {names}."
        if self.asked.unusable:
            yield f"{len(self.asked.unusable)} rows are no questions, the first: {self.asked.unusable[0]}."


def text_rows(samples: Sequence[Sample], classifier: bool = True) -> list[Measured]:
    """What a rule, the commonest letter, and a classifier that reads question and options, earn without any video."""
    records = [sample.record for sample in samples]
    earned = {f"rule: {name}": points(rule, records) for name, rule in RULES.items()}
    letter = Counter(record.answer for record in records).most_common(1)[0][0]
    earned["commonest letter"] = [float(record.answer == letter) for record in records]
    if classifier:
        earned[CLASSIFIER] = held_out_points(records)
    ids = [sample.id for sample in samples]
    return [Measured(name, "blind", dict(zip(ids, own, strict=True))) for name, own in earned.items()]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
