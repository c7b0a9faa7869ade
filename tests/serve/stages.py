"""Stages that misbehave on demand. Apart from the tests, so that their replicas import neither torch nor pytest."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from serve.cache import Cached
from serve.calls import call


def note(path: str, what: str) -> None:
    with open(path, "a") as file:
        file.write(f"{what}\n")


def notes(path: str) -> list[str]:
    return Path(path).read_text().split() if os.path.exists(path) else []


class Stage:
    """Does what it is asked to do, well or badly, and notes each time in a file."""

    async def add(self, a: int, b: int = 0) -> int:
        return a + b

    async def echo(self, data: bytes, times: int) -> bytes:
        return data * times

    async def die(self, path: str, times: int) -> str:
        note(path, "called")
        if len(notes(path)) <= times:
            os._exit(1)
        return "alive"

    async def fail(self, path: str, error: Exception) -> None:
        note(path, "called")
        raise error

    async def cancel_itself(self, path: str) -> None:
        note(path, "called")
        raise asyncio.CancelledError

    async def work(self, path: str, seconds: float) -> str:
        note(path, "started")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note(path, "cancelled")
            raise
        note(path, "finished")
        return "done"


class Place:
    """Tells where a call went (its process), and how many the replica had by then, itself included."""

    def __init__(self) -> None:
        self._now = 0

    async def hold(self, seconds: float = 0.0) -> tuple[int, int]:
        self._now += 1
        now = self._now
        try:
            await asyncio.sleep(seconds)
        finally:
            self._now -= 1
        return os.getpid(), now


class Group:
    """Makes several calls on behalf of one request."""

    def __init__(self, place: Any) -> None:
        self._place = place

    async def hold(self, clips: list[str], seconds: float) -> list[tuple[int, int]]:
        return await asyncio.gather(*(call(self._place.hold, seconds, clip=clip) for clip in clips))


class Front:
    """A stage that asks another, with and without a cache in between."""

    def __init__(self, stage: Any, other: Any) -> None:
        """`other` is asked for nothing: it only belongs to the same application."""
        self._stage = stage
        self._cached: Cached[str, str] = Cached(100, len)

    async def passes(self, name: str, *args: Any) -> Any:
        return await call(getattr(self._stage, name), *args)

    async def passes_so(self, by_value: bool, name: str, *args: Any) -> Any:
        return await call(getattr(self._stage, name), *args, by_value=by_value)

    async def passes_without_call(self, name: str, *args: Any) -> Any:
        return await getattr(self._stage, name).remote(*args)

    async def cached(self, path: str, seconds: float) -> tuple[str, str]:
        return await self._cached.get(path, lambda: call(self._stage.work, path, seconds))

    async def takes(self, value: Any) -> Any:
        return value
