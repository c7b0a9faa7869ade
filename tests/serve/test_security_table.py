"""The tests that serve/SECURITY.md names are there: a renamed test must not leave a claim without its proof."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "serve" / "SECURITY.md"
NAMED = re.compile(r"`((?:[\w/]+/test_\w+\.py)?)(?:::(test_\w+))?`")


def named() -> list[tuple[str, str]]:
    """(file, function) of every test that a table names; a bare `::test` is of the file before it in its row."""
    found = []
    for row in TABLE.read_text(encoding="utf-8").splitlines():
        file = ""
        for match in NAMED.finditer(row if row.startswith("|") else ""):
            file = match[1] or file
            found.append((file, match[2] or ""))
    return found


def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_security_table_names_is_there() -> None:
    tests = named()
    assert len(tests) > 60
    missing = [f"{file}::{name}" for file, name in tests if name and name not in functions(file)]
    assert missing == []
    assert all((TESTS / file).is_file() for file, _ in tests)


def test_every_row_of_a_table_names_a_test() -> None:
    text = TABLE.read_text(encoding="utf-8")
    rows = [
        row for row in text.splitlines() if row.startswith("|") and not row.startswith(("|---", "| attack", "| what |"))
    ]
    assert [row for row in rows if not NAMED.search(row.rsplit("|", 2)[1])] == []
