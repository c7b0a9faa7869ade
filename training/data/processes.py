"""Processes that make scenes beside a run."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import torch

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # of numpy's linear algebra, read when it is loaded


def process_pool(count: int) -> ProcessPoolExecutor:
    """`count` processes, at least one, with one thread of torch and numpy each. They end when this process does, killed
    or not.

    They start anew: one that was forked off a process with a GPU must not touch it, and torch would.
    """
    pool = ProcessPoolExecutor(max(1, count), mp_context=get_context("spawn"), initializer=_started)
    before = dict(os.environ)
    os.environ.update(ONE_THREAD)
    try:
        pool.submit(os.getpid)  # the first task starts all of them, in the environment of this moment
    finally:
        os.environ.update(before)
        for name in ONE_THREAD.keys() - before.keys():
            del os.environ[name]
    return pool


def _started() -> None:
    torch.set_num_threads(1)
    # A pool's process waits for work at a pipe that it holds open itself, and so would outlive whoever was to send it.
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
