"""Where the service is and how to talk to it: arguments first, then the environment, then defaults."""

from __future__ import annotations

import math
import os
import platform
import ssl
import urllib.request
from dataclasses import dataclass, field

import httpx

from ._retry import Retries
from ._version import __version__

__all__ = ["DEFAULT_TIMEOUT", "DEFAULT_URL", "Settings", "Timeout", "timeout_of"]

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "DSR_URL", "DSR_API_KEY"
USER_AGENT = f"dsr-client/{__version__} python/{platform.python_version()} httpx/{httpx.__version__}"

Timeout = float | httpx.Timeout
# Seconds without progress, by phase. `read` is longer than the 300 s that the service gives itself: its own error says
# more than ours. `write` is for one piece of a body, not for the whole of it.
DEFAULT_TIMEOUT = httpx.Timeout(connect=5.0, read=310.0, write=60.0, pool=60.0)


@dataclass(frozen=True)
class Settings:
    url: str
    timeout: httpx.Timeout
    retries: Retries
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def resolve(cls, url: str | None, api_key: str | None, timeout: Timeout | None, retries: int | Retries) -> Settings:
        """ValueError for a URL that is none, a key that no header can hold, or a timeout that is not > 0."""
        return cls(
            url=_url(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL),
            timeout=DEFAULT_TIMEOUT if timeout is None else timeout_of(timeout),
            retries=Retries(count=retries) if isinstance(retries, int) else retries,
            api_key=_key(api_key if api_key is not None else os.environ.get(KEY_VARIABLE)),
        )

    def headers(self) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {})

    def tls(self) -> ssl.SSLContext | bool:
        """httpx's own for https. For http an empty context, which trusts nobody: reading the certificates takes longer
        than an answer from this machine."""
        return httpx.URL(self.url).scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def proxy(self) -> str | None:
        """The proxy that the environment names for this URL. httpx looks for one only without a transport of ours."""
        url = httpx.URL(self.url)
        if urllib.request.proxy_bypass(url.host):
            return None
        proxies = urllib.request.getproxies()
        return proxies.get(url.scheme) or proxies.get("all")


def timeout_of(timeout: Timeout) -> httpx.Timeout:
    """A number is the longest silence while waiting for an answer; no other phase waits longer than it."""
    if isinstance(timeout, httpx.Timeout):
        return timeout
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout is {timeout} s; more than 0, and finite")
    longest = DEFAULT_TIMEOUT.as_dict()
    return httpx.Timeout(**{phase: min(timeout, longest[phase] or timeout) for phase in longest} | {"read": timeout})


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"url: {text!r} is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"url: {text!r} does not start with http:// or https:// and a host")
    return text.rstrip("/")


def _key(key: str | None) -> str | None:
    if not key:
        return None
    key = key.strip()
    if not (key.isascii() and key.isprintable()):  # the key itself is not repeated: the message may be logged
        raise ValueError("api_key has characters that no header can hold")
    return key
