"""What a caller may give as a video, and which files of it the service has already."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from ._models import Video

__all__ = ["FileKey", "Link", "Source", "Uploads", "VideoLike", "file_of", "id_of", "source_of"]

VideoLike = Video | str | PathLike[str] | bytes | BinaryIO
"""An uploaded video or its id, a path, an https URL for the service to fetch, bytes, or a file open for reading."""

_ID = re.compile(r"vid_[0-9a-f]{64}")
_URL = re.compile(r"https?://", re.IGNORECASE)
MAX_REMEMBERED = 4096

Lock = TypeVar("Lock")


@dataclass(frozen=True)
class Link:
    """A video that need not be sent: `{"id": …}` or `{"url": …}` in a request."""

    kind: str
    value: str

    def json(self) -> dict[str, str]:
        return {self.kind: self.value}


Source = Link | Path | BinaryIO


def source_of(video: VideoLike) -> Source:
    """TypeError for anything that is no VideoLike."""
    if isinstance(video, Video):
        return Link("id", video.id)
    if isinstance(video, str):
        if _ID.fullmatch(video):
            return Link("id", video)
        return Link("url", video) if _URL.match(video) else Path(video)
    return file_of(video)


def file_of(video: VideoLike) -> Path | BinaryIO:
    """What there is to upload. Text is always a path here. TypeError for a video that is uploaded already."""
    if isinstance(video, str | PathLike):
        return Path(video)
    if isinstance(video, bytes | bytearray | memoryview):
        return io.BytesIO(video)
    if not isinstance(video, Video) and hasattr(video, "read"):
        return video
    raise TypeError(f"video: expected a path, bytes, a binary file or an uploaded video, got {type(video).__name__}")


def id_of(video: Video | str) -> str:
    video = video.id if isinstance(video, Video) else video
    if not video:
        raise ValueError("video: the id is empty")
    return video


@dataclass(frozen=True)
class FileKey:
    """A file and its state: another size or time of change is another video."""

    path: Path
    size: int
    changed: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> FileKey:
        path = path.resolve()
        state = os.stat(path)
        return cls(path, state.st_size, state.st_mtime_ns)


class Uploads(Generic[Lock]):
    """Ids of the files that one client has uploaded; the newest `MAX_REMEMBERED` of them.

    Who uploads a file holds its lock, so that two callers who ask about a new file at once send it once.
    """

    def __init__(self, new_lock: Callable[[], Lock]) -> None:
        self._new_lock = new_lock
        self._ids: dict[FileKey, str] = {}
        self._locks: dict[FileKey, Lock] = {}

    def lock(self, key: FileKey) -> Lock:
        return self._locks.setdefault(key, self._new_lock())

    def get(self, key: FileKey) -> str | None:
        return self._ids.get(key)

    def remember(self, key: FileKey, video: str) -> None:
        self._ids[key] = video
        if len(self._ids) > MAX_REMEMBERED:
            oldest = next(iter(self._ids))
            self._ids.pop(oldest, None)
            self._locks.pop(oldest, None)

    def forget(self, video: str) -> None:
        """The service does not have this video any more."""
        for key in [key for key, known in list(self._ids.items()) if known == video]:
            self._ids.pop(key, None)
