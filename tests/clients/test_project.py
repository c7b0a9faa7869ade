"""The distribution: what it needs, what it imports, and that its README is true."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import dsr_client
import pytest
from dsr_client._cli._arguments import parser

from tests.clients.test_reconstruct import reconstruction
from tests.clients.wire import Reply, Wire, answer, event, video
from tests.clips import make_clip

PYTHON = Path("clients/python")
SOURCES = sorted((PYTHON / "src").rglob("*.py"))
EXAMPLES = re.findall(r"```python\n(.*?)```", (PYTHON / "README.md").read_text(), re.S)


def test_only_httpx_is_needed_and_nothing_of_the_service_is_imported() -> None:
    project = (PYTHON / "pyproject.toml").read_text()
    assert re.search(r'^dependencies = \["httpx[^"]*"\]$', project, re.M)
    optional = {"av", "PIL"}  # drawing
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names}:
                assert top in sys.stdlib_module_names | {"httpx"} | optional, f"{path} imports {top}"
                assert top not in optional or path.stem in {"_frames", "_strip"}, f"{path} imports {top}"


def test_files_are_private_typed_and_say_what_they_offer() -> None:
    assert (PYTHON / "src/dsr_client/py.typed").exists()
    for path in SOURCES:
        assert path.name.startswith("_"), path
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert re.search(r"^__all__ = ", path.read_text(), re.M) or path.stem == "_version", path
    assert all(hasattr(dsr_client, name) for name in dsr_client.__all__)
    assert dsr_client.__all__ == sorted(dsr_client.__all__)


def test_the_readmes_first_example_has_six_lines_and_runs(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip("clip.mp4", seconds=1, fps=10)
    wire.script(Reply(video(), 201), Reply(answer()))
    assert len(EXAMPLES[0].splitlines()) <= 6
    _run(EXAMPLES[0].replace("http://127.0.0.1:8000", wire.url))
    assert capsys.readouterr().out == "It shrinks. {'A': 0.25, 'B': 0.75}\n"
    assert wire.seen[1].json()["options"] == ["It grows.", "It shrinks."]


def test_the_readmes_other_examples_run(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSR_URL", wire.url)
    make_clip("clip.mp4", seconds=1, fps=10)
    streamed, explained, reconstructed = EXAMPLES[1:]
    wire.script(Reply(video(), 201), Reply([event("token", {"text": "A car."}), event("answer", answer())]))
    _run(streamed)
    assert capsys.readouterr().out.startswith("A car.\n\nUsage(")
    looked = {"times": [0.0, 0.5], "grid": [2, 1, 1], "attention": [[[0.5]], [[0.5]]]}
    wire.script(Reply(video(), 201), Reply(answer(explanation=looked)))
    _run(explained)
    assert Path("looked-at.png").read_bytes().startswith(b"\x89PNG")
    wire.script(Reply(video(), 201), Reply(reconstruction()))
    _run(reconstructed)
    assert capsys.readouterr().out.startswith("200 points, 4 cameras, the last at (")
    assert Path("scene.glb").read_bytes().startswith(b"glTF")


def test_the_readmes_commands_are_ones_that_the_command_knows() -> None:
    commands = re.findall(r"^dsr (.*)$", (PYTHON / "README.md").read_text(), re.M)
    assert len(commands) >= 6
    for command in commands:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
        assert callable(parser().parse_args(words).run), command


def _run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})
