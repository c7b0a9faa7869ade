"""The report of one day: what was measured again, beside what is stated."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.evidence.figures import GROUPS, NEEDS, Command, Statement, plain
from tests.evidence.running import Run
from tests.evidence.verdict import Finding, Known

PACKAGES = ("torch", "transformers", "ray", "av", "numpy", "fastapi")
LAST = Path(__file__).with_name("last.json")  # what was measured last of every figure, with date and hardware
SHARES = 4  # significant digits of a value in the table


@dataclass(frozen=True)
class Report:
    """`runs`: of the commands that were run or had been, by name; `reasons`: why the others were not. `state` of the
    files: runs of another one are those of an earlier commit."""

    date: str
    commit: str
    dirty: bool
    hardware: str
    commands: Mapping[str, Command]
    runs: Mapping[str, Run]
    reasons: Mapping[str, str]
    findings: Sequence[Finding]
    kept: Sequence[Statement]
    state: str

    @property
    def bad(self) -> list[str]:
        """What makes the exit status 1."""
        failed = [f"the command {name} failed" for name, run in self.runs.items() if run.failed]
        return failed + [
            f"{each.figure.name}: {each.verdict}{self._earlier(each.figure.command)}"
            for each in self.findings
            if each.is_bad
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "date": self.date,
            "commit": self.commit,
            "dirty": self.dirty,
            "hardware": self.hardware,
            "versions": versions(),
            "commands": {name: self._command(name) for name in self.commands},
            "figures": {each.figure.name: _figure(each) for each in self.findings},
            "kept": [
                {"file": each.file, "text": each.text, "why": each.kept, "measured": each.measured}
                for each in self.kept
            ],
        }

    def as_markdown(self) -> str:
        dirty = ", with changes that are not committed" if self.dirty else ""
        counts = Counter(each.verdict.split(";")[0] for each in self.findings)
        old = sum(bool(self._earlier(each.figure.command)) for each in self.findings)
        return "\n".join(
            [
                f"# Stated figures, measured again on {self.date}",
                "",
                f"`make evidence` at commit {self.commit[:12]}{dirty}, on {self.hardware}; "
                + ", ".join(f"{name} {number}" for name, number in versions().items())
                + ".",
                "",
                f"{len(self.findings)} figures: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()) + ".",
                *(
                    [f"{old} of them were measured at an earlier commit, which their command's row names."]
                    if old
                    else []
                ),
                *(f"* **{each}**" for each in self.bad),
                "",
                *(line for group in GROUPS for line in self._group(group)),
                "## Stated, and measured by no command here",
                "",
                *(f"* {each.file}, {each.measured}: {plain(each.text)} ({each.kept})" for each in self.kept),
                "",
                *self._tails(),
            ]
        )

    def _group(self, group: str) -> Iterator[str]:
        commands = [command for command in self.commands.values() if command.group == group]
        if not commands:
            return
        yield f"## {group}"
        yield ""
        yield from ("| command | ended | minutes | load before | load after |", "|---|---|---|---|---|")
        yield from (self._row(command) for command in commands)
        yield ""
        yield from ("| figure | stated | now | | verdict | stated in |", "|---|---|---|---|---|---|")
        names = {command.name for command in commands}
        yield from (_line(each) for each in self.findings if each.figure.command in names)
        yield ""

    def _row(self, command: Command) -> str:
        run = self.runs.get(command.name)
        if run is None:
            return f"| `{command.run}` | {self._reason(command)} | | | |"
        loads = (" ".join(f"{each:.1f}" for each in load) for load in (run.load_before, run.load_after))
        ended = f"**{run.why or f'failed with status {run.status}'}**" if run.failed else "well"
        ended += self._earlier(command.name)
        return f"| `{command.run}` | {run.started}, {ended} | {run.seconds / 60:.1f} | {' | '.join(loads)} |"

    def _earlier(self, name: str) -> str:
        """Where a command's run is of an earlier commit, its name."""
        run = self.runs.get(name)
        return f", at {run.state}" if run is not None and run.state != self.state else ""

    def _reason(self, command: Command) -> str:
        why = self.reasons[command.name]
        return f"not run: needs {NEEDS[why]}" if why in NEEDS else f"not run{why and f': {why}'}"

    def _tails(self) -> Iterator[str]:
        for name, run in self.runs.items():
            if run.failed:
                yield from (f"## How {name} ended ({run.folder})", "", "```", run.tail(), "```", "")

    def _command(self, name: str) -> dict[str, Any]:
        command, run = self.commands[name], self.runs.get(name)
        told = {"group": command.group, "run": command.run}
        if run is None:
            return {**told, "not_run": self.reasons[name]}
        return {
            **told, "status": run.status, "why": run.why, "started": run.started, "seconds": run.seconds,
            "state": run.state, "load_before": run.load_before, "load_after": run.load_after,
        }  # fmt: skip


def versions() -> dict[str, str]:
    """Of Python and of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def last_measured(path: Path = LAST) -> dict[str, Known]:
    """By figure; empty where no report was kept yet."""
    if not path.exists():
        return {}
    return {name: Known(**each) for name, each in json.loads(path.read_text(encoding="utf-8")).items()}


def remember(findings: Sequence[Finding], path: Path = LAST) -> None:
    """The last measurement of every figure, as it is after these findings."""
    known = {each.figure.name: each.last.__dict__ for each in findings if each.last.value is not None}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _figure(finding: Finding) -> dict[str, Any]:
    figure, last = finding.figure, finding.last
    return {
        "stated": figure.stated, "now": finding.now, "unit": figure.unit, "verdict": finding.verdict,
        "margin": figure.margin, "better": figure.better, "absolute": figure.absolute, "command": figure.command,
        "file": figure.file, "last": {"value": last.value, "date": last.date, "hardware": last.hardware},
    }  # fmt: skip


def _line(finding: Finding) -> str:
    figure = finding.figure
    stated = "not measured" if figure.stated is None else _short(figure.stated)
    now = "" if finding.now is None else _short(finding.now)
    verdict = f"**{finding.verdict}**" if finding.is_bad else finding.verdict
    return f"| {figure.name} | {stated} | {now} | {figure.unit} | {verdict} | {figure.file} |"


def _short(value: float) -> str:
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{SHARES}g}"
