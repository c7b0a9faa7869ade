"""`.ci/fresh` on small repositories whose `make run` keeps its promise, or breaks it in one way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import fresh
from tests.processes import descendants

MAKEFILE = """\
run:
\t@{python} -u service.py $(PORT)
test:
\t@echo 'one failed, as it says'; exit {status}
"""
# Its helper stands for Ray, and has the session directory in its command line. `left`: what it forgets at the end.
SERVICE = """\
import http.server, shutil, subprocess, sys, tempfile, threading, time
session = tempfile.mkdtemp(prefix="dsr-", dir="/tmp")
helper = [sys.executable, "-c", "import time; time.sleep(600)", "--dir=" + session]
ray = subprocess.Popen(helper, start_new_session=True)
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
try:
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ok)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("session", session)
    print("{options}")
    print("serving; Ctrl-C stops")
    time.sleep(600)
except KeyboardInterrupt:
    if "{left}" != "process":
        ray.kill(); ray.wait()
    if "{left}" != "directory":
        shutil.rmtree(session)
    print("stopped" if "{left}" != "word" else "bye")
finally:
    if "{left}" == "crash":
        ray.kill(); shutil.rmtree(session)
"""
GOOD = "  A  41.2%  It grows.  ← answer  (true)\\n  B  58.8%  It shrinks."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies and session directories are made in a folder of the test, so that what is left is seen."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(fresh, "GONE_SECONDS", 1.0)


def _repository(folder: Path, left: str = "nothing", options: str = GOOD, status: int = 0) -> Path:
    source = folder / "source"
    source.mkdir()
    (source / "Makefile").write_text(MAKEFILE.format(python=sys.executable, status=status))
    (source / "service.py").write_text(SERVICE.format(left=left, options=options), encoding="utf-8")
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=source, check=True, capture_output=True)
    (source / "Makefile").write_text("run:\n\t@exit 7\n")  # what is not committed is not proved
    return source


def test_a_copy_answers_stops_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fresh.copy(_repository(tmp_path)) as folder:
        fresh.run(folder)
        fresh.test(folder)
    said = capsys.readouterr().out
    assert "not committed stays out: 1 files" in said
    assert "    serving; Ctrl-C stops" in said
    assert "`make run` answered and left nothing" in said
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("left", "options", "why"),
    [
        ("process", GOOD, r"left .* after Ctrl-C: process \d+ "),
        ("directory", GOOD, r"left .* after Ctrl-C: directory .*/dsr-"),
        ("word", GOOD, "without saying that it stopped"),
        ("nothing", GOOD.replace("58.8", "88.8"), r"2 options that add up to 130\.0 %"),
        ("nothing", GOOD.replace("←", "-"), "0 of them chosen"),
        ("nothing", "Internal Server Error", "no answer: 0 options(?s:.*)Internal Server Error"),
        ("crash", '" + nobody + "', "ended with status 2 before it answered(?s:.*)NameError"),
    ],
    ids=["a process", "a directory", "no word", "wrong sum", "nothing chosen", "no options", "a crash"],
)
def test_a_broken_promise_is_named_and_cleaned_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str, options: str, why: str
) -> None:
    before = set(descendants())
    with pytest.raises(fresh.Failed, match=why), fresh.copy(_repository(tmp_path, left, options)) as folder:
        fresh.run(folder)
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("fresh-")]
    assert not fresh.working_in(tmp_path)
    [session] = re.findall(r"session (/tmp/dsr-\w+)", capsys.readouterr().out)
    assert not Path(session).exists()
    assert set(descendants()) <= before | {os.getpid()}


def test_a_failing_suite_is_a_failure_that_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(fresh.Failed, match="`make test` ended with status 2"),
        fresh.copy(_repository(tmp_path, status=1)) as folder,
    ):
        fresh.test(folder)
    assert "one failed, as it says" in capfd.readouterr().out


def test_settings_of_pip_stay_and_what_points_elsewhere_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "DSR_URL", "GIT_DIR"):
        monkeypatch.setenv(name, "there")
    kept = fresh.environment(PORT="5")
    assert kept["PIP_INDEX_URL"] == "there"
    assert kept["PORT"] == "5"
    assert not kept.keys() & {"VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "DSR_URL", "GIT_DIR"}


def test_an_export_without_a_repository_is_copied_without_what_was_made(tmp_path: Path) -> None:
    source = tmp_path / "export"
    for name in ("tests/evidence/list.toml", "evidence/report.md", ".venv/bin/python", "serve/__pycache__/x.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    with fresh.copy(source) as folder:
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
            "tests/evidence/list.toml"
        ]
    assert not folder.exists()
