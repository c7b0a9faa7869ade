"""A request about one video, as JSON or as a form: its parameters, and the video, which is stored by then."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar

import pydantic
from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from serve.access.edge import caller_of
from serve.access.keyring import Caller
from serve.clock import Clock
from serve.custody import Custody
from serve.errors import Malformed, UnknownVideo
from serve.keys import is_video_id
from serve.media.fetch import Fetcher
from serve.scene_schemas import ReconstructionParameters
from serve.schemas import AnswerParameters, VideoSource, from_form, refusal

MAX_FORM_FIELDS = 64

P = TypeVar("P", bound=AnswerParameters | ReconstructionParameters)
M = TypeVar("M", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Shape(Generic[P]):
    """Of a route's requests. `form`: the type of its parameters, whose fields in `lists` may repeat in a form; `body`:
    the same with a `video`, as JSON has it; `check`: raises what the parameters alone tell, before a video is kept."""

    form: type[P]
    body: type[pydantic.BaseModel]
    check: Callable[[P], None]
    lists: tuple[str, ...] = ()


class Intake:
    """For every route that is asked about a video."""

    def __init__(self, custody: Custody, fetcher: Fetcher) -> None:
        self._custody = custody
        self._fetcher = fetcher

    async def read(self, request: Request, clock: Clock, shape: Shape[P]) -> tuple[P, str]:
        """The parameters and the video's id.

        Raises:
            Malformed, InputError: the body is not of the documented shape.
            UnknownVideo: it names one that the caller has not sent.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self._read_json(request, clock, shape)
        if kind == "multipart/form-data":
            return await self._read_form(request, shape)
        raise Malformed("send application/json or multipart/form-data", field="content-type", value=kind)

    async def held(self, video: str, caller: Caller, field: str) -> str:
        """The id of a video that the caller has sent before. `field`: what errors call it."""
        if not is_video_id(video):
            raise UnknownVideo("no video of this id is held; upload it first", field=field, value=video)
        await self._custody.check(video, caller)
        return video

    async def sent(self, data: bytes, caller: Caller) -> str:
        return await self._custody.keep(io.BytesIO(data), caller)

    async def fetched(self, url: str, caller: Caller, field: str) -> str:
        video = await self._fetcher.keep(url, field)
        await self._custody.claim(video, caller)
        return video

    async def _read_json(self, request: Request, clock: Clock, shape: Shape[P]) -> tuple[P, str]:
        asked: Any = await parsed(shape.body, await request.body())
        source: VideoSource = asked.video
        caller = caller_of(request)
        if source.id is not None:
            video = await self.held(source.id, caller, "video.id")
            shape.check(asked)
            return asked, video
        shape.check(asked)
        if source.url is not None:
            clock.limit(asked.timeout)
            return asked, await clock.within(self.fetched(source.url, caller, "video.url"))
        return asked, await self.sent(source.data or b"", caller)

    async def _read_form(self, request: Request, shape: Shape[P]) -> tuple[P, str]:
        async with form_of(request) as form:
            fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            with _refusing():
                parameters = from_form(shape.form, fields, shape.lists)
            shape.check(parameters)
            return parameters, await self._custody.keep(sent_file(form), caller_of(request))


async def parsed(kind: type[M], body: bytes) -> M:
    """What a JSON body says. In a thread: decoding 100 MB of base64 would hold up every other request for a quarter of
    a second.

    Raises:
        Malformed, InputError: it is not of the documented shape.
    """
    with _refusing():
        return await asyncio.to_thread(kind.model_validate_json, body)


def form_of(request: Request) -> AbstractAsyncContextManager[FormData]:
    return request.form(max_files=1, max_fields=MAX_FORM_FIELDS)


def sent_file(form: FormData) -> BinaryIO:
    """
    Raises:
        Malformed: the form has no file named video.
    """
    file = form.get("video")
    if not isinstance(file, UploadFile):
        raise Malformed("the form has no file named video", field="video")
    return file.file


@contextmanager
def _refusing() -> Iterator[None]:
    """What pydantic finds wrong, as the service's own error."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise refusal(error.errors()) from None
