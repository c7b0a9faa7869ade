"""The client for code that waits. `_async_client` has the same methods for code that awaits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

import httpx

from . import _call
from ._call import Call, translated
from ._errors import ConnectionFailed, UnknownVideo
from ._events import EventReader
from ._form import Progress
from ._json import Json
from ._models import Answer, Health, Video
from ._question import Geometry, Question
from ._reconstruction import Reconstruction
from ._retry import Retries, RetryTransport
from ._settings import Settings, Timeout
from ._source import FileKey, Link, Source, Uploads, VideoLike, file_of, source_of
from ._stream import AnswerStream, Event, Heard
from ._videos import Videos

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Asks a dsr-serve service. May be shared by threads; close it, or use it in a `with`.

    `url`: the service; default: the environment's DSR_URL, else http://127.0.0.1:8000. `api_key`: default DSR_API_KEY.
    `timeout`: seconds of silence that are borne while waiting for an answer (310), or an `httpx.Timeout` for every
    phase; never a bound on the whole call. `retries`: how often a request is sent again: after no connection, one that
    broke before an answer began, 429 or 503. `transport`: what sends the requests, for a proxy or TLS of your own.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: Timeout | None = None,
        retries: int | Retries = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = Settings.resolve(url, api_key, timeout, retries)
        inner = transport or httpx.HTTPTransport(verify=self._settings.tls(), proxy=self._settings.proxy())
        self._http = httpx.Client(
            base_url=self._settings.url,
            headers=self._settings.headers(),
            timeout=self._settings.timeout,
            transport=RetryTransport(inner, self._settings.retries),
        )
        self._uploads = Uploads(threading.Lock)
        self.videos = Videos(self._send, self._uploads.forget)

    @property
    def url(self) -> str:
        return self._settings.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def ask(
        self,
        video: VideoLike,
        question: str,
        options: Sequence[str] = (),
        *,
        frames: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        geometry: Geometry | None = None,
        explain: bool = False,
        timeout: Timeout | None = None,
    ) -> Answer:
        """Answers a question about a video: with `options`, which of them; without, in free words.

        `video`: a path, the bytes, a binary file, an uploaded `Video` or its id, or an https URL. A path is uploaded
        once per client, and once more when the service has dropped it. What is not given is left to the service.
        """
        asked = Question.of(
            question,
            options,
            stop,
            frames=frames,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            geometry=geometry,
            explain=explain,
        )
        return self._about(video, timeout, lambda given: self._told(_call.answers(asked, given, timeout), Answer.of))

    def reconstruct(
        self,
        video: VideoLike,
        *,
        points: int | None = None,
        frames: int | None = None,
        timeout: Timeout | None = None,
    ) -> Reconstruction:
        """Cameras and coloured points of a video, given as in `ask`: at most `points` of them, from `frames` frames.

        BadRequest with the code `not_supported` from a service that has no reconstructor.
        """
        wanted = {"points": points, "frames": frames}
        return self._about(
            video, timeout, lambda given: self._told(_call.reconstructions(wanted, given, timeout), Reconstruction.of)
        )

    def stream(
        self,
        video: VideoLike,
        question: str,
        options: Sequence[str] = (),
        *,
        frames: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        geometry: Geometry | None = None,
        explain: bool = False,
        timeout: Timeout | None = None,
    ) -> AnswerStream:
        """As `ask`, but `Token`s as they come and the `Answer` last. Use it in a `with`, so that it is closed."""
        asked = Question.of(
            question,
            options,
            stop,
            frames=frames,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            geometry=geometry,
            explain=explain,
            stream=True,
        )
        return AnswerStream(self._events(asked, source_of(video), timeout))

    def upload(self, video: VideoLike, *, progress: Progress | None = None, timeout: Timeout | None = None) -> Video:
        """Sends a video, piece by piece from disk, and tells what it is. The same bytes get the same id again.

        `progress(sent, total)` is called after every piece; `total` is None when a file does not tell its size.
        """
        file = file_of(video)
        if not isinstance(file, Path):
            return self._upload(file, "video", progress, timeout)
        key = FileKey.of(file)
        with self._uploads.lock(key):
            return self._upload_file(key, progress, timeout)

    def health(self, *, timeout: Timeout | None = 10) -> Health:
        """Whether every stage is ready. ConnectionFailed when nobody answers at all."""
        request = _call.health_probe(timeout).build(self._http)
        with translated(self._settings, request):
            return _call.health_of(self._http.send(request))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call) -> Json:
        request = call.build(self._http)
        with translated(self._settings, request):
            return _call.check(self._http.send(request))

    def _about(self, video: VideoLike, timeout: Timeout | None, ask: Callable[[Link | BinaryIO], T]) -> T:
        """What `ask` makes of a video. A path is uploaded before, and again when the service has dropped it."""
        source = source_of(video)
        if not isinstance(source, Path):
            return ask(source)
        key = FileKey.of(source)
        link = self._uploaded(key, timeout)
        try:
            return ask(link)
        except UnknownVideo:
            self._uploads.forget(link.value)
        return ask(self._uploaded(key, timeout))

    def _told(self, call: Call, of: Callable[[Json, str | None], T]) -> T:
        """What `of` makes of the response and its request's id."""
        request = call.build(self._http)
        with translated(self._settings, request):
            response = self._http.send(request)
            return of(_call.check(response), _call.request_id_of(response))

    def _upload(self, file: BinaryIO, name: str, progress: Progress | None, timeout: Timeout | None) -> Video:
        return Video.of(self._send(_call.upload(file, name, progress, timeout)))

    def _upload_file(self, key: FileKey, progress: Progress | None, timeout: Timeout | None) -> Video:
        with key.path.open("rb") as file:
            video = self._upload(file, key.path.name, progress, timeout)
        self._uploads.remember(key, video.id)
        return video

    def _uploaded(self, key: FileKey, timeout: Timeout | None) -> Link:
        with self._uploads.lock(key):
            return Link("id", self._uploads.get(key) or self._upload_file(key, None, timeout).id)

    def _events(self, asked: Question, source: Source, timeout: Timeout | None) -> Generator[Event, None, None]:
        asked, heard, renewed, broken = asked.repeatable(), Heard(), False, 0
        while True:
            given = self._uploaded(FileKey.of(source), timeout) if isinstance(source, Path) else source
            try:
                for event in self._listen(_call.answers(asked, given, timeout)):
                    if (new := heard.new(event)) is not None:
                        yield new
                return
            except UnknownVideo:
                if heard or renewed or not isinstance(source, Path) or not isinstance(given, Link):
                    raise
                renewed = True
                self._uploads.forget(given.value)
            except ConnectionFailed as error:
                if not heard or not _call.may_go_on(error, given, broken, self._settings.retries):
                    raise
                heard.once_more()
                time.sleep(self._settings.retries.pause(broken))
                broken += 1

    def _listen(self, call: Call) -> Generator[Event, None, None]:
        """The events of one request. Ends with the answer, and then or when it is closed the connection is dropped."""
        request = call.build(self._http)
        with translated(self._settings, request):
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    _call.check(response)
                _call.check_events(response)
                reader = EventReader(_call.request_id_of(response))
                for piece in response.iter_bytes():
                    for event in reader.feed(piece):
                        yield event
                        if isinstance(event, Answer):
                            return
                raise reader.finish()
            finally:
                response.close()
