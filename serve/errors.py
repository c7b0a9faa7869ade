"""What the service itself refuses or fails at, as types. Imports no torch, ray or HTTP; picklable; safe to show.

Exception
├── models.errors.InputError   the caller's input breaks a rule of the model (see there)
└── ServiceError               has `status` (HTTP), `code` (stable), a message, a field, a value and a limit
    ├── Malformed        400   the request does not have the documented shape
    ├── NotSupported     400   documented, but not available in this version
    ├── Unauthorized     401   no credential, or a wrong one
    ├── Forbidden        403   a credential does not help: the request may not come from there
    ├── UnknownVideo     404   no video of this id is in the store
    ├── TooLarge         413   more bytes than the limit
    ├── UrlRefused       422   a media URL of a form, or at a host or port, that the service does not fetch from
    ├── Unfetchable      422   nothing that could be fetched is behind a media URL
    ├── Overload               come back later: has `retry_after`, seconds
    │   ├── Busy         429   every queue that could take the request is full
    │   ├── NotReady     503   a stage is not loaded yet, or did not deploy
    │   ├── OutOfMemory  503   the device had too little memory for it, even alone
    │   └── StageLost    503   replicas died while they worked on it, more often than we retry
    ├── StoreFull        507   the disk that keeps the videos is full
    └── Deadline         504   no answer within the time limit
"""

from __future__ import annotations

from typing import ClassVar

from models.errors import ExplainedError, Scalar


class ServiceError(ExplainedError):
    """`status` is the HTTP status, part of the contract as `code` is."""

    status: ClassVar[int] = 500
    code = "internal_error"


class Malformed(ServiceError):
    status = 400
    code = "malformed_request"


class NotSupported(ServiceError):
    status = 400
    code = "not_supported"


class Unauthorized(ServiceError):
    status = 401
    code = "unauthorized"


class Forbidden(ServiceError):
    status = 403
    code = "forbidden"


class UnknownVideo(ServiceError):
    status = 404
    code = "unknown_video"


class TooLarge(ServiceError):
    status = 413
    code = "too_large"


class StoreFull(ServiceError):
    status = 507
    code = "store_full"


class UrlRefused(ServiceError):
    status = 422
    code = "url_refused"


class Unfetchable(ServiceError):
    status = 422
    code = "url_unfetchable"


class Overload(ServiceError):
    """Never raised itself. `retry_after`: seconds until a new attempt makes sense, > 0."""

    status = 503
    code = "overload"
    default_retry_after: ClassVar[float] = 5.0

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        field: str | None = None,
        value: Scalar = None,
        limit: Scalar = None,
    ) -> None:
        super().__init__(message, field=field, value=value, limit=limit)
        self.retry_after = self.default_retry_after if retry_after is None else retry_after


class Busy(Overload):
    status = 429
    code = "busy"
    default_retry_after = 1.0


class NotReady(Overload):
    code = "not_ready"


class OutOfMemory(Overload):
    code = "out_of_memory"


class StageLost(Overload):
    code = "stage_lost"
    default_retry_after = 2.0


class Deadline(ServiceError):
    status = 504
    code = "deadline_exceeded"
