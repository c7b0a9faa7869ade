"""A request about one video, as JSON or as a form: its parameters, and the video, which is stored by then."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import pydantic
from fastapi import Request
from starlette.datastructures import UploadFile

from serve.clock import Clock
from serve.errors import Malformed, UnknownVideo
from serve.keys import is_video_id
from serve.media.fetch import Fetcher
from serve.scene_schemas import ReconstructionParameters
from serve.schemas import AnswerParameters, VideoSource, from_form, refusal
from serve.videos import MAX_FORM_FIELDS, Videos

P = TypeVar("P", bound=AnswerParameters | ReconstructionParameters)


class Intake(Generic[P]):
    """For one route. `form`: the type of its parameters, whose fields in `lists` may repeat in a form; `body`: the same
    with a `video`, as JSON has it; `check`: raises what the parameters alone tell, before a video is kept."""

    def __init__(
        self,
        videos: Videos,
        fetcher: Fetcher,
        form: type[P],
        body: type[pydantic.BaseModel],
        check: Callable[[P], None] = lambda parameters: None,
        lists: tuple[str, ...] = (),
    ) -> None:
        self._videos = videos
        self._fetcher = fetcher
        self._form = form
        self._body = body
        self._check = check
        self._lists = lists

    async def read(self, request: Request, clock: Clock) -> tuple[P, str]:
        """The parameters and the video's id.

        Raises:
            Malformed, InputError: the body is not of the documented shape.
            UnknownVideo: it names one that the caller has not sent.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self._read_json(request, clock)
        if kind == "multipart/form-data":
            return await self._read_form(request)
        raise Malformed("send application/json or multipart/form-data", field="content-type", value=kind)

    async def _read_json(self, request: Request, clock: Clock) -> tuple[P, str]:
        body = await request.body()
        with _refusing():
            # In a thread: decoding 100 MB of base64 would hold up every other request for a quarter of a second.
            asked: Any = await asyncio.to_thread(self._body.model_validate_json, body)
        source: VideoSource = asked.video
        if source.id is not None:
            if not is_video_id(source.id):
                raise UnknownVideo("no video of this id is held; upload it first", field="video.id", value=source.id)
            await self._videos.check(source.id, request)
            self._check(asked)
            return asked, source.id
        self._check(asked)
        if source.url is not None:
            clock.limit(asked.timeout)
            video = await clock.within(self._fetcher.keep(source.url, "video.url"))
            await self._videos.claim(video, request)
            return asked, video
        return asked, await self._videos.keep(io.BytesIO(source.data or b""), request)

    async def _read_form(self, request: Request) -> tuple[P, str]:
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            with _refusing():
                parameters = from_form(self._form, fields, self._lists)
            self._check(parameters)
            file = form.get("video")
            if not isinstance(file, UploadFile):
                raise Malformed("the form has no file named video", field="video")
            return parameters, await self._videos.keep(file.file, request)


@contextmanager
def _refusing() -> Iterator[None]:
    """What pydantic finds wrong, as the service's own error."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise refusal(error.errors()) from None
