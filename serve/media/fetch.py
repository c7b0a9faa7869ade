"""From a URL that a client sent to a video in the store, or an error that tells no more than the client may know.

An error in the URL is said in words. Everything that went wrong behind it - no such name, an address that is not
public, a closed port, a wrong certificate - has one text, so that nobody can look around by asking: the log has the
reason, by host. The URL's path and query, which may hold a signature, stand in neither.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from ipaddress import ip_address

import h11

from serve.errors import Deadline, NotSupported, TooLarge, Unfetchable, UrlRefused
from serve.media.addresses import Resolve, Rule, is_public, resolve
from serve.media.exchange import Exchange, connected, header, tls_context
from serve.media.urls import Target
from serve.settings import MediaUrls
from serve.store import VideoStore

NO_VIDEO = "no video can be fetched from this URL: its host is unknown, out of reach, or does not answer as it should"
MAX_ADDRESSES = 4  # of one host that are tried
REDIRECTS = (301, 302, 303, 307, 308)

_log = logging.getLogger(__name__)


class Fetcher:
    """Fetches what the settings allow. `tls`, `lookup` and `may_connect` are other than the defaults in tests alone."""

    def __init__(
        self,
        settings: MediaUrls,
        store: VideoStore,
        *,
        tls: ssl.SSLContext | None = None,
        lookup: Resolve = resolve,
        may_connect: Rule = is_public,
    ) -> None:
        self._settings = settings
        self._store = store
        self._tls = tls or tls_context()
        self._lookup = lookup
        self._may_connect = may_connect
        self._places = asyncio.Semaphore(settings.at_once)

    async def keep(self, url: str, field: str) -> str:
        """The id of the video at `url`, which is stored by then. `field`: what errors call the URL.

        Raises:
            NotSupported: media URLs are off.
            UrlRefused: the URL is of another form than we take, or its host or port is not allowed.
            Unfetchable: there is no video behind it for us.
            TooLarge: the video has more bytes than allowed.
            Deadline: it took too long, waiting for a place and for the name's address included.
        """
        if not self._settings.enabled:
            message = "this service fetches no videos: send the file itself, or the id of an uploaded one"
            raise NotSupported(message, field=field)
        target = self._listed(Target.parse(url, field), field)
        seconds = self._settings.seconds
        try:
            async with asyncio.timeout(seconds) as clock, self._places, aclosing(self._video(target, field)) as pieces:
                return await self._store.put_chunks(pieces)
        except TimeoutError:
            if not clock.expired():  # the store's own
                raise
            _log.warning("media URL at %s: longer than %s s", target.host, seconds)
            raise Deadline(f"the video was not fetched within {seconds} s", field=field, limit=seconds) from None

    def _listed(self, target: Target, field: str) -> Target:
        target.refuse_unlisted(self._settings.hosts, self._settings.ports, field)
        return target

    async def _video(self, target: Target, field: str) -> AsyncGenerator[bytes, None]:
        """The bytes, after redirects: each is read, looked up in the list and resolved as the first URL was."""
        for left in range(self._settings.max_redirects, -1, -1):
            async with self._connected(target, field) as exchange:
                with _telling(target, field):
                    response = await exchange.get(target)
                if response.status_code not in REDIRECTS:
                    async with aclosing(self._body(target, exchange, response, field)) as body:
                        async for piece in body:
                            yield piece
                    return
            if not left:
                limit = self._settings.max_redirects
                raise Unfetchable(f"the URL redirects; {limit} redirects are followed", field=field, limit=limit)
            target = self._redirected(target, header(response, b"location"), field)

    def _redirected(self, target: Target, location: str | None, field: str) -> Target:
        """Where the server wanted us to go is not repeated: the client could read in it what it must not see."""
        try:
            return self._listed(target.redirected(location or "", field), field)
        except UrlRefused as error:
            _log.warning("media URL at %s: redirect refused: %s", target.host, error.message)
            raise Unfetchable("the URL redirects to where this service fetches no videos", field=field) from None

    async def _body(
        self, target: Target, exchange: Exchange, response: h11.Response, field: str
    ) -> AsyncGenerator[bytes, None]:
        if response.status_code != 200:
            message = f"the URL's server answers {response.status_code} in place of a video"
            raise Unfetchable(message, field=field, value=response.status_code)
        if (header(response, b"content-encoding") or "identity").strip().lower() != "identity":
            # Never asked for: decoded, a few bytes can become any number.
            raise Unfetchable("the URL's server sends the video compressed", field=field)
        length = header(response, b"content-length")
        size = 0
        self._bounded(int(length) if length else 0, field)
        async with aclosing(exchange.body()) as body:
            with _telling(target, field):
                async for piece in body:
                    size += len(piece)
                    self._bounded(size, field)
                    yield piece

    def _bounded(self, size: int, field: str) -> None:
        limit = self._settings.max_bytes
        if size > limit:
            message = f"the video has {size} bytes or more; at most {limit} are fetched"
            raise TooLarge(message, field=field, value=size, limit=limit)

    @asynccontextmanager
    async def _connected(self, target: Target, field: str) -> AsyncIterator[Exchange]:
        """A connection to one of the host's addresses, all of which must be allowed: one that is not says that the name
        is not what it seems."""
        async with AsyncExitStack() as stack:
            with _telling(target, field):
                addresses = [ip_address(one) for one in await self._lookup(target.host, target.port)]
                refused = [one for one in addresses if not self._may_connect(one)]
                if refused or not addresses:
                    raise OSError(f"it has no address, or a forbidden one: {', '.join(map(str, refused))}")
                exchange = await self._first(target, [str(one) for one in addresses], stack)
            yield exchange

    async def _first(self, target: Target, addresses: list[str], stack: AsyncExitStack) -> Exchange:
        *others, last = addresses[:MAX_ADDRESSES]
        for address in others:
            try:
                return await stack.enter_async_context(connected(target, address, self._tls))
            except OSError as error:
                _log.info("media URL at %s: %s: %r", target.host, address, error)
        return await stack.enter_async_context(connected(target, last, self._tls))


@contextmanager
def _telling(target: Target, field: str) -> Iterator[None]:
    """Whatever goes wrong with the other side, the client hears one text and the log the reason."""
    try:
        yield
    except (OSError, EOFError, ValueError, h11.RemoteProtocolError) as error:
        _log.warning("media URL at %s: %.300r", target.host, error)
        raise Unfetchable(NO_VIDEO, field=field) from None
