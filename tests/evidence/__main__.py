"""Measures again what the READMEs state, and says what has become of it.

    python -m tests.evidence --list                      # commands, minutes, how many figures each has
    python -m tests.evidence --only parity evaluation    # groups, or commands
    python -m tests.evidence --minutes 60                # what does not fit into an hour is left for the next time

Writes DATE.md and DATE.json into --out. What has ended well is not run again for the same commit (--again: it is); what
was run at an earlier commit stands with that commit, and what was never run keeps its last value with its date. Exit
status 1: a figure is worse than stated, or a command failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from tests.bench.record import hardware
from tests.evidence import running
from tests.evidence.figures import GROUPS, NEEDS, ROOT, BadTable, Command, Figure, Table, read
from tests.evidence.reading import OUTPUT, numbers, value
from tests.evidence.report import LAST, Report, last_measured, remember
from tests.evidence.running import Busy, Run
from tests.evidence.verdict import FAILED, MUTE, Finding, Known, compared, known, not_run


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        table = read()
        figures = list(table.figures())
        chosen = choose(table, given.only)
        if given.list:
            show(table, figures)
            return 0
        with running.alone(given.out):
            report = measure(table, figures, chosen, given)
            write(report, given.out, given.keep)
    except (BadTable, Busy) as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nevidence: stopped; the same command goes on with what is left", file=sys.stderr)
        return 130
    for each in report.bad:
        print(f"evidence: {each}", file=sys.stderr)
    return 1 if report.bad else 0


def choose(table: Table, only: Sequence[str]) -> list[Command]:
    """All commands, or those of the named groups and names. BadTable: a name that is neither."""
    if unknown := [name for name in only if name not in GROUPS and name not in table.commands]:
        raise BadTable(f"--only {unknown[0]}: no such group or command; groups are {', '.join(GROUPS)}; see --list")
    return [each for each in table.commands.values() if not only or {each.group, each.name} & set(only)]


def lacking(command: Command) -> str:
    """What this machine has not, of what the command needs; empty: nothing."""
    there = {
        "gpu": lambda: bool(shutil.which("nvidia-smi")) and not subprocess.run(["nvidia-smi", "-L"]).returncode,
        "root": lambda: os.geteuid() == 0 and shutil.which("ip") is not None,
    }
    return "" if not command.needs or there[command.needs]() else command.needs


def measure(table: Table, figures: Sequence[Figure], chosen: Sequence[Command], given: argparse.Namespace) -> Report:
    """Runs what was chosen and fits, and compares all that there is, of earlier times and commits, too."""
    folder, end = running.place(given.out), time.monotonic() + 60 * (given.minutes or float("inf"))
    (commit, dirty), machine = running.state(), hardware()
    runs = {name: run for name, command in table.commands.items() if (run := running.finished(folder, command))}
    reasons = {name: lacking(command) for name, command in table.commands.items()}
    for number, command in enumerate(chosen, 1):
        what = f"{number} of {len(chosen)}: {command.name}"
        if command.name in runs and not given.again:
            print(f"{what} was run at {runs[command.name].started}", flush=True)
        elif lack := reasons[command.name]:
            print(f"{what} needs {NEEDS[lack]}: left out", flush=True)
        elif time.monotonic() + 60 * command.minutes > end:
            reasons[command.name] = f"its {command.minutes:g} min did not fit"
            print(f"{what} takes about {command.minutes:g} min and does not fit: left out", flush=True)
        else:
            print(f"{what}, about {command.minutes:g} min", flush=True)
            run = runs[command.name] = running.run(command, folder)
            ended = f"FAILED ({run.why or f'status {run.status}'}):\n{run.tail()}" if run.failed else "done"
            print(f"    {ended} after {run.seconds / 60:.1f} min: {run.folder}", flush=True)
    runs = running.earlier(given.out, table.commands.values()) | runs
    findings = list(find(table, figures, runs, reasons, machine))
    kept = [statement for statement in table.statements if statement.kept]
    return Report(
        date.today().isoformat(), commit, dirty, machine, table.commands, runs, reasons, findings, kept, folder.name
    )


def find(
    table: Table, figures: Sequence[Figure], runs: dict[str, Run], reasons: dict[str, str], machine: str
) -> Iterator[Finding]:
    """One finding for each figure."""
    earlier = last_measured()
    for figure in figures:
        command, run = table.commands[figure.command], runs.get(figure.command)
        last = known(figure, command, earlier.get(figure.name))
        if run is None:
            yield Finding(figure, None, not_run(reasons[command.name], last), last)
            continue
        own = Path(run.folder)
        now = value(figure, numbers(own), (own / OUTPUT).read_text(encoding="utf-8", errors="replace"))
        if now is not None:
            last = Known(now, run.date, machine)
            verdict = FAILED if run.failed else compared(figure, now, table.is_the_machine(machine))
        else:
            verdict = FAILED if run.failed else MUTE
        yield Finding(figure, now, verdict, last)


def write(report: Report, out: Path, keep: bool) -> None:
    texts = {".md": report.as_markdown(), ".json": json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"}
    for ending, text in texts.items():
        path = (out / report.date).with_suffix(ending)
        path.write_text(text, encoding="utf-8")
        print(path)
    if keep:
        remember(report.findings)
        LAST.with_suffix(".md").write_text(texts[".md"], encoding="utf-8")
        print(f"{LAST.relative_to(ROOT)} and .md: to be committed")


def show(table: Table, figures: Sequence[Figure]) -> None:
    for command in table.commands.values():
        count = sum(figure.command == command.name for figure in figures)
        needs = f", needs {NEEDS[command.needs]}" if command.needs else ""
        print(f"{command.group:11}{command.name:24}{command.minutes:6g} min {count:4} figures{needs}")
    print(f"{'all':35}{sum(command.minutes for command in table.commands.values()):6.0f} min {len(figures):4} figures")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="GROUP", help=f"{', '.join(GROUPS)}; or a command")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--minutes", type=float, help="begin nothing that would not be done by then")
    parser.add_argument("--again", action="store_true", help="also what has ended well for this commit")
    parser.add_argument("--out", type=Path, default=ROOT / "evidence", help="default: evidence/, which git ignores")
    parser.add_argument("--keep", action="store_true", help="also as tests/evidence/last.md and .json, which git has")
    return parser


if __name__ == "__main__":
    sys.exit(main())
