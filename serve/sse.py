"""Server-sent events (WHATWG HTML, section 9.2), with a comment now and then so that proxies keep the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse

KEEP_ALIVE_SECONDS = 15.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter: nginx would collect the events


@dataclass(frozen=True)
class Event:
    """`data` is JSON, which has no line breaks. Without a `name`, as OpenAI's API sends them, it is a `message`."""

    data: str
    name: str | None = None

    def encode(self) -> bytes:
        name = f"event: {self.name}\n" if self.name else ""
        return f"{name}data: {self.data}\n\n".encode()


class EventStream(StreamingResponse):
    """`events` is closed when the last one is sent, and when the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        super().__init__(_encoded(events), headers=HEADERS)


async def _encoded(events: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    coming: asyncio.Task[Any] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield b": keep-alive\n\n"
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield event.encode()
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
        await events.aclose()
