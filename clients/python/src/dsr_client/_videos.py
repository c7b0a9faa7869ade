"""`client.videos`: the videos that the service holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from . import _call
from ._call import Call
from ._errors import BrokenResponse
from ._json import Json, optional, text
from ._models import Video
from ._source import id_of

__all__ = ["AsyncVideos", "Videos"]


class Videos:
    def __init__(self, send: Callable[[Call], Json], forget: Callable[[str], None]) -> None:
        self._send = send
        self._forget = forget

    def list(self, *, limit: int | None = None) -> Iterator[Video]:
        """Every video, page after page as you go on; `limit`: videos in a page."""
        after: str | None = None
        while True:
            videos, following = _read_page(self._send(_call.page(limit, after)), after)
            yield from videos
            if following is None:
                return
            after = following

    def get(self, video: Video | str) -> Video:
        """UnknownVideo when the service does not hold it."""
        return Video.of(self._send(_call.one_video("GET", id_of(video))))

    def delete(self, video: Video | str) -> None:
        """UnknownVideo when the service does not hold it."""
        name = id_of(video)
        self._send(_call.one_video("DELETE", name))
        self._forget(name)


class AsyncVideos:
    def __init__(self, send: Callable[[Call], Awaitable[Json]], forget: Callable[[str], None]) -> None:
        self._send = send
        self._forget = forget

    async def list(self, *, limit: int | None = None) -> AsyncIterator[Video]:
        """Every video, page after page as you go on; `limit`: videos in a page."""
        after: str | None = None
        while True:
            videos, following = _read_page(await self._send(_call.page(limit, after)), after)
            for video in videos:
                yield video
            if following is None:
                return
            after = following

    async def get(self, video: Video | str) -> Video:
        """UnknownVideo when the service does not hold it."""
        return Video.of(await self._send(_call.one_video("GET", id_of(video))))

    async def delete(self, video: Video | str) -> None:
        """UnknownVideo when the service does not hold it."""
        name = id_of(video)
        await self._send(_call.one_video("DELETE", name))
        self._forget(name)


def _read_page(raw: Json, after: str | None) -> tuple[list[Video], str | None]:
    """The videos of a page, and where the next one begins."""
    videos, following = raw.get("videos"), optional(text, raw, "next")
    if not isinstance(videos, list) or not all(isinstance(video, dict) for video in videos):
        raise BrokenResponse("the service's answer: videos: expected a list of objects", field="videos")
    if following is not None and following == after:
        raise BrokenResponse(f"the service's answer: next: the page after {after!r} is itself", field="next")
    return [Video.of(video) for video in videos], following
