"""The figures of an evaluation, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from training.data.formats import Numeric
from training.data.sets import QuestionSet, Sample
from training.evaluate.answers import mean_relative_accuracy
from training.evaluate.published import ORDER, PUBLISHED, PUBLISHED_ITEMS, SOURCE
from training.evaluate.rows import ANSWERS
from training.evaluate.subset import Subset
from training.questions.audit import CHANCE, CLASSIFIER, LEAST_ITEMS, LIMIT, Row
from training.questions.classifier import held_out_points
from training.questions.heuristics import RULES, points

GROUPS = ("accuracy", "blind", "ablations")
LEAST_FOR_CLASSIFIER = 200  # questions: from fewer it learns nothing
NAMED = 10  # videos that the table names; the JSON has them all


@dataclass(frozen=True)
class Measured:
    """A row: `points` by the id of a sample, 1 where it was right, a part of it for a number; `group`: of `GROUPS`."""

    name: str
    group: str
    points: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """`rows`: the answers first. `left_out`: why a row could not be measured. `refused`: of each row, how often the
    answerer refused, and why; such a question is neither right nor wrong. `published`: figures of others stand beside.
    `merged`: types that count as one in an average over types; None where there is no such average.
    """

    asked: QuestionSet
    rows: Sequence[Measured]
    setup: Mapping[str, Any]
    left_out: Mapping[str, str]
    refused: Mapping[str, Mapping[str, int]]
    subset: Subset
    published: bool = False
    merged: Mapping[str, str] | None = None

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

    @property
    def chance(self) -> float:
        """What guessing gets right, of questions with options."""
        shares = [1 / len(sample.record.options) for sample in self.asked.samples if sample.record.options]
        return sum(shares) / len(shares) if shares else 0.0

    def over_types(self, row: Measured) -> float | None:
        """The average of a row over types, each alike; those of `merged` are averaged first, and count as one."""
        if self.merged is None:
            return None
        parts: dict[str, list[float]] = {}
        for of in self.types:
            if (part := self.row(row, of)).items:
                parts.setdefault(self.merged.get(of, of), []).append(part.accuracy)
        means = [sum(own) / len(own) for own in parts.values()]
        return sum(means) / len(means) if means else None

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
            "chance": self.chance,
            "published": self._published(),
            "left_out": dict(self.left_out),
            "refused": {name: dict(why) for name, why in self.refused.items()},
            "missing_videos": {
                name: {"questions": video.questions, "why": video.why} for name, video in self.asked.missing.items()
            },
            "unusable_questions": list(self.asked.unusable),
            "setup": dict(self.setup),
            "subset": self.subset.as_dict(),
        }

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"

    def as_table(self) -> str:
        """Markdown. An accuracy never stands without its blind rows."""
        lines = [_line("", *self.types, "all", "95 % interval"), _line(*["---"] * (len(self.types) + 3))]
        answers = self.rows[0]
        lines.append(_line("items", *(str(self.row(answers, of).items) for of in (*self.types, "all")), ""))
        lines += [self._measured(row) for row in self.rows]
        if self.published:
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
            **({} if (mean := self.over_types(row)) is None else {"over_types": mean}),
        }

    def _published(self) -> dict[str, Any] | None:
        if not self.published:
            return None
        rows = {name: dict(zip((*ORDER, "all"), values, strict=True)) for name, values in PUBLISHED.items()}
        return {"source": SOURCE, "items": dict(zip((*ORDER, "all"), PUBLISHED_ITEMS, strict=True)), "rows": rows}

    def _measured(self, row: Measured) -> str:
        parts = [self.row(row, of) for of in (*self.types, "all")]
        cells = [f"{100 * part.accuracy:.1f}" if part.items else "" for part in parts]
        interval = (
            "{:.1f} to {:.1f}".format(*(100 * max(bound, 0.0) for bound in parts[-1].interval))
            if parts[-1].items
            else ""
        )
        label = row.name if row.group == "accuracy" else f"{row.group}: {row.name}"
        return _line(label, *cells, interval)

    def _known(self, label: str, values: Sequence[float]) -> str:
        known = dict(zip((*ORDER, "all"), values, strict=True))
        return _line(label, *(f"{known.get(of, '')}" for of in (*self.types, "all")), "")

    def _remarks(self) -> Iterator[str]:
        limit = self.chance + LIMIT - CHANCE
        blind = [self.row(row) for row in self.rows if row.group == "blind"]
        above = [row.row for row in blind if row.items >= LEAST_ITEMS and row.accuracy > limit]
        chance = f"Chance is {100 * self.chance:.0f} %"
        yield f"{chance}; a blind row of {LEAST_ITEMS:,} questions may have {100 * limit:.0f} %."
        if above:
            yield f"Above that, without having seen the video: {', '.join(above)}."
        yield f"Measured: {self.subset.rule}; {len(self.subset.ids)} questions, sha256 {self.subset.sha256[:16]}."
        if self.published:
            all_, ours = PUBLISHED_ITEMS[-1], len(self.subset.ids)
            yield f"Published rows: {SOURCE}, over {all_:,} questions; ours over {ours:,}, {100 * ours / all_:.0f} %."
        averages = [f"{row.name} {100 * mean:.1f} %" for row in self.rows if (mean := self.over_types(row)) is not None]
        if averages:
            yield f"Averaged over types, as is published: {', '.join(averages)}."
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
    """What a rule, the commonest letter, and a classifier that reads question and options, earn without any video.

    And of numbers, what the median of the other questions of a type earns.
    """
    numbers = [sample for sample in samples if isinstance(sample.record, Numeric)]
    medians = [Measured("median number", "blind", _medians(numbers))] if numbers else []
    samples = [sample for sample in samples if not isinstance(sample.record, Numeric)]
    if not samples:
        return medians
    records = [sample.record for sample in samples]
    earned = {f"rule: {name}": points(rule, records) for name, rule in RULES.items()}
    letter = Counter(record.answer for record in records).most_common(1)[0][0]
    earned["commonest letter"] = [float(record.answer == letter) for record in records]
    if classifier:
        earned[CLASSIFIER] = held_out_points(records)
    ids = [sample.id for sample in samples]
    return [*(Measured(name, "blind", dict(zip(ids, own, strict=True))) for name, own in earned.items()), *medians]


def _medians(samples: Sequence[Sample]) -> dict[str, float]:
    """A type with a single question has no other, and earns nothing."""
    true = [(sample.record.type, float(sample.record.answer)) for sample in samples]
    points = {}
    for place, sample in enumerate(samples):
        others = [value for n, (of, value) in enumerate(true) if of == sample.record.type and n != place]
        points[sample.id] = mean_relative_accuracy(median(others) if others else None, true[place][1])
    return points


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
