"""Processes that make scenes have one thread each, and do not outlive the run that they make them for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.data.processes import ONE_THREAD, process_pool

PARENT = """
import os, time
from training.data.processes import process_pool

pool = process_pool(2)
running = [pool.submit(os.getpid), pool.submit(time.sleep, 600), pool.submit(time.sleep, 600)]
running[0].result()
print(*pool._processes, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_they_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        made = [int(number) for number in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert made
    deadline = time.monotonic() + 20
    while (alive := [number for number in made if _runs(number)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_each_has_one_thread_and_this_process_keeps_its_own() -> None:
    before = dict(os.environ)
    with process_pool(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert {name: pool.submit(os.getenv, name).result() for name in ONE_THREAD} == ONE_THREAD
    assert dict(os.environ) == before
