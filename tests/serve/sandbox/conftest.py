"""Pools whose children obey their videos, and a loop that outlives a test: a pool belongs to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pytest

from models.errors import NotAVideo
from models.video import Limits, Sampling
from serve.sandbox.pool import Pool
from serve.settings import MiB, Sandbox
from tests.clips import make_clip

T = TypeVar("T")

Run = Callable[[Coroutine[Any, Any, T]], T]
MISBEHAVING = "tests.serve.sandbox.misbehaving"
RESIZING = "tests.serve.sandbox.resizing"
UNFILTERED = "tests.serve.sandbox.unfiltered"
TIGHT = Sandbox(deadline_seconds=20, cpu_seconds=1, memory_bytes=256 * MiB)


class Orders:
    """Files that tell a child what to do."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def file(self, content: bytes) -> BinaryIO:
        path = self._directory / f"{abs(hash(content))}"
        path.write_bytes(content)
        return path.open("rb")

    async def give(self, pool: Pool, order: str) -> str:
        """What came of it, when the child lives to tell."""
        with self.file(b"DO " + order.encode()) as file, pytest.raises(NotAVideo) as said:
            await pool.read(file, Sampling(), Limits())
        return said.value.message


@pytest.fixture(scope="package")
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path)


@pytest.fixture(scope="package")
def pool() -> Iterator[Pool]:
    """Two children at a time, with tight bounds."""
    pool = Pool(TIGHT, 2, RESIZING)
    yield pool
    pool.close()


@pytest.fixture(scope="package")
def clip_bytes() -> bytes:
    return make_clip()
