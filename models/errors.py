"""What can go wrong with a caller's input or a checkpoint, as types. Free of torch, picklable, safe to show.

Exception
├── ExplainedError           says in which field, with which value, beyond which limit; never raised itself
│   ├── InputError           the caller's input breaks a rule (a ValueError, too)
│   │   ├── NotAVideo        the bytes are no container that we open
│   │   ├── Undecodable      a container that we open, but its video stream does not decode
│   │   ├── OutOfLimits      a fact of the input is beyond a stated limit
│   │   └── InvalidQuestion  question, options or sampling make no sense
│   └── serve.errors.ServiceError   what the service itself refuses or fails at
└── CheckpointError          a checkpoint is missing, incomplete, damaged or of another shape
"""

from __future__ import annotations

from typing import ClassVar

Scalar = str | int | float | None


class ExplainedError(Exception):
    """`code` is stable and part of the HTTP contract; `message` is for people."""

    code: ClassVar[str]

    def __init__(self, message: str, *, field: str | None = None, value: Scalar = None, limit: Scalar = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.limit = limit

    # An exception with keyword arguments does not survive pickling by itself: it would be called with `args` alone.
    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[ExplainedError], message: str, attributes: dict[str, object]) -> ExplainedError:
    error = kind(message)
    error.__dict__.update(attributes)
    return error


class InputError(ExplainedError, ValueError):
    """A rule that the input breaks."""

    code = "invalid_input"


class NotAVideo(InputError):
    code = "not_a_video"


class Undecodable(InputError):
    code = "undecodable_video"


class OutOfLimits(InputError):
    code = "out_of_limits"


class InvalidQuestion(InputError):
    code = "invalid_question"


class CheckpointError(RuntimeError):
    """Names the file or key that is wrong and what was expected of it."""
