"""The same children where the kernel takes no filter of system calls."""

from __future__ import annotations

import errno

from serve.sandbox import seccomp
from tests.serve.sandbox.misbehaving import decode, warm_up

__all__ = ["decode", "warm_up"]


def _refuse(pid: int, again: bool) -> None:
    raise seccomp.Refused(errno.EINVAL, "as in a container without seccomp")


seccomp.install = _refuse
