"""`.ci/fresh [run] [test]`: what the README promises a newcomer, on a copy that has nothing but what is committed.

    run    clones into an empty directory; `make run` there makes the virtual environment, serves, asks; Ctrl-C ends it
    test   `make test` in the same copy

Both by default, in one copy, which is removed at the end, also when something fails. Standard library alone, as it
runs before anything is installed; Linux.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.processes import alive, descendants

ROOT = Path(__file__).parents[1]
ANSWER_SECONDS = 45 * 60.0  # the installation is in it
STOP_SECONDS = 60.0
GONE_SECONDS = 15.0  # until the kernel and Ray have tidied up after the last word
MADE = {".venv", ".dsr", "build", "dist", "evidence", "runs"}  # in the uppermost folder, as .gitignore has it
SAFE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}  # another's checkout
TAIL = 60  # lines of a log that a failure shows
SERVING = "Ctrl-C stops"
OPTION = re.compile(r"^ +([A-Z]) +(\d+\.\d)%  (.+)$", re.M)  # as serve.local prints one
SESSION = re.compile(r"/tmp/dsr-[a-z0-9_]{8}\b")  # Ray's directory of this service, in command lines
FOREIGN = re.compile(
    r"VIRTUAL_ENV|PYTHON(PATH|HOME)|MAKE(FLAGS|LEVEL|FILES)|MFLAGS|GIT_(DIR|WORK_TREE|INDEX_FILE)|DSR_.*|RAY_.*|PORT"
)


class Failed(RuntimeError):
    """Said as it is, with what the log says last."""

    def __init__(self, why: str, log: Path | None = None) -> None:
        text = log.read_text(errors="replace").splitlines() if log is not None and log.exists() else []
        tail = "".join(f"\n    {line}" for line in text[-TAIL:])
        super().__init__(why + (f"; the end of its log:{tail}" if tail else ""))


def say(text: str) -> None:
    print(f"fresh: {text}", flush=True)


@contextmanager
def copy(source: Path = ROOT) -> Iterator[Path]:
    """The committed state of `source` in a directory that was empty. Nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="fresh-"))
    try:
        if not (source / ".git").exists():  # an export: all of it is what is committed, but for what `make` makes
            say(f"copying {source}, which is no repository, into {directory}")
            shutil.copytree(source, directory / "copy", symlinks=True, ignore=partial(_made, source))
            yield directory / "copy"
            return
        commit = _git(source, "rev-parse", "HEAD")
        say(f"cloning {commit[:12]} into {directory}")
        if changed := _git(source, "status", "--porcelain").splitlines():
            say(f"what is not committed stays out: {len(changed)} files")
        _git(directory, "clone", "--quiet", str(source), "copy")
        _git(directory / "copy", "checkout", "--quiet", "--detach", commit)
        yield directory / "copy"
    finally:
        for pid, command in working_in(directory).items():
            say(f"ends {pid}, which was left: {command[:100]}")
            _kill(pid)
        shutil.rmtree(directory, ignore_errors=True)
        say(f"{directory} is removed")


def _made(source: Path, folder: str, names: list[str]) -> set[str]:
    """What is no part of the project in a folder below `source`."""
    caches = {name for name in names if name == "__pycache__" or name.endswith((".egg-info", ".so", "_cache"))}
    return caches | (MADE & set(names) if Path(folder) == source else set())


def run(folder: Path) -> None:
    """`make run` until it has answered, Ctrl-C, and a look at what it leaves."""
    port, log, start = free_port(), folder.parent / "run.log", time.monotonic()
    say(f"PORT={port} make run (installs first; minutes)")
    with log.open("wb") as out:
        make = subprocess.Popen(
            ["make", "run"], cwd=folder, env=environment(PORT=str(port)), stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_listening,
        )  # fmt: skip
    started: dict[int, str] = {}
    try:
        said = _until(SERVING, make, log, ANSWER_SECONDS)
        _judge(said, log)
        _alive(port, log)
        say(f"answered after {time.monotonic() - start:.0f} s; Ctrl-C to its process group")
        started = descendants(make.pid)
        os.killpg(make.pid, signal.SIGINT)
        try:
            make.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"`make run` still runs {STOP_SECONDS:.0f} s after Ctrl-C", log) from None
        if "stopped" not in log.read_text().removeprefix(said):
            raise Failed("`make run` ended without saying that it stopped", log)
        _nothing_is_left(started, folder, port, log)
    except BaseException:
        _end(make)
        _remove(started)
        raise
    say(f"`make run` answered and left nothing: {len(started)} processes, port {port}, Ray's directory")


