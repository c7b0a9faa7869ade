"""Retries as a transport: what is worth another attempt gets one before anybody above hears of it.

Every call of this service may be repeated without harm: an answer is computed from its request alone, and an upload is
named after its bytes. What is repeated: a connection that could not be made, or broke before an answer began; 429, 503.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

from ._after import retry_after

__all__ = ["AsyncRetryTransport", "Retries", "RetryTransport", "once_only"]

_LATER = frozenset({429, 503})
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_KEY = "dsr_retry"


@dataclass(frozen=True)
class Retries:
    """How often a request is sent again, and when. Seconds throughout."""

    count: int = 2
    first_pause: float = 0.5  # doubled for every further one
    longest_pause: float = 8.0
    longest_retry_after: float = 30.0  # a service that asks for more gets no more

    def __post_init__(self) -> None:
        for name in ("count", "first_pause", "longest_pause", "longest_retry_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"retries: {name} is {getattr(self, name)}; at least 0")

    def pause(self, done: int, headers: Mapping[str, str] | None = None) -> float:
        """Seconds to wait after `done` retries: what the service asked for, else a random part of a growing span.

        The random part keeps clients that were refused together from coming back together.
        """
        asked = retry_after(headers or {})
        if asked is not None:
            return min(asked, self.longest_retry_after)
        span = min(self.longest_pause, self.first_pause * 2 ** min(done, 30))
        return float(span * random.uniform(0.5, 1))


class Repeatable(Protocol):
    @property
    def can_repeat(self) -> bool: ...


def once_only(body: Repeatable | None = None, never: bool = False) -> dict[str, object]:
    """The extensions of a request whose body may not allow a second sending, or that must `never` be sent twice."""
    return {_KEY: (body, never)}


def _may_repeat(request: httpx.Request) -> bool:
    body, never = request.extensions.get(_KEY, (None, False))
    return not never and (body is None or body.can_repeat)


class RetryTransport(httpx.BaseTransport):
    def __init__(self, transport: httpx.BaseTransport, retries: Retries) -> None:
        self._transport = transport
        self._retries = retries

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for done in range(self._retries.count):
            try:
                response = self._transport.handle_request(request)
            except _BROKEN:
                if not _may_repeat(request):
                    raise
                time.sleep(self._retries.pause(done))
                continue
            if response.status_code not in _LATER or not _may_repeat(request):
                return response
            response.close()
            time.sleep(self._retries.pause(done, response.headers))
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    def __init__(self, transport: httpx.AsyncBaseTransport, retries: Retries) -> None:
        self._transport = transport
        self._retries = retries

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for done in range(self._retries.count):
            try:
                response = await self._transport.handle_async_request(request)
            except _BROKEN:
                if not _may_repeat(request):
                    raise
                await asyncio.sleep(self._retries.pause(done))
                continue
            if response.status_code not in _LATER or not _may_repeat(request):
                return response
            await response.aclose()
            await asyncio.sleep(self._retries.pause(done, response.headers))
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()
