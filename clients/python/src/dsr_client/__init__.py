"""Ask a video how things move in 3D over time: the Python client of dsr-serve.

from dsr_client import Client

with Client() as client:
    answer = client.ask("clip.mp4", "How does the car's distance to the camera change?", ["It grows.", "It shrinks."])
    print(answer.choice.text, answer.probabilities)
"""

from ._async_client import AsyncClient
from ._client import Client
from ._errors import (
    BadRequest,
    BrokenResponse,
    Busy,
    CannotDraw,
    ConnectionFailed,
    DeadlineExceeded,
    DsrError,
    InternalError,
    NotAVideo,
    NotFound,
    NotReady,
    ServiceError,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownVideo,
    Unprocessable,
)
from ._explanation import Explanation
from ._models import Answer, Choice, Health, Span, Token, Usage, Video
from ._reconstruction import Array, Camera, Points, Reconstruction
from ._retry import Retries
from ._stream import AnswerStream, AsyncAnswerStream
from ._version import __version__

__all__ = [
    "Answer",
    "AnswerStream",
    "Array",
    "AsyncAnswerStream",
    "AsyncClient",
    "BadRequest",
    "BrokenResponse",
    "Busy",
    "Camera",
    "CannotDraw",
    "Choice",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DsrError",
    "Explanation",
    "Health",
    "InternalError",
    "NotAVideo",
    "NotFound",
    "NotReady",
    "Points",
    "Reconstruction",
    "Retries",
    "ServiceError",
    "Span",
    "TimedOut",
    "Token",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownVideo",
    "Unprocessable",
    "Usage",
    "Video",
    "__version__",
]