def test(folder: Path) -> None:
    """`make test`, whose words are shown as they come."""
    start = time.monotonic()
    say("make test")
    make = subprocess.Popen(["make", "test"], cwd=folder, env=environment(), stdin=subprocess.DEVNULL)
    try:
        status = make.wait()
    finally:
        _end(make)
    if status != 0:
        raise Failed(f"`make test` ended with status {status} after {time.monotonic() - start:.0f} s; see above")
    say(f"`make test` passed in {(time.monotonic() - start) / 60:.0f} min")


PARTS: dict[str, Callable[[Path], None]] = {"run": run, "test": test}


def environment(**more: str) -> dict[str, str]:
    """This one without what points to another Python, make, repository or service; pip's settings stay."""
    return {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def working_in(folder: Path) -> dict[int, str]:
    """Command line by process id of what has its working directory in `folder`: also what nobody waits for."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or not Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                continue
            if alive(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _until(word: str, make: subprocess.Popen[bytes], log: Path, seconds: float) -> str:
    """What the log says up to `word`; its lines are shown as they come."""
    end, shown = time.monotonic() + seconds, 0
    while True:
        ended = make.poll() is not None
        said = log.read_text(errors="replace")
        lines = said.splitlines()[: said.count("\n")]
        for line in lines[shown:]:
            print(f"    {line}", flush=True)
        shown = len(lines)
        if word in said:
            return said
        if ended:
            raise Failed(f"`make run` ended with status {make.returncode} before it answered", log)
        if time.monotonic() > end:
            raise Failed(f"`make run` did not answer within {seconds / 60:.0f} min", log)
        time.sleep(0.2)


def _listening() -> None:
    """Ctrl-C ends it also where whoever started us, a shell in the background, ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _judge(said: str, log: Path) -> None:
    """Options with probabilities that add up to one, and one of them is the answer."""
    options = OPTION.findall(said)
    total = sum(float(percent) for _, percent, _ in options)
    chosen = sum("←" in text for _, _, text in options)
    if len(options) < 2 or abs(total - 100) > 0.1 * len(options) or chosen != 1:
        raise Failed(f"no answer: {len(options)} options that add up to {total:.1f} %, {chosen} of them chosen", log)


def _alive(port: int, log: Path) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=30) as response:
            response.read()
    except OSError as error:
        raise Failed(f"port {port} of the service that has just answered: {error}", log) from None


def _nothing_is_left(started: dict[int, str], folder: Path, port: int, log: Path) -> None:
    """Of processes (those that were below it, and those that work in its folder), its port, Ray's directories."""
    sessions, end = _sessions(started), time.monotonic() + GONE_SECONDS
    while left := _left(started, folder, port, sessions):
        if time.monotonic() > end:
            raise Failed(f"left {GONE_SECONDS:.0f} s after Ctrl-C: {'; '.join(left)}", log)
        time.sleep(0.5)


def _left(started: dict[int, str], folder: Path, port: int, sessions: set[Path]) -> list[str]:
    below = {pid: command for pid, command in started.items() if alive(pid)}
    left = [f"process {pid} ({command[:100]})" for pid, command in {**working_in(folder), **below}.items()]
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            left.append(f"port {port} is open")
    return left + [f"directory {session}" for session in sorted(sessions) if session.exists()]


def _sessions(processes: dict[int, str]) -> set[Path]:
    return {Path(found) for command in processes.values() for found in SESSION.findall(command)}


def _end(make: subprocess.Popen[bytes]) -> None:
    """What a failure or Ctrl-C has left running."""
    if make.poll() is None:
        _remove(descendants(make.pid))
    make.wait()


def _remove(processes: dict[int, str]) -> None:
    for pid in processes:
        if alive(pid):
            _kill(pid)
    for session in _sessions(processes):
        shutil.rmtree(session, ignore_errors=True)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=environment(**SAFE), capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it went by itself


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=".ci/fresh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="run|test", help="default: both")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy is removed
    try:
        with copy() as folder:
            for part in parts:
                PARTS[part](folder)
    except Failed as failure:
        print(f"fresh: FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
