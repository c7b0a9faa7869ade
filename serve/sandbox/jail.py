"""What confines a process, apart from the filter of system calls: who it is, whom it outlives, how much it may take.

Each layer holds without the others. Python's own `resource` and `os` do most of it; `prctl` needs ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
from collections.abc import Iterable

from serve.sandbox import seccomp

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534
DESCRIPTORS = 16  # three of standard, the channel, the video, the memory twice, each once more while they change
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int) -> None:
    """The process ends when `parent` does, also when that is killed. Exits when it is gone already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def keep_only(descriptors: Iterable[int]) -> None:
    """Closes every other descriptor, those of standard input, output and error excepted, which become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    kept = {0, 1, 2, *descriptors}
    # Those that there are: closing all that there could be takes minutes where containers may have a billion.
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that listed the folder is closed already
                os.close(descriptor)


def become_nobody() -> None:
    """Root no more, where the process is root. A user namespace that has no such user refuses; root is none there."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            return


def seal_off() -> None:
    """No other process of the user may look into this one, no core is written, and no program gives more rights."""
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _limit(resource.RLIMIT_CORE, 0)


def confine(memory_bytes: int, cpu_seconds: int, videos: int) -> bool:
    """For good: `memory_bytes` on top of what is mapped now, `cpu_seconds` a video on top of what is used, no byte to a
    file, and only harmless system calls; False when the kernel takes no filter of them. After a single video no
    descriptor is needed any more, so that none can be had."""
    with open("/proc/self/statm", "rb") as statm:
        mapped = int(statm.read().split()[0]) * PAGE
    _limit(resource.RLIMIT_CPU, _used() + cpu_seconds * videos, _used() + cpu_seconds * videos + 1)
    _limit(resource.RLIMIT_AS, mapped + memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS if videos > 1 else 0)
    try:
        seccomp.install(os.getpid(), videos > 1)
    except seccomp.Refused:
        return False
    return True


def allow_cpu(seconds: int) -> None:
    """From now on, within what `confine` allowed in all. Beyond it SIGXCPU ends the process, which tells why."""
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (min(_used() + seconds, most), most))


def _used() -> int:
    """Seconds of processor time, rounded up: the limit is checked in whole seconds."""
    return math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Never above the hard limit that the process has, which only root may raise."""
    most = resource.getrlimit(kind)[1]
    bounds = (soft, soft if hard is None else hard)
    if most != resource.RLIM_INFINITY:
        bounds = (min(bounds[0], most), min(bounds[1], most))
    resource.setrlimit(kind, bounds)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
