"""The system calls that a decoder may make, as a filter in the kernel (seccomp-BPF): memory, threads, time, and what it
does with descriptors that it has. Everything else - opening, sockets, processes, signals to others - is refused.

`man 2 seccomp`; offsets are those of `struct seccomp_data`. Little-endian machines only, which both are.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# Number on x86_64 and on aarch64. What a decoder needs once it has its descriptors and all modules are imported.
ALLOWED = {
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "write": (1, 64),  # the answer
    "close": (3, 57),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# Allowed only with harmless arguments, which `program` looks at.
CLONE, CLONE3 = (56, 220), (435, 435)
MMAP, MPROTECT = (9, 222), (10, 226)
PRCTL, TGKILL = (157, 167), (234, 131)
# For a child that gets a further job, with descriptors.
RECVMSG, FCNTL, PRLIMIT = (47, 212), (72, 25), (302, 261)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # AUDIT_ARCH_*

LOAD, EQUAL, AT_LEAST, MASK, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
NUMBER, MACHINE, ARGUMENTS = 0, 4, 16
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
REFUSED, ABSENT = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
X32 = 0x40000000  # a second table of calls on x86_64, which the numbers above do not cover

THREAD = 0x00010100  # CLONE_VM | CLONE_THREAD
NAMESPACES = 0x7E020000
PROT_EXEC = 4
SET_NAME = 15
DUPFD_CLOEXEC = 1030
PR_SET_SECCOMP, MODE_FILTER = 22, 2


class Refused(OSError):
    """The kernel takes no filter, or the machine is one whose calls are not known here."""


def program(machine: str, pid: int, again: bool) -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, operand), for the process `pid` on `machine`. `again`: what a
    further job needs is allowed, too: to get descriptors, to map one, and to set its own limits (never above the hard
    ones).

    KeyError when the machine is none of MACHINES.
    """
    column, audit = MACHINES[machine]

    def number(call: tuple[int, int]) -> int:
        return call[column]

    def only_if(call: tuple[int, int], argument: int, mask: int, wanted: int) -> list[tuple[int, int, int, int]]:
        """Decides about one call by the lower 32 bits of an argument."""
        return [
            (EQUAL, 0, 5, number(call)),
            (LOAD, 0, 0, ARGUMENTS + 8 * argument),
            (MASK, 0, 0, mask),
            (EQUAL, 0, 1, wanted),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, REFUSED),
        ]

    further = [
        (EQUAL, 0, 1, number(RECVMSG)),
        (RETURN, 0, 0, ALLOW),
        *only_if(FCNTL, 1, 0xFFFFFFFF, DUPFD_CLOEXEC),
        *only_if(PRLIMIT, 0, 0xFFFFFFFF, 0),
    ]
    return [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        *([(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)] if machine == "x86_64" else []),
        *(step for call in ALLOWED.values() for step in ((EQUAL, 0, 1, number(call)), (RETURN, 0, 0, ALLOW))),
        *only_if(MMAP, 2, PROT_EXEC, 0),
        *only_if(MPROTECT, 2, PROT_EXEC, 0),
        *only_if(CLONE, 0, THREAD | NAMESPACES, THREAD),
        *only_if(PRCTL, 0, 0xFFFFFFFF, SET_NAME),  # FFmpeg names its threads
        *only_if(TGKILL, 0, 0xFFFFFFFF, pid),  # abort()
        *(further if again else []),
        # Its flags lie in memory, where a filter cannot look; the C library then takes clone.
        (EQUAL, 0, 1, number(CLONE3)),
        (RETURN, 0, 0, ABSENT),
        (RETURN, 0, 0, REFUSED),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install(pid: int, again: bool) -> None:
    """From here on, for this thread and those that it starts, and for good. Needs PR_SET_NO_NEW_PRIVS. Refused."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise Refused(errno.ENOSYS, f"the system calls of {machine} are not known")
    steps = program(machine, pid, again)
    packed = b"".join(struct.pack("<HBBI", *step) for step in steps)
    compiled = _Program(len(steps), packed)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(compiled), 0, 0) != 0:
        raise Refused(ctypes.get_errno(), "the kernel takes no filter of system calls")
