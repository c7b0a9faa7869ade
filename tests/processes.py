"""The processes that a test started, by their ancestry: never those of another program on the machine."""

from __future__ import annotations

import os
from pathlib import Path


def descendants(root: int | None = None) -> dict[int, str]:
    """Command line by process id of every process below `root` (default: this one), itself included."""
    root = os.getpid() if root is None else root
    parents = {int(entry.name): _parent(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: _read(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in found}


def replicas(stage: str) -> set[int]:
    """Replicas of a stage below this process: Ray titles them so."""
    return {pid for pid, command in descendants().items() if f"ray::ServeReplica:dsr:{stage}" in command}


def alive(pid: int) -> bool:
    """False for a process that ended, also when its parent has not yet asked how."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def _parent(pid: str) -> int:
    stat = _read(f"/proc/{pid}/stat")
    return int(stat.rpartition(")")[2].split()[1]) if stat else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # the process ended meanwhile
        return ""
