"""What commands say is read, compared, and reported; on small recorded outputs and on commands that take no time."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.record import median
from tests.evidence import __main__ as evidence
from tests.evidence import report, running
from tests.evidence.figures import BadTable, Command, Figure, Table, read
from tests.evidence.reading import FIGURES, OUTPUT, numbers, value
from tests.evidence.verdict import BETTER, ELSEWHERE, FAILED, FIRST, MUTE, REPRODUCED, WORSE, Known, compared, known
from tests.processes import alive
from tests.soak.figures import hand_over, hand_over_tally
from tests.soak.load import Tally

BENCH = """\
Loading weights: 100%|##########| 81/81
{"name": "warm_speedup", "value": 36.7, "unit": "x", "baseline": "b", "runs": 50, "spread": [34.3, 39.8]}
{"name": "crowd_speedup", "value": 2.14, "unit": "x", "baseline": "b", "runs": 1, "spread": [2.14, 2.14]}
{ not JSON
"""
VERIFY = json.dumps({"ok": True, "deviation": {"logits": 5.5e-7, "ids": 0.0}, "parameters": {"a": 3, "b": 4}}, indent=1)
EVALUATION = json.dumps(
    {
        "accuracy": 0.421,
        "interval": [0.4, 0.443],
        "types": {"abs_dis": {"accuracy": 0.41}, "rel_dis": {"accuracy": 0.35}, "rel_dir": {"accuracy": 0.6}},
        "rows": {"geometry off": {"accuracy": 0.24}},
    }
)
FUZZ = """\
{"inputs": 1000, "complaints": [], "parent_mb": [210]}
{"inputs": 2000, "complaints": [], "parent_mb": [210, 216]}
"""
PLAN = "10/s: frames 10 encoder 1; 14.00/h\n1000/s: frames 1000 encoder 100; busy 46%; 1,400.00/h\n"


def _figure(**fields: Any) -> Figure:
    return Figure(**{"name": "f", "command": "c", "file": "README.md", "text": "", "stated": 100.0, **fields})


@pytest.mark.parametrize(
    ("output", "fields", "expected"),
    [
        (BENCH, {"key": "warm_speedup"}, 36.7),
        (BENCH, {"key": "warm_speedup/spread/1"}, 39.8),
        (BENCH, {"key": "*_speedup", "take": "min"}, 2.14),
        (VERIFY, {"key": "deviation/*"}, 5.5e-7),  # and not how many there are
        (VERIFY, {"key": "deviation/count"}, 2),
        (VERIFY, {"key": "parameters/*", "take": "sum", "scale": 1e-6}, 7e-6),
        (EVALUATION, {"key": "accuracy", "scale": 100}, 42.1),
        (EVALUATION, {"key": "interval/0", "scale": 100}, 40),
        (EVALUATION, {"key": "types/*_dis/accuracy", "take": "mean", "scale": 100}, 38),
        (EVALUATION, {"key": "rows/geometry off/accuracy", "scale": 100}, 24),
        (FUZZ, {"key": "inputs"}, 2000),
        (FUZZ, {"key": "complaints/count"}, 0),
        (FUZZ, {"key": "parent_mb/*"}, 216),
        (PLAN, {"line": r"^1000/s: frames (\d+) "}, 1000),
        (PLAN, {"line": r"^1000/s: .* ([\d,.]+)/h"}, 1400),
        (BENCH, {"key": "cold_speedup"}, None),
        (PLAN, {"line": r"^100/s: frames (\d+) "}, None),
    ],
)
def test_a_figure_is_read_off_an_output(
    tmp_path: Path, output: str, fields: dict[str, Any], expected: float | None
) -> None:
    (tmp_path / OUTPUT).write_text(output)
    assert value(_figure(**fields), numbers(tmp_path), output) == pytest.approx(expected)


def test_a_file_that_the_command_has_written_counts_too(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text("a table\n")
    (tmp_path / "evaluation.json").write_text(EVALUATION)
    assert value(_figure(key="accuracy"), numbers(tmp_path), "") == 0.421


def test_a_soak_test_hands_its_figures_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over("s", nobody_asked=1.0)
    monkeypatch.setenv("DSR_FIGURES", str(tmp_path / FIGURES))
    tally = Tally([0.1 * n for n in range(1, 201)], failed=["lost"], wrong=[])
    hand_over_tally("chaos", tally)
    hand_over("s", chaos_recovery_frames=37.04, chaos_recovery_ingress=12)
    found = numbers(tmp_path)
    assert found.keys() >= {"chaos_answers", "chaos_lost", "chaos_wrong", "chaos_p99"}
    assert (found["chaos_answers"], found["chaos_lost"], found["chaos_wrong"]) == (200, 1, 0)
    assert found["chaos_p99"] == pytest.approx(tally.late, rel=1e-4)
    assert value(_figure(key="chaos_recovery_[!i]*"), found, "") == 37.04
    assert "nobody_asked" not in found


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        ({"better": "higher", "within": "10 %"}, 90, REPRODUCED),
        ({"better": "higher", "within": "10 %"}, 89.9, WORSE),
        ({"better": "higher", "within": "10 %"}, 110.1, BETTER),
        ({"better": "lower", "within": "10 %"}, 110, REPRODUCED),
        ({"better": "lower", "within": "10 %"}, 110.1, WORSE),
        ({"better": "lower", "within": "10 %"}, 89.9, BETTER),
        ({"within": 2.5}, 97.5, REPRODUCED),
        ({"within": 2.5}, 97.4, WORSE),
        ({"within": 2.5}, 102.6, WORSE),
        ({"stated": 0.3, "within": 0.1}, 0.2, REPRODUCED),
        ({"stated": 0.0, "better": "lower"}, 1, WORSE),
        ({"stated": -0.9, "better": "lower", "within": "10 %"}, -0.7, WORSE),
        ({"stated": None}, 5, FIRST),
        ({"better": "lower"}, float("inf"), WORSE),
        ({"better": "higher"}, float("nan"), WORSE),
    ],
)
def test_a_value_is_compared_both_ways(fields: dict[str, Any], now: float, expected: str) -> None:
    assert compared(_figure(**fields), now, same_machine=True) == expected


def test_what_one_machine_alone_can_say_is_not_held_against_another() -> None:
    slow = _figure(better="lower", within="10 %", absolute=True)
    assert compared(slow, 300, same_machine=False) == ELSEWHERE
    assert compared(slow, 300, same_machine=True) == WORSE
    table = Table("AMD EPYC", 2, {}, ())
    assert table.is_the_machine("AMD EPYC 7R13 Processor, 2 cores, no GPU")
    assert not table.is_the_machine("AMD EPYC 7R13 Processor, 32 cores, no GPU")


def test_the_later_one_of_what_is_stated_and_what_was_kept_is_the_last() -> None:
    command = Command("c", "parity", "", 1, "2026-03-01", "there")
    kept = {date: Known(5.0, date, "here") for date in ("2026-02-01", "2026-04-01")}
    assert known(_figure(), command, None) == Known(100.0, "2026-03-01", "there")
    assert known(_figure(), command, kept["2026-02-01"]).value == 100.0
    assert known(_figure(), command, kept["2026-04-01"]).value == 5.0


MADE_UP = """\
[machine]
processor = ""
cores = 2
hardware = "there"
"""


def _made_up(folder: Path) -> tuple[Table, list[Figure]]:
    """Four commands that say a figure, one that is too low, nothing, and one before they fail; one that needs a GPU."""
    says = 'print(\'{"name": "%s", "value": %d, "unit": "x"}\')'
    code = {
        "good": says % ("good", 10) + f"; open('{folder}/times', 'a').write('once ')",
        "bad": says % ("bad", 5),
        "mute": "print('nothing')",
        "lost": says % ("lost", 10) + "; raise SystemExit('it broke')",
        "never": "raise SystemExit('this needs a GPU')",
    }
    lines, readme = [MADE_UP], ""
    for name, text in code.items():
        (folder / f"{name}.py").write_text(text)
        stated = "not measured" if name == "never" else "10"
        lines.append(f'[command.{name}]\ngroup = "{"gpu" if name == "never" else "bench"}"\nminutes = 0.1\n')
        lines.append(
            f'run = "python {folder}/{name}.py"\nmeasured = "{"never" if name == "never" else "2026-01-01"}"\n'
        )
        lines.append(
            f'needs = "{"gpu" if name == "never" else ""}"\n[[statement]]\nof = "{name}"\nfile = "README.md"\n'
        )
        lines.append(f'text = "{name} is {{{name}}};"\nfigures.{name} = {{ key = "{name}", better = "higher" }}\n')
        readme += f"{name} is {stated};\n"
    (folder / "README.md").write_text(readme)
    (folder / "figures.toml").write_text("".join(lines))
    table = read(folder / "figures.toml")
    return table, list(table.figures(folder))


def test_all_of_it_on_made_up_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "place", lambda folder: folder / "runs")
    monkeypatch.setattr(evidence, "lacking", lambda command: command.needs)
    monkeypatch.setattr(report, "LAST", tmp_path / "last.json")
    monkeypatch.setattr(evidence, "LAST", tmp_path / "last.json")
    table, figures = _made_up(tmp_path)
    given = argparse.Namespace(out=tmp_path / "out", minutes=None, again=False)
    given.out.mkdir()
    chosen = evidence.choose(table, [])
    first = evidence.measure(table, figures, chosen, given)
    verdicts = {each.figure.name: each.verdict for each in first.findings}
    assert verdicts == {
        "good": REPRODUCED, "bad": WORSE, "mute": MUTE, "lost": FAILED, "never": "needs a GPU; never measured",
    }  # fmt: skip
    assert first.bad == ["the command lost failed", "bad: worse", f"mute: {MUTE}", f"lost: {FAILED}"]
    said = capsys.readouterr().out
    assert "1 of 5: good, about 0.1 min" in said
    assert "it broke" in said

    evidence.write(first, given.out, keep=False)
    [markdown], [document] = given.out.glob("*.md"), given.out.glob("*.json")
    text = markdown.read_text()
    assert "| bad | 10 | 5 |  | **worse** | README.md |" in text
    assert "it broke" in text
    assert first.hardware in text
    told = json.loads(document.read_text())
    assert told["commands"]["good"]["status"] == 0
    assert told["figures"]["good"]["now"] == 10
    assert told["commit"] == first.commit

    again = evidence.measure(table, figures, evidence.choose(table, ["bench"]), given)
    assert (tmp_path / "times").read_text() == "once ", "what has ended well is not run again"
    assert [each.verdict for each in again.findings] == list(verdicts.values())
    rest = evidence.measure(table, figures, evidence.choose(table, ["gpu"]), given)
    assert rest.findings[0].verdict == REPRODUCED, "what was run before for the same commit is in the report"
    report.remember(again.findings, tmp_path / "last.json")
    assert report.last_measured(tmp_path / "last.json")["bad"].value == 5

    given.minutes, given.again = 0.001, True
    monkeypatch.setattr(running, "place", lambda folder: folder / "of another commit")
    third = evidence.measure(table, figures, chosen, given)
    assert third.findings[0].verdict == "not run: its 0.1 min did not fit; last value of 2026-01-01"
    assert third.bad == []


def test_what_an_earlier_commit_has_measured_stands_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {name: 40 * name for name in "abc"}  # c is no commit that this one was made from
    monkeypatch.setattr(running, "_git", lambda *words: f"{of['b']}\n{of['a']}\n" if "rev-list" in words else "")
    monkeypatch.setattr(running, "state", lambda: (of["b"], False))
    table, figures = _made_up(tmp_path)
    given = argparse.Namespace(out=tmp_path / "out", minutes=None, again=False)
    good = evidence.choose(table, ["good"])
    for commit in ("a", "c"):
        running.run(good[0], running.place(given.out).with_name(of[commit][: running.SHORT]))
    assert (tmp_path / "times").read_text() == "once once "

    found = evidence.measure(table, figures, evidence.choose(table, ["mute"]), given)
    assert (found.findings[0].now, found.findings[0].verdict) == (10, REPRODUCED)
    assert found.as_dict()["commands"]["good"]["state"] == of["a"][: running.SHORT]
    text = found.as_markdown()
    assert f"well, at {of['a'][: running.SHORT]} |" in text
    assert "1 of them were measured at an earlier commit" in text

    again = evidence.measure(table, figures, good, given)
    assert (tmp_path / "times").read_text() == "once once once ", "who asks for it gets it for this commit"
    assert again.as_dict()["commands"]["good"]["state"] == of["b"][: running.SHORT]
    assert "earlier commit" not in again.as_markdown()


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(BadTable, match="sok"):
        evidence.choose(read(), ["sok"])


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LEAST_MINUTES", 3 / 60)
    monkeypatch.setattr(running, "STOP_SECONDS", 1.0)
    (tmp_path / "hang.py").write_text(
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    done = running.run(Command("hang", "bench", f"python {tmp_path}/hang.py", 0.0, "never", ""), tmp_path / "runs")
    assert done.failed
    assert "did not end" in done.why
    pids = [int(word) for word in (tmp_path / "runs" / "hang" / OUTPUT).read_text().split()]
    assert len(pids) == 2
    end = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, pids))
    assert running.finished(tmp_path / "runs", Command("hang", "bench", "", 0.0, "never", "")) is None


def test_two_measurements_at_once_are_refused(tmp_path: Path) -> None:
    with (
        running.alone(tmp_path),
        pytest.raises(running.Busy, match=os.path.basename(tmp_path)),
        running.alone(tmp_path),
    ):
        pass


def test_median_has_the_form_that_is_read(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text(median("warm_speedup", [1.0, 2.0, 3.0], "x", "b").line() + "\n")
    assert numbers(tmp_path)["warm_speedup"] == 2.0
