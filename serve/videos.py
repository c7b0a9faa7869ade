"""`/v1/videos`: taking videos in, telling what they are, forgetting them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Protocol

from fastapi import Path, Query, Request, Response

from models.errors import InputError
from models.video import VideoFacts
from serve.access.edge import caller_of
from serve.custody import Custody
from serve.errors import UnknownVideo
from serve.intake import form_of, sent_file
from serve.keys import VIDEO_ID
from serve.responses import described
from serve.schemas import Video, VideoList

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
    def __init__(self, backend: VideoBackend, custody: Custody) -> None:
        self._backend = backend
        self._custody = custody

    async def upload(self, request: Request) -> Video:
        """Stores a video and tells what it is. Posting the same bytes again gives the same id."""
        caller = caller_of(request)
        async with form_of(request) as form:
            video = await self._custody.keep(sent_file(form), caller)
        async with self._custody.discarding(video, caller, InputError):
            return await self._video(video)

    async def list(self, request: Request, limit: Limit = 20, after: After = None) -> VideoList:
        """The videos that are held, by id, a page at a time."""
        ids = [video for video in await self._custody.ids(caller_of(request)) if after is None or video > after]
        found = await asyncio.gather(*(self._if_held(video) for video in ids[:limit]))
        more = ids[limit - 1] if len(ids) > limit else None
        return VideoList(videos=[video for video in found if video is not None], next=more)

    async def get(self, request: Request, video: VideoId) -> Video:
        """What is known of one video."""
        await self._custody.check(video, caller_of(request))
        return await self._video(video)

    async def delete(self, request: Request, video: VideoId) -> Response:
        """Deletes a video, and what the stages remember of it; for another caller who has sent it, too, it stays."""
        caller = caller_of(request)
        await self._custody.check(video, caller)
        if await self._custody.drop(video, caller):
            await self._backend.flush(video)
        return Response(status_code=204)

    async def _video(self, video: str) -> Video:
        size = await self._custody.size(video)
        facts = await self._backend.probe(video)
        return Video(**described(video, facts, facts.frames).model_dump(), bytes=size)

    async def _if_held(self, video: str) -> Video | None:
        try:
            return await self._video(video)
        except (UnknownVideo, InputError):  # deleted meanwhile; no video that anybody could ask about
            return None
