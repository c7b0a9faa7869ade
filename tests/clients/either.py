"""The asynchronous client behind the synchronous one's surface, so that one test is a promise of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

from dsr_client import AsyncAnswerStream, AsyncClient, Client

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


class Blocking:
    """Every call runs on one event loop of its own until it is done."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._client = AsyncClient(*args, **settings)  # first: it may refuse its arguments
        self._loop = asyncio.new_event_loop()
        self.videos = _BlockingVideos(self._client, self._loop.run_until_complete)

    def __getattr__(self, name: str) -> Any:
        what = getattr(self._client, name)
        if not asyncio.iscoroutinefunction(what):
            return what
        return lambda *args, **named: self._loop.run_until_complete(what(*args, **named))

    def stream(self, *args: Any, **named: Any) -> _BlockingStream:
        return _BlockingStream(self._client.stream(*args, **named), self._loop.run_until_complete)

    def together(self, *calls: Callable[[Any], Any]) -> list[Any]:
        """Calls of the client at the same time."""

        async def gather() -> list[Any]:
            return await asyncio.gather(*(call(self._client) for call in calls))

        return self._loop.run_until_complete(gather())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class _BlockingStream:
    def __init__(self, stream: AsyncAnswerStream, run: Callable[..., Any]) -> None:
        self._stream = stream
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._run(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def answer(self) -> Any:
        return self._run(self._stream.answer())

    def close(self) -> None:
        self._run(self._stream.close())

    def __enter__(self) -> _BlockingStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _BlockingVideos:
    def __init__(self, client: AsyncClient, run: Callable[..., Any]) -> None:
        self._videos = client.videos
        self._run = run

    def list(self, **named: Any) -> Iterator[Any]:
        videos = self._videos.list(**named)
        while True:
            try:
                yield self._run(cast(Any, videos).__anext__())
            except StopAsyncIteration:
                return

    def get(self, video: Any) -> Any:
        return self._run(self._videos.get(video))

    def delete(self, video: Any) -> None:
        self._run(self._videos.delete(video))


def blocking(*args: Any, **settings: Any) -> Client:
    return cast(Client, Blocking(*args, **settings))
