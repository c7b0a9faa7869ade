"""Errors on their way to the client: one table from exception types to `application/problem+json` (RFC 9457).

Only types in the table say anything of themselves; whatever else happens is a bare 500 with the request's id, by which
the log tells the rest. Texts that a client sent are cut, and lose what looks like a secret, before they are sent back.
"""

from __future__ import annotations

import errno
import logging
import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from models.errors import InputError, InvalidQuestion, NotAVideo, OutOfLimits, Scalar, Undecodable
from serve import errors
from serve.errors import Overload, ServiceError
from serve.guard import REQUEST_ID_HEADER, SANE_ID, Guard, Respond, new_request_id
from serve.schemas import Problem, refusal

MEDIA_TYPE = "application/problem+json"
MAX_VALUE_CHARS = 200
MAX_DETAIL_CHARS = 600
REDACTED = "[redacted]"

TABLE: dict[type[Exception], tuple[int, str]] = {
    # exception: status, title; the code is the exception's own
    InputError: (422, "Invalid input"),
    NotAVideo: (415, "Not a video"),
    Undecodable: (422, "Undecodable video"),
    OutOfLimits: (422, "Out of limits"),  # of bytes: 413, as TooLarge
    InvalidQuestion: (422, "Invalid question"),
    ServiceError: (ServiceError.status, "Internal error"),
    errors.Malformed: (errors.Malformed.status, "Malformed request"),
    errors.NotSupported: (errors.NotSupported.status, "Not supported in this version"),
    errors.Unauthorized: (errors.Unauthorized.status, "Unauthorized"),
    errors.Forbidden: (errors.Forbidden.status, "Forbidden"),
    errors.UnknownVideo: (errors.UnknownVideo.status, "Unknown video"),
    errors.TooLarge: (errors.TooLarge.status, "Too large"),
    errors.UrlRefused: (errors.UrlRefused.status, "URL refused"),
    errors.Unfetchable: (errors.Unfetchable.status, "URL unfetchable"),
    errors.Overload: (errors.Overload.status, "Overloaded"),
    errors.Busy: (errors.Busy.status, "Too busy"),
    errors.NotReady: (errors.NotReady.status, "Not ready"),
    errors.OutOfMemory: (errors.OutOfMemory.status, "Out of memory"),
    errors.StageLost: (errors.StageLost.status, "Stage lost"),
    errors.StoreFull: (errors.StoreFull.status, "Store full"),
    errors.Deadline: (errors.Deadline.status, "Deadline exceeded"),
}
# Codes of what the HTTP framework raises by itself; any other status is `http_<status>`.
HTTP_CODES = {
    400: errors.Malformed.code,
    401: errors.Unauthorized.code,
    403: errors.Forbidden.code,
    404: "not_found",
    405: "method_not_allowed",
    413: errors.TooLarge.code,
    415: "unsupported_media_type",
    429: errors.Busy.code,
    503: errors.NotReady.code,
    504: errors.Deadline.code,
    507: errors.StoreFull.code,
}

# What is never sent back. The last line is any long run of letters and digits mixed, but not our own ids.
_SECRET = re.compile(
    r"""
      -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----.*
    | \beyJ[\w-]+\.[\w-]+(\.[\w-]*)?
    | \b(?:sk|rk|pk|hf|gh[pousr]|github_pat|glpat|xox[a-z]|AKIA|ASIA|AIza|ya29)[-_.]?[\w-]{10,}
    | (?i:\b(?:bearer|basic)\s+\S{6,})
    | (?<=://)[^/\s@]+(?=@)
    | (?i:\b[\w-]*(?:token\b|secret|passw|api[-_]?key|access[-_]?key|signature|credential)[\w-]*["']?\s*[=:]\s*[^\s&]+)
    | (?<![\w+-])(?!vid_[0-9a-f]{64}\b)(?=[A-Za-z+_-]*\d)(?=[\d+_-]*[A-Za-z])[\w+-]{32,}=*
    """,
    re.VERBOSE | re.DOTALL,
)
_SECRET_FIELD = re.compile(
    r"(?i)token\b|secret|passw|api[-_]?key|access[-_]?key|authorization|signature|credential|cookie"
)

Form = Callable[[Problem], BaseModel]

_log = logging.getLogger(__name__)


