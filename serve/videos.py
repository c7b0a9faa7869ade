"""Videos over HTTP: taking them in, telling what they are, forgetting them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, BinaryIO, Protocol

from fastapi import Path, Query, Request, Response
from starlette.datastructures import UploadFile

from models.errors import InputError
from models.video import VideoFacts
from serve.access.claims import Claims
from serve.access.keyring import Caller
from serve.errors import Malformed, UnknownVideo
from serve.keys import VIDEO_ID
from serve.schemas import Video, VideoInfo, VideoList
from serve.store import VideoStore, unknown

MAX_FORM_FIELDS = 64
MAX_PAGE = 100

VideoId = Annotated[str, Path(max_length=128, description="as `POST /v1/videos` returned it")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="videos on one page")]
After = Annotated[str | None, Query(pattern=f"^{VIDEO_ID.pattern}$", description="`next` of the page before")]


class VideoBackend(Protocol):
    """What these routes need of the stages."""

    async def probe(self, video: str) -> VideoFacts: ...

    async def flush(self, video: str | None = None) -> None:
        """Every stage forgets what it has made of one video, or of all."""
        ...


class Videos:
    """`keep`, `check` and `discarding` are for every route that takes a video in.

    With `claims` a caller knows of no video but those that it has sent itself.
    """

    def __init__(self, backend: VideoBackend, store: VideoStore, claims: Claims | None = None) -> None:
        self._backend = backend
        self._store = store
        self._claims = claims
        self._arriving = 0  # uploads that are being stored
        self._in_use: Counter[str] = Counter()  # videos whose requests are under way

    async def upload(self, request: Request) -> Video:
        """Stores a video and tells what it is. Posting the same bytes again gives the same id."""
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            file = form.get("video")
            if not isinstance(file, UploadFile):
                raise Malformed("the form has no file named video", field="video")
            video = await self.keep(file.file, request)
        async with self.discarding(video, request, InputError):
            return await self._video(video)

    async def list(self, request: Request, limit: Limit = 20, after: After = None) -> VideoList:
        """The videos that are held, by id, a page at a time."""
        ids = await asyncio.to_thread(self._ids, caller_of(request).name)
        ids = [video for video in ids if after is None or video > after]
        found = await asyncio.gather(*(self._if_held(video) for video in ids[:limit]))
        more = ids[limit - 1] if len(ids) > limit else None
        return VideoList(videos=[video for video in found if video is not None], next=more)

    async def get(self, request: Request, video: VideoId) -> Video:
        """What is known of one video."""
        await self.check(video, request)
        return await self._video(video)

    async def delete(self, request: Request, video: VideoId) -> Response:
        """Deletes a video, and what the stages remember of it; for another caller who has sent it, too, it stays."""
        await self.check(video, request)
        if await asyncio.to_thread(self._drop, caller_of(request).name, video):
            await self._backend.flush(video)
        return Response(status_code=204)

    async def keep(self, file: BinaryIO, request: Request) -> str:
        """The id of a video, which is stored by then and known to be the caller's."""
        self._arriving += 1
        try:
            return await asyncio.to_thread(self._keep, file, caller_of(request).name)
        finally:
            self._arriving -= 1

    async def claim(self, video: str, request: Request) -> None:
        """A video that the service has stored for the caller by itself is the caller's, too."""
        caller = caller_of(request).name
        if self._claims is not None and caller is not None:
            await asyncio.to_thread(self._claims.add, caller, video)

    async def check(self, video: str, request: Request) -> None:
        """
        Raises:
            UnknownVideo: the caller has not sent it. Whether another has, is not to be seen.
        """
        caller = caller_of(request).name
        if self._claims is None or caller is None:
            return
        if not await asyncio.to_thread(self._claims.has, caller, video):
            raise unknown(video)

    @asynccontextmanager
    async def discarding(self, video: str, request: Request, *errors: type[InputError]) -> AsyncIterator[None]:
        """What turns out to be no video that we answer about does not stay in the store.

        Another request may have sent the same bytes: the last one to find that out deletes them. While some upload is
        arriving, which may be the same, they stay until the store needs their room.
        """
        self._in_use[video] += 1
        try:
            yield
        except errors:
            if self._in_use[video] == 1 and not self._arriving:
                with suppress(UnknownVideo):  # a request to another replica was faster
                    await asyncio.to_thread(self._drop, caller_of(request).name, video)
            raise
        finally:
            self._in_use[video] -= 1
            if not self._in_use[video]:
                del self._in_use[video]

    def _keep(self, file: BinaryIO, caller: str | None) -> str:
        if self._claims is None or caller is None:
            return self._store.put(file)
        start = file.tell()
        while True:
            video = self._store.put(file)
            self._claims.add(caller, video)
            if self._store.exists(video):
                return video
            file.seek(start)  # somebody else has dropped the same video between the two steps

    def _drop(self, caller: str | None, video: str) -> bool:
        """Whether the video itself is gone now."""
        if self._claims is not None and caller is not None and not self._claims.drop(caller, video):
            return False
        self._store.delete(video)
        return True

    def _ids(self, caller: str | None) -> Sequence[str]:
        held = self._store.ids()
        return held if self._claims is None or caller is None else self._claims.of(caller, held)

    async def _video(self, video: str) -> Video:
        size = await asyncio.to_thread(self._store.size, video)
        facts = await self._backend.probe(video)
        return Video(**described(video, facts, facts.frames).model_dump(), bytes=size)

    async def _if_held(self, video: str) -> Video | None:
        try:
            return await self._video(video)
        except (UnknownVideo, InputError):  # deleted meanwhile; no video that anybody could ask about
            return None


def caller_of(request: Request) -> Caller:
    """Whom `serve.access.edge` found to have sent it."""
    caller: Caller = request.state.caller
    return caller


def described(video: str, facts: VideoFacts, frames: int) -> VideoInfo:
    return VideoInfo(
        id=video, duration=facts.duration, fps=facts.fps, width=facts.width, height=facts.height, frames=frames
    )
