"""The events of a streamed answer: to iterate over, and to close early."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType

from ._errors import BrokenResponse
from ._models import Answer, Token

__all__ = ["AnswerStream", "AsyncAnswerStream", "Event"]

Event = Token | Answer
_EMPTY = "the stream is closed or was read before, and its answer was not kept"


class AnswerStream:
    """Tokens as they come, the answer last. The request is sent when the first event is asked for.

    Closing it (or leaving its `with`) drops the connection, and the service stops working on the answer.
    """

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def answer(self) -> Answer:
        """Reads on to the end."""
        for event in self:
            if isinstance(event, Answer):
                return event
        raise BrokenResponse(_EMPTY)

    def close(self) -> None:
        self._events.close()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncAnswerStream:
    """Tokens as they come, the answer last. The request is sent when the first event is asked for.

    Closing it (or leaving its `async with`) drops the connection, and the service stops working on the answer.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncAnswerStream:
        return self

    async def __anext__(self) -> Event:
        return await self._events.__anext__()

    async def answer(self) -> Answer:
        """Reads on to the end."""
        async for event in self:
            if isinstance(event, Answer):
                return event
        raise BrokenResponse(_EMPTY)

    async def close(self) -> None:
        await self._events.aclose()

    async def __aenter__(self) -> AsyncAnswerStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