def describe(error: Exception, request_id: str) -> Problem:
    """What the client may know of an error. The routes that speak OpenAI's error form take code and detail from it."""
    error = _known(error)
    if isinstance(error, HTTPException):
        status, title = error.status_code, _phrase(error.status_code)
        code, field, value, limit = HTTP_CODES.get(status, f"http_{status}"), None, None, None
        message = error.detail if isinstance(error.detail, str) else title
    elif isinstance(error, InputError | ServiceError):
        status, title = _row(error)
        code, message, field, value, limit = error.code, error.message, error.field, error.value, error.limit
    else:
        (status, title), code = TABLE[ServiceError], ServiceError.code
        message, field, value, limit = "an unexpected error; quote the request id when you report it", None, None, None
    if field and _SECRET_FIELD.search(field):
        value = REDACTED
    return Problem(
        type=f"urn:dsr:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=presentable(message, MAX_DETAIL_CHARS),
        request_id=request_id,
        field=None if field is None else presentable(field, MAX_VALUE_CHARS),
        value=_presentable_scalar(value),
        limit=_presentable_scalar(limit),
    )


def respond(error: Exception, request_id: str, form: Form | None = None) -> Response:
    """The whole response: body (in another `form` than the problem's own), status, and the headers of the status."""
    problem = describe(error, request_id)
    if problem.code == ServiceError.code:
        _log.error("unexpected error in request %s", request_id, exc_info=error)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, Overload):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif problem.status in (429, 503):
        headers.setdefault("Retry-After", str(math.ceil(Overload.default_retry_after)))
    if problem.status == 401:
        # Basic, too: a browser asks its user for the key then (as the password), and the page works.
        headers.setdefault("WWW-Authenticate", 'Bearer, Basic realm="the password is an API key", charset="UTF-8"')
    if form is not None:
        return Response(form(problem).model_dump_json(), problem.status, headers, "application/json")
    return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)


async def refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request that has not come as far as the `Guard`, with the id that this would have given it."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    request_id = given if SANE_ID.fullmatch(given) else new_request_id()
    response = respond(error, request_id)
    response.headers[REQUEST_ID_HEADER] = request_id
    await response(scope, receive, send)


def responder(forms: Mapping[str, Form]) -> Respond:
    """Answers errors by `respond`, in the form that `forms` has for paths that begin so."""

    def respond_at(error: Exception, request_id: str, path: str) -> Response:
        form = next((form for prefix, form in forms.items() if path.startswith(prefix)), None)
        return respond(error, request_id, form)

    return respond_at


def install(
    app: FastAPI, max_body_bytes: int, server_returns_id: bool = False, forms: Mapping[str, Form] | None = None
) -> None:
    """Puts a `Guard` before `app`, and makes every error that leaves it a problem, or what `forms` makes of that for
    paths that begin so."""

    respond_at = responder(forms or {})

    async def handle(request: Request, error: Exception) -> Response:
        request_id = getattr(request.state, "request_id", None) or new_request_id()
        request.state.problem_code = describe(error, request_id).code
        return respond_at(error, request_id, request.url.path)

    for kind in (InputError, ServiceError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)
    app.add_middleware(Guard, max_body_bytes=max_body_bytes, respond=respond_at, server_returns_id=server_returns_id)


def presentable(text: str, max_chars: int) -> str:
    """`text` without secrets, control characters and broken Unicode, cut to `max_chars`."""
    text = text[: 16 * max_chars].encode("utf-8", "replace").decode()
    text = _SECRET.sub(REDACTED, text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def _known(error: Exception) -> Exception:
    """An error in the terms of the table."""
    if isinstance(error, RequestValidationError):
        return refusal(error.errors())
    if isinstance(error, ClientDisconnect):  # nobody reads the answer, but it is no error of ours
        return errors.Malformed("the client went away before its request was complete")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.StoreFull("the disk that keeps the videos is full; try again later", field="video")
    if isinstance(error, OutOfLimits) and error.field and error.field.split(".")[-1] == "bytes":
        return errors.TooLarge(error.message, field=error.field, value=error.value, limit=error.limit)
    return error


def _row(error: Exception) -> tuple[int, str]:
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def _presentable_scalar(value: Scalar) -> Scalar:
    """JSON has no infinity, and readers lose integers above 2^53: both become text."""
    if isinstance(value, str):
        return presentable(value, MAX_VALUE_CHARS)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return presentable(str(value), MAX_VALUE_CHARS) if isinstance(value, int) and abs(value) > 2**53 else value


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
