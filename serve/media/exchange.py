"""One HTTPS request on a connection of its own, to an address that was checked before.

asyncio and h11, not a client library: those resolve the name again, follow redirects, decode bodies, pool connections
and read proxies from the environment, and each of these would have to be turned off and stay so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import h11

from serve.media.urls import Target

CONNECT_SECONDS = 5.0  # a second address gets its turn within the usual deadline
HEAD_BYTES = 32 * 1024  # of a response before its body, and of the head of a chunk
READ_BYTES = 16 * 1024  # as chunks of one byte, tens of ms of work: how long a hostile server holds up other requests
PIECE_BYTES = 1024 * 1024  # what is handed on at a time, however small the pieces that arrive
MAX_INFORMATIONAL = 8  # 1xx responses before the real one


def tls_context() -> ssl.SSLContext:
    """Certificates of the system's authorities, for the name that was asked for; TLS 1.2 or later."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@asynccontextmanager
async def connected(target: Target, address: str, tls: ssl.SSLContext) -> AsyncIterator[Exchange]:
    """
    Raises:
        OSError: no connection, or the certificate is not the host's.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            address,  # a literal, which is not looked up again
            target.port,
            limit=READ_BYTES,
            ssl=tls,
            server_hostname=target.host,
            ssl_shutdown_timeout=1.0,
        )
    try:
        yield Exchange(reader, writer)
    finally:
        writer.transport.abort()  # a polite farewell would wait for the other side


class Exchange:
    """`get`, then `body` once. Both raise OSError and h11.RemoteProtocolError for a server that breaks off or rules."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)

    async def get(self, target: Target) -> h11.Response:
        headers = [
            ("Host", target.authority),
            ("User-Agent", "dsr-serve"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=target.path, headers=headers)
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        for _ in range(MAX_INFORMATIONAL):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
        raise h11.RemoteProtocolError(f"no response among the first {MAX_INFORMATIONAL}")

    async def body(self) -> AsyncGenerator[bytes, None]:
        """In pieces of at most about PIECE_BYTES, none of them empty."""
        piece = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            piece += event.data
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        if not isinstance(event, h11.EndOfMessage):
            raise h11.RemoteProtocolError(f"{type(event).__name__} in the middle of a body")
        if piece:
            yield bytes(piece)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ_BYTES))
            await asyncio.sleep(0)  # reading what is there already does not give way to others
        return event  # type: ignore[return-value]


def header(response: h11.Response, name: bytes) -> str | None:
    """None where there is none; of several, all, as one list."""
    values = [value for key, value in response.headers if key == name]
    return b", ".join(values).decode("latin-1") if values else None
