"""The events of a streamed answer: to iterate over, and to close early."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType

from ._errors import BrokenResponse
from ._models import Answer, Token

__all__ = ["AnswerStream", "AsyncAnswerStream", "Event", "Heard"]

Event = Token | Answer
_EMPTY = "the stream is closed or was read before, and its answer was not kept"


class Heard:
    """How much of a stream's text the caller has. What comes once more after the connection broke is left out.

    The service gives the same text for the same question: it is greedy, or it has a seed (`Question.repeatable`).
    """

    def __init__(self) -> None:
        self._characters = self._again = 0

    def __bool__(self) -> bool:
        return self._characters > 0

    def once_more(self) -> None:
        """From here on the stream comes from its start."""
        self._again = self._characters

    def new(self, event: Event) -> Event | None:
        """What of it the caller does not have yet."""
        if isinstance(event, Answer):
            return event
        text = event.text[self._again :]
        self._again = max(0, self._again - len(event.text))
        self._characters += len(text)
        return Token(text) if text else None


class AnswerStream:
    """Tokens as they come, the answer last. The request is sent when the first event is asked for, and again when the
    connection breaks in the middle: then the text goes on where it was.

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
    """Tokens as they come, the answer last. The request is sent when the first event is asked for, and again when the
    connection breaks in the middle: then the text goes on where it was.

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
