"""The process that children are forked from: it has imported all that they need, and runs in one thread.

It obeys one socket: `START` with the child's end of a channel is answered with a process id (or -errno), `END` with an
id kills that child, waits for it and answers how it ended, as `os.waitstatus_to_exitcode` says it. When the socket
closes it ends its children and itself. It reads nothing that a child says.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys

MESSAGE = struct.Struct("<cq")
START, END = b"s", b"e"
FILTERED, UNFILTERED = 0, 3  # exit codes of the trial


def main(control_fd: int, parent: int, entry: str) -> None:
    """`parent`: process id of who started it. `entry`: module whose `decode` and `warm_up` children use."""
    from serve.sandbox import jail

    jail.end_with_parent(parent)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # where /proc may be written to
        score.write("1000")  # short of memory, the kernel takes a decoder before it takes what waits for it
    jail.seal_off()
    control = socket.socket(fileno=control_fd)
    module = importlib.import_module(entry)
    _prepare(module)
    control.send(json.dumps({"seccomp": _trial()}).encode())
    jail.keep_only([control.fileno()])
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE.size, 1)
        if not message:
            break
        kind, pid = MESSAGE.unpack(message)
        if kind == START:
            pid = _fork(control, descriptors[0], module.decode)
            if pid > 0:
                children.add(pid)
            os.close(descriptors[0])
            control.send(MESSAGE.pack(START, pid))
        else:
            # Not yet waited for, so that the number is still that of the child.
            children.remove(pid)
            os.kill(pid, signal.SIGKILL)
            control.send(MESSAGE.pack(END, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _prepare(module: object) -> None:
    module.warm_up()  # type: ignore[attr-defined]
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"{threads} threads run after the imports; a process with threads cannot be forked safely")
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page


def _trial() -> bool:
    """Whether a child gets its filter of system calls. RuntimeError when another layer does not hold."""
    from serve.sandbox import jail

    zygote, pid = os.getpid(), os.fork()
    if pid == 0:
        code = 1
        try:
            jail.become_nobody()
            jail.end_with_parent(zygote)
            jail.seal_off()
            filtered = jail.confine(1 << 30, 10, 1)
            try:
                os.open("/", os.O_RDONLY)
            except OSError:
                code = FILTERED if filtered else UNFILTERED
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (FILTERED, UNFILTERED):
        raise RuntimeError(f"a child cannot be confined (exit code {code})")
    return code == FILTERED


def _fork(control: socket.socket, channel: int, decode: object) -> int:
    """The child's process id, or -errno."""
    from serve.sandbox import child

    zygote = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if pid == 0:
        code = 1
        try:
            control.close()
            child.work(socket.socket(fileno=channel), zygote, decode)  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)
    return pid


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
