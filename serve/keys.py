"""Names of content. Equal names mean equal bytes: what is made from them can be cached, routed and computed again."""

from __future__ import annotations

import re
from dataclasses import dataclass

VIDEO_ID = re.compile(r"vid_[0-9a-f]{64}")
_SAMPLING = re.compile(r"[A-Za-z0-9._+-]{1,100}")
_SEPARATOR = "/"


def video_id(sha256_hex: str) -> str:
    """`vid_` + the sha256 of a video's bytes, as 64 lower-case hexadecimal digits."""
    name = f"vid_{sha256_hex}"
    if not is_video_id(name):
        raise ValueError(f"not a sha256 in lower-case hexadecimal: {sha256_hex!r}")
    return name


def is_video_id(text: str) -> bool:
    """Whether `text` may be used as a path and a key. Everything that comes from outside passes here first."""
    return VIDEO_ID.fullmatch(text) is not None


def prefix_of(video: str | None) -> str:
    """What the text form of every clip of this video starts with; of every video when it is None."""
    return "" if video is None else f"{video}{_SEPARATOR}"


@dataclass(frozen=True, order=True)
class ClipKey:
    """One clip: a video's id and how its frames are chosen (the text that `models.video.Sampling.key()` gives).

    `str()` is its one text form, `video/sampling`; keys sort like their text, so the clips of a video stand together.
    """

    video: str
    sampling: str

    def __post_init__(self) -> None:
        if not is_video_id(self.video):
            raise ValueError(f"video: {self.video!r} is no video id (vid_ + 64 hexadecimal digits)")
        if not _SAMPLING.fullmatch(self.sampling):
            raise ValueError(f"sampling: {self.sampling!r} does not match {_SAMPLING.pattern}")

    def __str__(self) -> str:
        return f"{self.video}{_SEPARATOR}{self.sampling}"
