"""Promises about the project as a whole: import rules, README commands, names and file sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "serve", "training", "clients", "deploy", "tests")
SOURCES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def test_import_rules_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_only_the_app_sees_every_stage() -> None:
    stages = {"frames", "encoder", "selector", "decoder", "reconstructor", "ingress"}
    for path in (ROOT / "serve").glob("*.py"):
        if path.stem == "app":
            continue
        seen = {name.removeprefix("serve.") for name in _imports(path) if name.removeprefix("serve.") in stages}
        assert len(seen) <= 1, f"{path.name} imports {seen}"


def test_commands_of_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    asked = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(_code(readme))))
    assert {"run", "test"} <= asked <= targets
    for module in set(re.findall(r"python -m ([a-z_.]+)", readme)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_files_that_the_readme_names_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_has_a_name_that_says_something(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) <= 400


def _code(markdown: str) -> list[str]:
    return re.findall(r"```(?:sh|bash)\n(.*?)```", markdown, re.S) + re.findall(r"`([^`\n]+)`", markdown)


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
