"""A video on its way into the store: hashed while it is written under another name."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any

from serve.errors import TooLarge
from serve.keys import video_id


class Upload:
    """Bytes on their way under a temporary name. Thread-safe: a cancelled coroutine discards while a thread writes.

    `files`: an fsspec file system; `path`: the temporary name there; `limit`: the most bytes; `keep`: gets that name,
    the video's id and its size when all is written.
    """

    def __init__(self, files: Any, path: str, limit: int, keep: Callable[[str, str, int], None]) -> None:
        self._files = files
        self._path = path
        self._limit = limit
        self._keep = keep
        self._file: Any = files.open(path, "wb")
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()
        self._over = False

    def write(self, chunk: bytes) -> None:
        with self._lock:
            self._size += len(chunk)
            if self._size > self._limit:
                raise TooLarge(
                    f"the video has more than the {self._limit} bytes that the store holds",
                    field="video",
                    value=self._size,
                    limit=self._limit,
                )
            self._hash.update(chunk)
            self._file.write(chunk)

    def commit(self) -> str:
        with self._lock:
            if self._over:
                raise ValueError("the upload was discarded")
            self._file.close()
            video = video_id(self._hash.hexdigest())
            self._keep(self._path, video, self._size)
            self._over = True
            return video

    def discard(self) -> None:
        """Removes what was written, unless it was committed."""
        with self._lock:
            if self._over:
                return
            self._over = True
            with contextlib.suppress(OSError):  # on a full disk what is left in the buffer cannot be written
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path)
