"""Everything that this package raises about the service, in one tree.

DsrError                       has status, code, request_id, field, value and limit; None where there is none
├── ConnectionFailed           no connection, or it broke
│   └── TimedOut               nothing came, or nothing could be sent, for longer than the timeout; a TimeoutError too
├── BrokenResponse             a response that the contract does not know, or a stream that ended before its answer
├── CannotDraw                 an explanation cannot be drawn: says what is missing
└── ServiceError               the service said no; `code` is stable and says why
    ├── BadRequest        400  not the documented shape, or not available in this version of the service
    ├── Unauthorized 401, 403  no key, or a wrong one
    ├── NotFound          404  no such thing
    │   └── UnknownVideo  404  the service holds no video of this id (any more)
    ├── TooLarge          413  more bytes than the limit
    ├── NotAVideo         415  the bytes are no video that the service reads
    ├── Unprocessable     422  a value out of its limits, a question that makes no sense, a video that does not decode
    ├── Unavailable            come back later: has `retry_after`, seconds, where the service said
    │   ├── Busy          429  every queue is full
    │   └── NotReady      503  a stage is still loading, or was lost
    ├── DeadlineExceeded  504  no answer within the service's own time limit; 408 too
    └── InternalError     5xx  anything else that went wrong inside

What is wrong in the arguments of a call before anything is sent is a plain TypeError or ValueError, and a file that
cannot be read is an OSError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ._after import retry_after

__all__ = [
    "BadRequest",
    "BrokenResponse",
    "Busy",
    "CannotDraw",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DsrError",
    "InternalError",
    "NotAVideo",
    "NotFound",
    "NotReady",
    "ServiceError",
    "TimedOut",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownVideo",
    "Unprocessable",
    "problem_error",
    "refusal",
]

Scalar = str | int | float | None
MAX_BODY_CHARS = 200


class DsrError(Exception):
    """`request_id` is the one that the service logs; `message` is for people, `str()` adds code and request id."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        field: str | None = None,
        value: Scalar = None,
        limit: Scalar = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.field = field
        self.value = value
        self.limit = limit

    def __str__(self) -> str:
        notes = [self.code, self.request_id and f"request {self.request_id}"]
        said = ", ".join(note for note in notes if note)
        return f"{self.message} [{said}]" if said else self.message


class ConnectionFailed(DsrError):
    pass


class TimedOut(ConnectionFailed, TimeoutError):
    pass


class BrokenResponse(DsrError):
    pass


class CannotDraw(DsrError):
    pass


class ServiceError(DsrError):
    """`title` is the service's short name of the kind of problem; `problem` is all that it sent."""

    title: str = ""
    problem: Mapping[str, Any] = {}


class BadRequest(ServiceError):
    pass


class Unauthorized(ServiceError):
    pass


class NotFound(ServiceError):
    pass


class UnknownVideo(NotFound):
    pass


class TooLarge(ServiceError):
    pass


class NotAVideo(ServiceError):
    pass


class Unprocessable(ServiceError):
    pass


class Unavailable(ServiceError):
    retry_after: float | None = None


class Busy(Unavailable):
    pass


class NotReady(Unavailable):
    pass


class DeadlineExceeded(ServiceError):
    pass


class InternalError(ServiceError):
    pass


BY_STATUS: dict[int, type[ServiceError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    408: DeadlineExceeded,
    413: TooLarge,
    415: NotAVideo,
    422: Unprocessable,
    429: Busy,
    503: NotReady,
    504: DeadlineExceeded,
}
BY_CODE: dict[str, type[ServiceError]] = {"unknown_video": UnknownVideo}


def refusal(status: int, headers: Mapping[str, str], body: bytes, request_id: str | None = None) -> ServiceError:
    """The error that a response of any status but 2xx tells, whoever made it: a proxy's page of HTML is one too."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        text = " ".join(body[: 4 * MAX_BODY_CHARS].decode("utf-8", "replace").split())[:MAX_BODY_CHARS]
        problem = {"code": f"http_{status}", "detail": f"HTTP {status}" + (f": {text}" if text else "")}
    error = problem_error({"status": status, **problem}, request_id)
    if isinstance(error, Unavailable):
        error.retry_after = retry_after(headers)
    return error


def problem_error(problem: Mapping[str, Any], request_id: str | None = None) -> ServiceError:
    """The error that a problem (RFC 9457) tells, from the body of a response or from a stream's `error` event."""
    status, code = problem.get("status"), str(problem.get("code"))
    kind = BY_CODE.get(code) or BY_STATUS.get(status if isinstance(status, int) else 0)
    if kind is None:
        kind = InternalError if isinstance(status, int) and status >= 500 else ServiceError
    error = kind(
        str(problem.get("detail") or problem.get("title") or code),
        status=status,
        code=code,
        request_id=problem.get("request_id") or request_id,
        field=problem.get("field"),
        value=problem.get("value"),
        limit=problem.get("limit"),
    )
    error.title = str(problem.get("title") or "")
    error.problem = dict(problem)
    return error
