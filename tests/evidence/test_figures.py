"""The list of stated figures agrees with the READMEs, and with the commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.evidence.figures import ROOT, BadTable, Command, Statement, plain, read
from tests.evidence.running import words

TABLE = read()
MACHINE = '[machine]\nprocessor = "P"\ncores = 2\nhardware = "P"\n'
COMMAND = '[command.a]\ngroup = "parity"\nrun = "python -m a"\nminutes = 1\nmeasured = "2026-01-01"\n'
STATED = '[[statement]]\nof = "a"\nfile = "README.md"\ntext = "it is {one} %"\n'
ROW = 'figures.one = { key = "x" }\n'


def _table(folder: Path, text: str, readme: str = "it is 5 %") -> Path:
    (folder / "README.md").write_text(readme)
    path = folder / "figures.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("statement", TABLE.statements, ids=lambda statement: statement.text[:60])
def test_a_stated_text_is_in_its_readme(statement: Statement) -> None:
    statement.values((ROOT / statement.file).read_text())


def test_every_figure_has_a_stated_value_or_needs_what_was_not_at_hand() -> None:
    figures = list(TABLE.figures())
    assert len(figures) == len({figure.name for figure in figures}) > 100
    assert {figure.command for figure in figures} == set(TABLE.commands), "a command without a figure"
    for figure in figures:
        assert figure.stated is not None or TABLE.commands[figure.command].measured == "never", figure.name
        assert figure.margin >= 0


@pytest.mark.parametrize("command", TABLE.commands.values(), ids=lambda command: command.name)
def test_what_a_command_runs_exists(command: Command) -> None:
    given = shlex.split(command.run)
    assert given[:2] == ["python", "-m"]
    if given[2] == "pytest":
        [path] = [ROOT / word for word in given if word.endswith(".py")]
        assert f"pytest.mark.{given[given.index('-m', 3) + 1]}" in path.read_text()
    else:
        module = ROOT / given[2].replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()
    for word in given:
        assert word.startswith("{out}") or "/" not in word or (ROOT / word).exists(), word
    assert not re.search(r"[{}]", " ".join(words(command, Path("out"))))


@pytest.mark.parametrize("heading", ["# dsr-serve", "## How it answers quickly", "## How hard it is to break"])
def test_every_row_of_figures_in_the_readme_is_in_the_list(heading: str) -> None:
    section = (ROOT / "README.md").read_text().split(f"{heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [plain(line) for line in section.splitlines() if line.startswith("|") and re.search(r"\d", line)]
    assert rows
    ours = [statement.pattern for statement in TABLE.statements if statement.file == "README.md"]
    assert [row for row in rows if not any(pattern.search(row) for pattern in ours)] == []


def test_a_value_stands_in_the_readme_alone(tmp_path: Path) -> None:
    path = _table(tmp_path, MACHINE + COMMAND + STATED + ROW, "so it is\n1,234.5 %, truly")
    assert [figure.stated for figure in read(path).figures(tmp_path)] == [1234.5]


@pytest.mark.parametrize(
    ("said", "stated"), [("none", 0.0), ("not measured", None), ("-0.9", -0.9), ("1.2e-7", 1.2e-7)]
)
def test_how_a_readme_may_write_a_value(tmp_path: Path, said: str, stated: float | None) -> None:
    path = _table(tmp_path, MACHINE + COMMAND + STATED + ROW, f"it is {said} %")
    assert [figure.stated for figure in read(path).figures(tmp_path)] == [stated]


@pytest.mark.parametrize("readme", ["it was 5 %", "it is 5 %, it is 6 %", "it is five %"])
def test_a_text_that_is_missing_or_there_twice_is_named(tmp_path: Path, readme: str) -> None:
    path = _table(tmp_path, MACHINE + COMMAND + STATED + ROW, readme)
    with pytest.raises(BadTable, match=r"README\.md .* it is \{one\} %"):
        list(read(path).figures(tmp_path))


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        (COMMAND + STATED + ROW + STATED + ROW, "two figures one"),
        (COMMAND.replace("parity", "party") + STATED + ROW, "'party'"),
        (COMMAND + STATED.replace('"a"', '"b"') + ROW, "'b'"),
        (COMMAND + STATED.replace('of = "a"\n', "") + ROW, "`of`"),
        (COMMAND + STATED + 'figures.one = { key = "x", line = "y" }\n', "one has either"),
        (COMMAND + STATED + 'figures.one = { key = "x", better = "more" }\n', "'more'"),
        (COMMAND + STATED + 'figures.two = { key = "x", stated = 1 }\n', "{one}"),
        (COMMAND + STATED + ROW + 'figures.two = { key = "x" }\n', "two has neither"),
    ],
)
def test_a_mistake_in_the_list_is_named(tmp_path: Path, rest: str, named: str) -> None:
    path = _table(tmp_path, MACHINE + rest)
    with pytest.raises(BadTable, match=re.escape(named)):
        list(read(path).figures(tmp_path))
