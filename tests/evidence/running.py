"""Runs the commands, one after the other, each in a folder of its own that keeps what it said.

A command that has ended well is not run again for the same state of the files, so that hours may be taken in parts;
what it said at an earlier commit stands, by that commit's name, until it is run again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tests.evidence.figures import ROOT, Command
from tests.evidence.reading import FIGURES, OUTPUT
from tests.fresh import free_port
from tests.processes import alive, descendants

ERRORS = "errors"  # the standard error
DONE = "done.json"
TIMES_LONGER, LEAST_MINUTES = 6, 10.0  # than expected, and at least, before a command is ended
STOP_SECONDS = 60.0
HEARTBEAT_SECONDS = 60.0
TAIL = 15  # lines
SHORT = 12  # digits of a commit

Load = tuple[float, float, float]


class Busy(RuntimeError):
    """Somebody else measures: two measurements at once are none."""


@dataclass(frozen=True)
class Run:
    """How a command ended. `load`: of the machine over 1, 5 and 15 minutes, at its start and at its end."""

    command: str
    status: int
    started: str
    seconds: float
    load_before: Load
    load_after: Load
    folder: str
    why: str = ""

    @property
    def failed(self) -> bool:
        return self.status != 0

    @property
    def state(self) -> str:
        """Of the files, as `place` names it: the commit, with a mark of what differed from it."""
        return Path(self.folder).parent.name

    @property
    def date(self) -> str:
        return self.started[:10]

    def tail(self) -> str:
        """What it said last."""
        said = (_text(Path(self.folder) / name) for name in (OUTPUT, ERRORS))
        return "\n".join("\n".join(text.splitlines()[-TAIL:]) for text in said if text.strip())


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Busy: another `tests.evidence` works in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another `make evidence` works in {folder}") from None
        yield


def state() -> tuple[str, bool]:
    """The commit, and whether the files differ from it."""
    return _git("rev-parse", "HEAD").strip(), bool(_git("status", "--porcelain").strip())


def place(folder: Path) -> Path:
    """Where the runs of this state of the files are kept: by the commit and by what differs from it."""
    commit, dirty = state()
    if not dirty:
        return folder / "runs" / commit[:SHORT]
    changes = _git("diff", "HEAD") + _git("status", "--porcelain")
    return folder / "runs" / f"{commit[:SHORT]}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}"


def finished(folder: Path, command: Command) -> Run | None:
    """The run of an earlier time that ended well."""
    path = folder / command.name / DONE
    found = Run(**json.loads(path.read_text())) if path.exists() else None
    return found if found is not None and not found.failed else None


def earlier(folder: Path, commands: Iterable[Command]) -> dict[str, Run]:
    """By command the newest run that ended well at a commit that this one was made from, or at this one."""
    places = [folder / "runs" / line[:SHORT] for line in _git("rev-list", "HEAD").split()]
    known = [place for place in places if place.is_dir()]
    found = [run for command in commands for place in known if (run := finished(place, command))]
    return {run.command: run for run in sorted(found, key=lambda run: run.started)}


def run(command: Command, folder: Path) -> Run:
    """Runs it now, and ends it when it takes far too long or this process is stopped."""
    own = folder / command.name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    before, started, start = os.getloadavg(), datetime.now().isoformat(timespec="seconds"), time.monotonic()
    with (own / OUTPUT).open("wb") as output, (own / ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            words(command, own), cwd=ROOT, env=os.environ | {"DSR_FIGURES": str(own / FIGURES)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
        )  # fmt: skip
    why, limit = "", max(LEAST_MINUTES, TIMES_LONGER * command.minutes)
    try:
        if not _waited(process, own, 60 * limit):
            why = f"it did not end within {limit:.0f} min"
    finally:
        _stop(process)
    seconds = time.monotonic() - start
    done = Run(command.name, process.returncode, started, round(seconds, 1), before, os.getloadavg(), str(own), why)
    (own / DONE).write_text(json.dumps(asdict(done)), encoding="utf-8")
    return done


def words(command: Command, folder: Path) -> list[str]:
    """The command line, by this interpreter."""
    given = [word.format(out=folder, port=free_port()) for word in shlex.split(command.run)]
    return [sys.executable, "-u", *given[1:]] if given[0] == "python" else given


def _waited(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> bool:
    """Until it has ended, saying every minute what it says. False: it runs for longer than `seconds`."""
    start = said = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - start > seconds:
            return False
        if time.monotonic() - said > HEARTBEAT_SECONDS:
            said = time.monotonic()
            print(f"    {(said - start) / 60:.0f} min: {_last_line(folder)}", flush=True)
        time.sleep(0.2)
    return True


def _last_line(folder: Path) -> str:
    newest = max((folder / OUTPUT, folder / ERRORS), key=lambda path: path.stat().st_mtime)
    lines = _text(newest).replace("\r", "\n").split("\n")
    return next((line.strip()[:110] for line in reversed(lines) if line.strip()), "nothing said yet")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, so that it tidies up; then all that is left of it."""
    if process.poll() is not None:
        return
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in below:
        if alive(pid):
            _kill(pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it went by itself


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
