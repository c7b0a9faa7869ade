"""One request and its response without the sending: all that the two clients share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from ._errors import BrokenResponse, ConnectionFailed, DsrError, NotReady, TimedOut, refusal
from ._form import AsyncForm, Form, Progress
from ._json import Json, parse
from ._models import Health
from ._question import Question
from ._retry import Retries, once_only
from ._settings import Settings, Timeout, timeout_of
from ._source import Link

__all__ = [
    "Call",
    "answers",
    "check",
    "check_events",
    "health_of",
    "health_probe",
    "may_go_on",
    "one_video",
    "page",
    "reconstructions",
    "request_id_of",
    "translated",
    "upload",
]

ID_HEADER = "X-Request-ID"
EVENTS = "text/event-stream"
_WAITED_FOR: list[tuple[type[httpx.TimeoutException], str, str]] = [
    (httpx.ConnectTimeout, "connect", "no connection to {url} within {seconds} s"),
    (httpx.WriteTimeout, "write", "{url} took nothing more of the request for {seconds} s"),
    (httpx.PoolTimeout, "pool", "no connection of this client became free within {seconds} s"),
    (httpx.TimeoutException, "read", "{url} sent nothing for {seconds} s; pass a longer timeout for long videos"),
]


def may_go_on(error: ConnectionFailed, source: Link | BinaryIO, done: int, retries: Retries) -> bool:
    """Whether a stream that broke is to be asked for again: not after a silence, which would be borne once more, nor
    with a file that has been read."""
    return not isinstance(error, TimedOut) and isinstance(source, Link) and done < retries.count


@dataclass(frozen=True)
class Call:
    """The request id is ours and stays the same in all attempts, so that an error without a response has one too."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    json: Json | None = None
    form: Form | None = None
    timeout: Timeout | None = None
    accept: str | None = None
    never_repeat: bool = False
    request_id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")

    def build(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        headers = {ID_HEADER: self.request_id} | ({"Accept": self.accept} if self.accept else {})
        more: dict[str, Any] = {}
        if self.form is not None:
            headers |= self.form.headers
            more["content"] = self.form if isinstance(client, httpx.Client) else AsyncForm(self.form)
        if self.json is not None:
            more["json"] = self.json
        if self.timeout is not None:
            more["timeout"] = timeout_of(self.timeout)
        extensions = once_only(self.form, self.never_repeat)
        return client.build_request(
            self.method, self.path, params=dict(self.query), headers=headers, extensions=extensions, **more
        )


def answers(question: Question, video: Link | BinaryIO, timeout: Timeout | None) -> Call:
    accept = EVENTS if question.stream else None
    if isinstance(video, Link):
        body = {"video": video.json(), **question.json()}
        return Call("POST", "/v1/answers", json=body, timeout=timeout, accept=accept)
    return Call("POST", "/v1/answers", form=Form(question.form(), video), timeout=timeout, accept=accept)


def reconstructions(parameters: Mapping[str, int | None], video: Link | BinaryIO, timeout: Timeout | None) -> Call:
    """None among the parameters is not said: the service has its own defaults."""
    said = {name: value for name, value in parameters.items() if value is not None}
    if isinstance(video, Link):
        return Call("POST", "/v1/reconstructions", json={"video": video.json(), **said}, timeout=timeout)
    form = Form([(name, str(value)) for name, value in said.items()], video)
    return Call("POST", "/v1/reconstructions", form=form, timeout=timeout)


def upload(file: BinaryIO, name: str, progress: Progress | None, timeout: Timeout | None) -> Call:
    return Call("POST", "/v1/videos", form=Form((), file, name, progress), timeout=timeout)


def one_video(method: str, video: str) -> Call:
    return Call(method, f"/v1/videos/{quote(video, safe='')}")


def page(limit: int | None, after: str | None) -> Call:
    query: dict[str, str | int] = {} if limit is None else {"limit": limit}
    return Call("GET", "/v1/videos", query=query | ({} if after is None else {"after": after}))


def health_probe(timeout: Timeout | None) -> Call:
    """Never repeated: "not ready" is an answer here."""
    return Call("GET", "/readyz", timeout=timeout, never_repeat=True)


def health_of(response: httpx.Response) -> Health:
    try:
        return Health.of(check(response))
    except NotReady as error:
        return Health(ready=False, detail=error.message, raw=error.problem)


def check(response: httpx.Response) -> Json:
    """The JSON object of a response that was read, {} for 204; the error that it tells if it tells one."""
    if not response.is_success:
        raise refusal(response.status_code, response.headers, response.content, request_id_of(response))
    if response.status_code == httpx.codes.NO_CONTENT:
        return {}
    return parse(response.content, "the service's answer", request_id_of(response))


def check_events(response: httpx.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != EVENTS:
        raise BrokenResponse(f"asked for a stream of events, got {kind or 'no content type'}")


def request_id_of(response: httpx.Response) -> str | None:
    """Behind some servers the header comes twice."""
    return response.headers.get(ID_HEADER, "").partition(",")[0].strip() or None


@contextmanager
def translated(settings: Settings, request: httpx.Request) -> Iterator[None]:
    """What httpx raises, as this package's errors; every error gets the request's id."""
    request_id = request.headers[ID_HEADER]
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOut(_silence(error, settings, request), request_id=request_id) from error
    except httpx.ConnectError as error:
        said = f"no connection to {settings.url} ({error}); is the service running there? DSR_URL says where it is"
        raise ConnectionFailed(said, request_id=request_id) from error
    except httpx.TransportError as error:
        said = f"the connection to {settings.url} broke: {error or type(error).__name__}"
        raise ConnectionFailed(said, request_id=request_id) from error
    except httpx.HTTPError as error:
        raise BrokenResponse(f"{settings.url}: {error}", request_id=request_id) from error
    except DsrError as error:
        error.request_id = error.request_id or request_id
        raise


def _silence(error: httpx.TimeoutException, settings: Settings, request: httpx.Request) -> str:
    phase, words = next((phase, words) for kind, phase, words in _WAITED_FOR if isinstance(error, kind))
    seconds = request.extensions.get("timeout", {}).get(phase)
    return words.format(url=settings.url, seconds=f"{seconds:g}")
