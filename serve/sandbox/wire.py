"""What parent and child say to each other: JSON in one packet each way, descriptors beside the parent's.

Nothing is pickled: unpickling runs what a message says.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.errors import InputError
from models.video import Clip, Limits, Sampling, VideoFacts
from models.video.clip import MAX_ASPECT

MAX_ANSWER = 1 << 16  # bytes; 256 times of 20 digits and the facts are a tenth of it
MAX_TEXT = 500  # characters of a message, a value or a limit; the longest of models.video has 150


@dataclass(frozen=True)
class Job:
    """What a child is to do with the video's descriptor that comes with it, and within which bounds.

    `sampling` None: the facts alone are wanted. `frame_bytes`: size of the shared memory for frames that comes with
    it; 0: none does, there is enough. `videos`: how many the child may get in all. The bounds of the first job last.
    """

    limits: Limits
    sampling: Sampling | None
    frame_bytes: int
    memory_bytes: int
    cpu_seconds: int
    videos: int = 1

    def to_json(self) -> bytes:
        sampling = self.sampling and self.sampling.key()
        return json.dumps({**self.__dict__, "limits": asdict(self.limits), "sampling": sampling}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Job:
        """Comes from the parent, so that it is believed."""
        data = json.loads(text)
        sampling = data["sampling"] and Sampling.parse(data["sampling"])
        return cls(**{**data, "limits": Limits(**data["limits"]), "sampling": sampling})


def frame_bytes(sampling: Sampling, limits: Limits) -> int:
    """The most that the frames of a clip can take. Shared memory of that size costs only what is written to."""
    frames = min(sampling.count or limits.max_frames, limits.max_frames)
    frames += -frames % sampling.temporal_patch
    # `fit` rounds the sides of a small frame up: at most by one multiple each, of a frame as narrow as any may be.
    side, least = sampling.side_multiple, sampling.min_pixels
    longest, shortest = math.sqrt(least * MAX_ASPECT), math.sqrt(least / MAX_ASPECT)
    raised = math.ceil((longest + side) * (shortest + side))
    return frames * max(sampling.max_pixels, raised) * 3


def seen(facts: VideoFacts) -> bytes:
    """A child's answer to a job without sampling."""
    return _packet({"facts": asdict(facts)})


def decoded(clip: Clip) -> bytes:
    """A child's answer to a job with sampling; the frames lie at the start of the shared memory."""
    return _packet(
        {
            "facts": asdict(clip.facts),
            "shape": clip.frames.shape,
            "times": clip.times.tolist(),
            "sampled": clip.sampled,
        }
    )


def refused(error: InputError) -> bytes:
    """A child's answer when the video breaks a rule."""
    said = {"code": error.code, "message": error.message}
    return _packet({"refused": {**said, "field": error.field, "value": error.value, "limit": error.limit}})


def failed(how: Literal["memory", "other"], what: str) -> bytes:
    """A child's answer when decoding broke otherwise. `what`: name of a Python exception, for the log."""
    return _packet({"failed": how, "what": what[:MAX_TEXT]})


def _packet(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode()
