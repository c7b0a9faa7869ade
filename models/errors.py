"""What can go wrong with a caller's input or a checkpoint, as types. Free of torch, picklable, safe to show.

Exception
├── InputError           the caller's input breaks a rule: names the field, the value and the limit
│   ├── NotAVideo        the bytes are no container that we open
│   ├── Undecodable      a container that we open, but its video stream does not decode
│   ├── OutOfLimits      a fact of the input is beyond a stated limit
│   └── InvalidQuestion  question, options or sampling make no sense
└── CheckpointError      a checkpoint is missing, incomplete, damaged or of another shape
"""

from __future__ import annotations

from typing import ClassVar

Scalar = str | int | float | None


class InputError(ValueError):
    """A rule that the input breaks. `code` is stable and part of the HTTP contract; `str()` is for people."""

    code: ClassVar[str] = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None, value: Scalar = None, limit: Scalar = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.message, self.field, self.value, self.limit)


def _restore(kind: type[InputError], message: str, field: str | None, value: Scalar, limit: Scalar) -> InputError:
    return kind(message, field=field, value=value, limit=limit)


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
