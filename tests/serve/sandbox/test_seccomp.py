"""The filter, run step by step as the kernel does, for both machines: only one of them is here to try it on."""

from __future__ import annotations

import errno

import pytest

from serve.sandbox import seccomp
from serve.sandbox.seccomp import ALLOW, ALLOWED, KILL, MACHINES, REFUSE, program

PID = 4242
PTHREAD = 0x3D0F00  # the flags of glibc's threads
FORK = 0x1200011


def verdict(machine: str, number: int, *arguments: int, again: bool = False, audit: int | None = None) -> int:
    """What the kernel does with a call."""
    words = {0: number, 4: MACHINES[machine][1] if audit is None else audit}
    words |= {16 + 8 * place: value & 0xFFFFFFFF for place, value in enumerate([*arguments, 0, 0, 0, 0][:6])}
    steps, at, register = program(machine, PID, again), 0, 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == seccomp.LOAD:
            register = words[operand]
        elif code == seccomp.MASK:
            register &= operand
        elif code == seccomp.RETURN:
            return operand
        else:
            holds = register == operand if code == seccomp.EQUAL else register >= operand
            at += yes if holds else no


REFUSED, ABSENT = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("again", [False, True])
def test_what_a_decoder_needs_is_allowed(machine: str, again: bool) -> None:
    column = MACHINES[machine][0]
    for name, numbers in ALLOWED.items():
        assert verdict(machine, numbers[column], again=again) == ALLOW, name
    assert verdict(machine, seccomp.MMAP[column], 0, 4096, 3, again=again) == ALLOW
    assert verdict(machine, seccomp.CLONE[column], PTHREAD, again=again) == ALLOW
    assert verdict(machine, seccomp.PRCTL[column], seccomp.SET_NAME, again=again) == ALLOW
    assert verdict(machine, seccomp.TGKILL[column], PID, again=again) == ALLOW
    assert verdict(machine, seccomp.RECVMSG[column], again=again) == (ALLOW if again else REFUSED)
    assert verdict(machine, seccomp.FCNTL[column], 5, 1030, again=again) == (ALLOW if again else REFUSED)
    assert verdict(machine, seccomp.PRLIMIT[column], 0, 0, again=again) == (ALLOW if again else REFUSED)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_it_could_do_harm_with_is_refused(machine: str) -> None:
    column = MACHINES[machine][0]
    for prot in (4, 5, 7):
        assert verdict(machine, seccomp.MMAP[column], 0, 4096, prot) == REFUSED
        assert verdict(machine, seccomp.MPROTECT[column], 0, 4096, prot) == REFUSED
    for flags in (FORK, 0x100, 0x10000, PTHREAD | 0x10000000, PTHREAD | 0x40000000):
        assert verdict(machine, seccomp.CLONE[column], flags) == REFUSED, hex(flags)
    assert verdict(machine, seccomp.CLONE3[column], 0) == ABSENT  # so that the C library takes clone
    assert verdict(machine, seccomp.PRCTL[column], 4, 1) == REFUSED
    assert verdict(machine, seccomp.TGKILL[column], PID + 1) == REFUSED
    assert verdict(machine, seccomp.FCNTL[column], 5, 4, again=True) == REFUSED  # F_SETFL
    assert verdict(machine, seccomp.PRLIMIT[column], 1, 0, again=True) == REFUSED  # of another process


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("again", [False, True])
def test_every_other_call_is_refused(machine: str, again: bool) -> None:
    column = MACHINES[machine][0]
    looked_at = (seccomp.MMAP, seccomp.MPROTECT, seccomp.CLONE, seccomp.PRCTL, seccomp.TGKILL, seccomp.CLONE3)
    further = (seccomp.RECVMSG, seccomp.FCNTL, seccomp.PRLIMIT)
    known = {numbers[column] for numbers in (*ALLOWED.values(), *looked_at, *further)}
    for number in set(range(600)) - known:
        assert verdict(machine, number, again=again) == REFUSED, number


def test_calls_of_another_machine_end_the_process() -> None:
    assert verdict("x86_64", 0, audit=MACHINES["aarch64"][1]) == KILL
    assert verdict("x86_64", 0, audit=0x40000003) == KILL  # 32 bits
    assert verdict("x86_64", seccomp.X32 | 0) == KILL


def test_an_unknown_machine_gets_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(seccomp.Refused, match="riscv64"):
        seccomp.install(PID, False)
