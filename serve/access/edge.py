"""ASGI middleware: who calls is known, and allowed to, before a byte of the body is read.

With a key file every route but `OPEN_PATHS` needs a key: `Authorization: Bearer KEY`, or, for a browser, the key as the
password of `Basic` credentials under any user name. Without one the service answers to its own machine alone, unless
`access.open` says that everybody who reaches it may use it.

A browser sends `Basic` credentials, and reaches services on its own machine, also for a page of somebody else. So what
is not authenticated by `Bearer` must not come from another site, and must be addressed to this machine by its own name.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access.keyring import Caller, Keyring
from serve.access.quota import Quotas
from serve.errors import Forbidden, Unauthorized
from serve.settings import Access as AccessSettings

OPEN_PATHS = frozenset({"/livez", "/readyz"})  # Kubernetes asks them, and has no key
SAME_SITE = frozenset({"same-origin", "none", ""})
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",  # what a caller asked and was told is for nobody's cache
}


class Edge:
    """`scope["state"]["caller"]` is the `Caller` of every request that passes. Every response has `HEADERS`, but for
    those that a route has set itself."""

    def __init__(self, app: ASGIApp, door: Door, quotas: Quotas) -> None:
        self.app = app
        self._door = door
        self._quotas = quotas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, sending)
            return
        caller = self._door.caller(scope, Headers(scope=scope))
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        with self._quotas.request(caller) as bring:

            async def receiving() -> Message:
                message = await receive()
                bring(len(message.get("body", b"")))
                return message

            await self.app(scope, receiving, sending)


def caller_of(request: Request) -> Caller:
    """Whom the edge has found to have sent it."""
    caller: Caller = request.state.caller
    return caller


class Door:
    """Tells who stands before it, by what the settings say of keys."""

    def __init__(self, settings: AccessSettings) -> None:
        """BadKeyFile when there is a key file that cannot be used."""
        self._keyring = Keyring(settings.keys_file, settings.limits) if settings.keys_file is not None else None
        self._everybody = Caller(None, settings.limits)
        self._open = settings.open
        self._origins = frozenset(settings.origins)

    def caller(self, scope: Scope, headers: Headers) -> Caller:
        """
        Raises:
            Unauthorized: no key, or none that is known.
            Forbidden: a page of another site asks in a visitor's name.
        """
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" and not self._is_own_site(headers):
            raise Forbidden("a page of another site may not use this service in its visitor's name", field="origin")
        if self._keyring is None:
            self._refuse_strangers(scope, headers)
            return self._everybody
        key = _key(scheme.lower(), credentials.strip())
        if key is None:
            raise Unauthorized("an API key is needed: Authorization: Bearer KEY", field="authorization")
        caller = self._keyring.identify(key)
        if caller is None:
            raise Unauthorized("this API key is not known, or no longer", field="authorization")
        return caller

    def _is_own_site(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin in self._origins:
            return True
        if headers.get("sec-fetch-site", "") not in SAME_SITE:
            # A link or an address typed elsewhere may open the page, which does nothing by itself.
            return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return origin is None or urlsplit(origin).netloc == headers.get("host", "")

    def _refuse_strangers(self, scope: Scope, headers: Headers) -> None:
        if self._open:
            return
        peer = scope.get("client")
        if peer is None or not _is_loopback(peer[0]):
            raise Unauthorized(
                "this service has no API keys, and answers to its own machine alone: set ingress.access.keys_file, or "
                "ingress.access.open where everybody who can reach it may use it",
                field="authorization",
            )
        # Another site's name may be made to point at this machine ("DNS rebinding"); then its pages are of our origin.
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if host != "localhost" and not host.endswith(".localhost") and not _is_loopback(host):
            raise Forbidden("without API keys this service goes by the names of its own machine alone", field="host")


def _key(scheme: str, credentials: str) -> str | None:
    if scheme == "bearer":
        return credentials or None
    if scheme != "basic":
        return None
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
