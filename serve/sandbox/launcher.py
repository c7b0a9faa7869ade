"""Starts and ends children through a zygote, and starts that.

Its methods block, and belong to one thread, which must go on living: the kernel ends the zygote with the thread that
started it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import models
import serve
from serve.sandbox.zygote import END, MESSAGE, START

ENTRY = "serve.sandbox.child"
START_SECONDS = 120.0  # two on an idle machine, of importing; many processes may start at once on one of few cores
ANSWER_SECONDS = 30.0  # a fork takes milliseconds
# All that a zygote gets of the environment; the rest holds credentials.
KEPT = ("LD_LIBRARY_PATH",)
SET = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Larger pages: half as many to copy at a fork, and to give back at an end.
SET |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
BOOT = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); runpy.run_module({!r}, run_name='__main__')"


class SandboxError(RuntimeError):
    """Children cannot be started or confined: no video's fault."""


@dataclass
class Child:
    """A process that waits for a job at the other end of `channel`. `zygote`: process id of its parent.

    `memory`: descriptor of the `frame_bytes` that it shares with us, -1 before the first. `videos` that it got.
    """

    pid: int
    channel: socket.socket
    zygote: int
    memory: int = -1
    frame_bytes: int = 0
    videos: int = 0
    ended: bool = False

    def share(self, size: int) -> None:
        """Replaces its memory by `size` bytes that nobody can make more or fewer; the child does not have them yet."""
        memory = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, size)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        if self.memory >= 0:
            os.close(self.memory)
        self.memory, self.frame_bytes = memory, size

    def close(self) -> None:
        """Our ends. The child, if it lives, reads the end of its channel and exits."""
        self.channel.close()
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1


@dataclass
class _Zygote:
    process: subprocess.Popen[bytes]
    control: socket.socket
    filtered: bool


class Launcher:
    """Methods raise SandboxError when the zygote cannot do its work. A zygote that died is replaced, once a call."""

    def __init__(self, entry: str = ENTRY) -> None:
        self._entry = entry
        self._zygote: _Zygote | None = None
        self._closed = False

    @property
    def filtered(self) -> bool:
        """Whether children get a filter of system calls. Of the zygote that was started last."""
        return self._zygote is not None and self._zygote.filtered

    def begin(self) -> None:
        """Starts the zygote, which takes seconds."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        if self._zygote is None:
            self._zygote = _start(self._entry)

    def start(self) -> Child:
        """A new child, in milliseconds."""
        if not self._alive():
            self._drop()
        self.begin()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                zygote, pid = self._ask(START, 0, [theirs.fileno()])
            if pid < 0:
                raise SandboxError(f"no process can be started: {os.strerror(-pid)}")
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return Child(pid, ours, zygote)

    def end(self, child: Child) -> int | None:
        """Kills it, if it has not ended, and says how it ended: its exit code, or a signal as a negative number. None:
        it ended with its zygote, so that it is no child's fault, or this was asked before."""
        child.close()
        ended, child.ended = child.ended, True
        if ended or self._zygote is None or self._zygote.process.pid != child.zygote:
            return None
        try:
            return self._ask(END, child.pid)[1]
        except SandboxError:
            return None

    def close(self) -> None:
        """Ends the zygote and every child. For good."""
        self._closed = True
        self._drop()

    def _ask(self, kind: bytes, number: int, descriptors: list[int] | None = None) -> tuple[int, int]:
        """The zygote's process id and its answer. SandboxError when there is none; the zygote is given up then."""
        zygote = self._zygote
        if zygote is None:
            raise SandboxError("no zygote runs")
        try:
            socket.send_fds(zygote.control, [MESSAGE.pack(kind, number)], descriptors or [])
            answer = zygote.control.recv(MESSAGE.size)
            said, result = MESSAGE.unpack(answer) if answer else (b"", 0)
        except OSError as error:
            self._drop()
            raise SandboxError(f"the process that starts decoders does not answer: {error}") from None
        if said != kind:
            self._drop()
            raise SandboxError("the process that starts decoders ended")
        return zygote.process.pid, result

    def _alive(self) -> bool:
        return self._zygote is not None and self._zygote.process.poll() is None

    def _drop(self) -> None:
        if self._zygote is not None:
            zygote, self._zygote = self._zygote, None
            _stop(zygote)


def _start(entry: str) -> _Zygote:
    """SandboxError says what the zygote wrote before it died."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(START_SECONDS)
    command = [sys.executable, "-I", "-c", BOOT.format("serve.sandbox.zygote"), json.dumps(_paths())]
    command += [str(theirs.fileno()), str(os.getpid()), entry]
    environment = SET | {name: os.environ[name] for name in KEPT if name in os.environ}
    with theirs, open(os.memfd_create("errors"), "w+b") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its children
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"the process that starts decoders cannot be started: {error}") from None
        theirs.close()
        try:
            ready = ours.recv(MESSAGE.size + 1024)
        except OSError:
            ready = b""
        zygote = _Zygote(process, ours, bool(ready) and bool(json.loads(ready)["seccomp"]))
        if not ready:
            _stop(zygote)
            raise SandboxError(f"the process that starts decoders did not get ready: {_last(errors)}")
    ours.settimeout(ANSWER_SECONDS)
    return zygote


def _stop(zygote: _Zygote) -> None:
    zygote.control.close()  # it kills its children, waits for them and ends
    try:
        zygote.process.wait(ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        zygote.process.send_signal(signal.SIGKILL)
        zygote.process.wait()


def _paths() -> list[str]:
    """Where modules are found, as here: an editable install, a folder that Ray unpacked, `PYTHONPATH`. The working
    directory counts only as far as our own packages lie in it."""
    own = [str(Path(package.__path__[0]).resolve().parent) for package in (serve, models)]
    return list(dict.fromkeys([*own, *(path for path in sys.path if os.path.isabs(path))]))


def _last(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-2000:] or "it says nothing"
