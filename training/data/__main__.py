"""Makes a data set of questions: training and benchmark in the public formats, audited, with a card.

    python -m training.data questions.json --out DIR --name NAME --license apache-2.0

DIR then has train.json and benchmark.json (with what the public fields lack), train.parquet and benchmark.parquet
(the public fields alone), audit-train.* and audit-benchmark.*, and README.md, the card. It exits with 1 when the blind
audit finds a leak, and with 2 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.layout import sha256
from training.arguments import positive
from training.data.card import Card
from training.data.duplicates import duplicates
from training.data.formats import record_of, rows_of
from training.data.groups import without
from training.data.splits import capped, relettered, shared_groups, split
from training.questions.audit import LEAST_ITEMS, Report, audit
from training.questions.records import Record, as_json, write

REPEATED = "there twice, in every field"
CUT = "above the most of their type"
UNUSABLE = "no questions that can be asked"


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        card = _make(given, ["python -m training.data", *(arguments if arguments is not None else sys.argv[1:])])
    except (ValueError, OSError) as error:
        sys.stderr.write(f"data: {error}\n")
        return 2
    told = ", ".join(f"{len(records)} in {name}" for name, records in card.parts.items())
    taken = "".join(f"; {count} were {why}" for why, count in card.taken.items())
    sys.stdout.write(f"{told}{taken}. {given.out / 'README.md'}\n")
    leaks = [f"{name}: {row.row} ({row.of})" for name, report in card.audits.items() if report for row in report.leaks]
    for leak in leaks:
        sys.stderr.write(f"above the limit without the video: {leak}\n")
    return 1 if leaks else 0


def _make(given: argparse.Namespace, command: Sequence[str]) -> Card:
    rows, taken = _read(given.questions)
    records = list(dict.fromkeys(rows))
    taken[REPEATED] += len(rows) - len(records)
    again = duplicates(records)
    left = without(records, again)
    taken.update(Counter(again.values()))
    taken["in a group with one of these"] += len(records) - len(again) - len(left)
    parts: dict[str, list[Record]] = {}
    moved = 0
    for name, part in zip(("train", "benchmark"), split(left, given.benchmark, given.seed), strict=True):
        cut = capped(part, given.per_type, given.seed)
        taken[CUT] += len(part) - len(cut)
        parts[name], changed = relettered(cut)
        moved += changed
    given.out.mkdir(parents=True, exist_ok=True)
    audits = {name: _audited(part, given.least) for name, part in parts.items()}
    facts = json.loads(given.facts.read_text(encoding="utf-8")) if given.facts else {}
    if not isinstance(facts, dict):
        raise ValueError(f"{given.facts} holds a {type(facts).__name__}, expected an object")
    sources = [*given.source, *(f"{file.name}, sha256 {sha256(file)}" for file in given.questions)]
    card = Card(
        given.name, given.license, given.date, given.commit or _commit(), " ".join(command), parts, audits, sources,
        {why: count for why, count in taken.items() if count}, shared_groups(*parts.values()), moved, facts,
    )  # fmt: skip
    for name, part in parts.items():
        write(given.out / f"{name}.json", part)
        write_parquet(given.out / f"{name}.parquet", part)
        if report := audits[name]:
            (given.out / f"audit-{name}.json").write_text(report.as_json(), encoding="utf-8")
            (given.out / f"audit-{name}.md").write_text(report.as_markdown(), encoding="utf-8")
    (given.out / "README.md").write_text(card.as_markdown(), encoding="utf-8")
    return card


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """The public fields, `options` a list of text, as DSR-Train and DSR-Bench have them."""
    import pyarrow
    import pyarrow.parquet

    text = {name: pyarrow.string() for name in ("videoID", "question", "options", "answer", "type")}
    schema = pyarrow.schema(text | {"options": pyarrow.list_(pyarrow.string())})
    rows = [as_json(record, extras=False) for record in records]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


def _read(files: Sequence[Path]) -> tuple[list[Record], Counter[str]]:
    records: list[Record] = []
    taken = Counter[str]()
    for row in (row for file in files for row in rows_of(file)):
        try:
            records.append(record_of(row))
        except ValueError:
            taken[UNUSABLE] += 1
    return records, taken


def _audited(records: Sequence[Record], least: int) -> Report | None:
    if len({record.videoID for record in records}) < 2:
        return None
    return audit(records, least=least)


def _commit() -> str:
    """Of this code, where it is a git checkout."""
    where: dict[str, Any] = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": False}
    try:
        told = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **where)
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", nargs="+", type=Path, help="our records or the public format: .json, .parquet")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--license", required=True, help="of the questions, as model hubs write it")
    parser.add_argument("--source", action="append", default=[], help="what videos and cues come from; may be repeated")
    parser.add_argument(
        "--facts", type=Path, help="JSON object with more thresholds for the card, such as a detector's"
    )
    parser.add_argument("--benchmark", type=_share, default=0.1, metavar="SHARE", help="of the questions; default 0.1")
    parser.add_argument("--per-type", type=positive, help="at most so many of a type in a part; default: the median")
    parser.add_argument("--seed", type=int, default=0, help="of the split by video")
    parser.add_argument(
        "--least", type=positive, default=LEAST_ITEMS, help="fewest questions on which a blind row is judged"
    )
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="for the card; default: today")
    parser.add_argument("--commit", help="for the card; default: that of this checkout")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{value}; between 0 and 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
