"""The blind audit: how many questions can be answered without the video, and is that more than chance?

`python -m training.questions.audit FILE.json…` writes a report as JSON and Markdown. It exits with 1 when a row is
above the limit, with 2 when there are too few questions to tell or they cannot be read, and with 0 when all is well.
Rows that need a model are measured elsewhere and passed in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from training.questions.classifier import held_out_points
from training.questions.heuristics import RULES, points
from training.questions.records import Record, read

CHANCE = 0.25
LIMIT = CHANCE + 0.03
LEAST_ITEMS = 2000
Z = 1.959964  # of a 95 % interval
CLASSIFIER = "text-only classifier"


@dataclass(frozen=True)
class Row:
    """One blind way to answer the questions `of` one type, or of "all": the share it gets right of `items`."""

    row: str
    of: str
    accuracy: float
    items: int

    @classmethod
    def of_points(cls, row: str, of: str, earned: Sequence[float]) -> Row:
        """From the point or share of a point that each question earned."""
        return cls(row, of, sum(earned) / len(earned), len(earned))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, after Wilson."""
        n, p = self.items, self.accuracy
        middle, half = p + Z * Z / (2 * n), Z * (p * (1 - p) / n + Z * Z / (4 * n * n)) ** 0.5
        return (middle - half) / (1 + Z * Z / n), (middle + half) / (1 + Z * Z / n)


@dataclass(frozen=True)
class Report:
    """All rows. A row is judged when it has at least `least` items; those of all questions must have as many."""

    rows: tuple[Row, ...]
    limit: float = LIMIT
    least: int = LEAST_ITEMS

    @property
    def leaks(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if self.verdict(row) == "leak")

    @property
    def enough(self) -> bool:
        return all(row.items >= self.least for row in self.rows if row.of == "all")

    @property
    def exit_code(self) -> int:
        if self.leaks:
            return 1
        return 0 if self.enough else 2

    def verdict(self, row: Row) -> str:
        if row.items < self.least:
            return "too few"
        return "leak" if row.accuracy > self.limit else "pass"

    def as_json(self) -> str:
        rows = [asdict(row) | {"interval": row.interval, "verdict": self.verdict(row)} for row in self.rows]
        summary = {"limit": self.limit, "least_items": self.least, "passed": self.exit_code == 0}
        return json.dumps(summary | {"rows": rows}, indent=2) + "\n"

    def as_markdown(self) -> str:
        """Two tables: the rows of all questions, and the accuracy of each row by type."""
        return "\n".join([
            f"Chance is {CHANCE:.1%}; a row of at least {self.least} items may have {self.limit:.1%}.\n",
            *_table(["row", "accuracy %", "95 % interval", "items", "verdict"], self._overall()),
            *(["", *_table(["row", *self._types], self._by_type())] if self._types else []),
            "",
        ])  # fmt: skip

    @property
    def _types(self) -> list[str]:
        return sorted({row.of for row in self.rows} - {"all"})

    def _overall(self) -> Iterator[list[str]]:
        for row in self.rows:
            if row.of == "all":
                low, high = (f"{100 * bound:.1f}" for bound in row.interval)
                yield [row.row, f"{100 * row.accuracy:.1f}", f"{low} to {high}", str(row.items), self.verdict(row)]

    def _by_type(self) -> Iterator[list[str]]:
        accuracy = {(row.row, row.of): f"{100 * row.accuracy:.1f}" for row in self.rows}
        items = {row.of: str(row.items) for row in self.rows}
        yield ["(items)", *(items[of] for of in self._types)]
        for name in dict.fromkeys(row.row for row in self.rows):
            yield [name, *(accuracy.get((name, of), "") for of in self._types)]


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def audit(
    records: Iterable[Record], more: Iterable[Row] = (), *, limit: float = LIMIT, least: int = LEAST_ITEMS
) -> Report:
    """Every rule and the classifier, on all questions and by type, and the rows `more` that were measured elsewhere.

    Raises:
        ValueError: there are no questions, or all are about one video.
    """
    records = list(records)
    if not records:
        raise ValueError("no questions to audit")
    earned = {name: points(rule, records) for name, rule in RULES.items()} | {CLASSIFIER: held_out_points(records)}
    rows = [Row.of_points(name, "all", got) for name, got in earned.items()]
    for name, got in earned.items():
        for type_ in sorted({record.type for record in records}):
            own = [point for point, record in zip(got, records, strict=True) if record.type == type_]
            rows.append(Row.of_points(name, type_, own))
    return Report((*rows, *more), limit, least)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Can the questions be answered without the video?")
    parser.add_argument("files", nargs="+", type=Path, help="question sets, in the public format or with our extras")
    parser.add_argument("--report", type=Path, default=Path("audit"), help="written with .json and .md added")
    parser.add_argument("--rows", type=Path, help="JSON list of rows measured elsewhere: row, of, accuracy, items")
    parser.add_argument("--least", type=int, default=LEAST_ITEMS, help="fewest items on which a row is judged")
    given = parser.parse_args(arguments)
    try:
        more = [Row(**row) for row in json.loads(given.rows.read_text(encoding="utf-8"))] if given.rows else []
        report = audit(chain.from_iterable(map(read, given.files)), more, least=given.least)
    except (ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"audit: {error}\n")
        return 2
    for suffix, text in ((".json", report.as_json()), (".md", report.as_markdown())):
        given.report.with_name(given.report.name + suffix).write_text(text, encoding="utf-8")
    sys.stdout.write(report.as_markdown())
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
