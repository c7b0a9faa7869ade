"""Children that were taken over: a "video" that starts with `DO ` says what its decoder does. Others are decoded.

What came of it is the message of a NotAVideo: the name of the error that the kernel gave, or a result.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from models.errors import NotAVideo
from serve.sandbox import child, wire
from serve.sandbox.wire import Job

ORDER = b"DO "
LIBC = ctypes.CDLL(None, use_errno=True)
VIDEO = 0  # its descriptor, set by `decode`


def warm_up() -> None:
    """Without torch, which takes seconds: frames of 112x84 are not resized."""
    child.rehearse(56, 56)


def decode(file: BinaryIO, job: Job, memory: mmap.mmap | None) -> bytes:
    if file.read(len(ORDER)) != ORDER:
        file.seek(0)
        return child.decode(file, job, memory)
    globals()["VIDEO"] = file.fileno()
    act, _, argument = file.read().partition(b" ")
    try:
        said = ACTS[act.decode()](argument.decode())
    except OSError as error:
        said = errno.errorcode[error.errno or 0]
    except MemoryError:
        return wire.failed("memory", "MemoryError")
    return said if isinstance(said, bytes) else wire.refused(NotAVideo(said))


def system(result: int) -> str:
    """What a call of the C library came to."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return f"allowed: {result}"


def done(call: Callable[..., None], *arguments: object) -> str:
    call(*arguments)
    return "done"


def spin(_: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass
    return "was not stopped"


def sleep(seconds: str) -> str:
    time.sleep(float(seconds))
    return "slept"


def allocate(size: str) -> str:
    return f"allocated {len(bytearray(int(size)))}"


def leap(address: str) -> str:
    return str(ctypes.string_at(int(address)))


def abort(_: str) -> str:
    return str(LIBC.abort())


def start_thread(_: str) -> str:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append("a thread ran"))
    thread.start()
    thread.join()
    return said[0]


def start_process(_: str) -> str:
    if os.fork() == 0:
        os._exit(0)
    return "forked"


def connect(_: str) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    return "has a socket"


def map_code(_: str) -> str:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    return "can run what it writes"


def grow_memory(_: str) -> str:
    """Of every descriptor: one of them is the memory of the frames."""
    for number in range(3, 16):
        if LIBC.ftruncate(number, 1 << 40) == 0:
            return "grew"
    return "cannot"


def raise_limit(name: str) -> str:
    try:
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError:  # what Python makes of EPERM here
        return "EPERM"
    return "raised"


def limits(_: str) -> str:
    names = ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
    return ",".join(str(resource.getrlimit(getattr(resource, name))[1]) for name in names)


def write_video(_: str) -> str:
    return f"wrote {os.write(VIDEO, b'changed')}"


def say(answer: str) -> bytes:
    return answer.encode()


def flood(size: str) -> bytes:
    return b"x" * int(size)


ACTS: dict[str, Callable[[str], str | bytes]] = {
    "spin": spin,
    "sleep": sleep,
    "allocate": allocate,
    "leap": leap,
    "abort": abort,
    "exit": lambda code: os._exit(int(code)),
    "thread": start_thread,
    "fork": start_process,
    "vfork": lambda _: system(LIBC.vfork()),
    "exec": lambda _: str(os.execv("/bin/true", ["true"])),
    "open": lambda path: f"opened {os.open(path, os.O_RDONLY)}",
    "make": lambda path: f"made {os.open(path, os.O_WRONLY | os.O_CREAT)}",
    "unlink": lambda path: done(os.unlink, path),
    "list": lambda path: str(os.listdir(path)),
    "socket": connect,
    "pipe": lambda _: str(os.pipe()),
    "memfd": lambda _: str(os.memfd_create("x")),
    "ptrace": lambda _: system(LIBC.ptrace(16, os.getppid(), 0, 0)),
    "peek": lambda _: system(LIBC.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)),
    "kill": lambda _: done(os.kill, os.getppid(), 0),
    "nice": lambda _: done(os.setpriority, os.PRIO_PROCESS, 0, -5),
    "code": map_code,
    "grow": grow_memory,
    "raise": raise_limit,
    "limits": limits,
    "write": write_video,
    "dumpable": lambda _: system(LIBC.prctl(4, 1, 0, 0, 0)),
    "environment": lambda _: json.dumps(sorted(os.environ)).replace('"', ""),
    "signal": lambda number: done(signal.raise_signal, int(number)),
    "pid": lambda _: str(os.getpid()),
    "say": say,
    "flood": flood,
}
