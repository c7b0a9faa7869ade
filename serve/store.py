"""Videos by the hash of their bytes, in a folder or any fsspec URL, bounded in bytes and in age.

The functions block: from a coroutine call them with `asyncio.to_thread` (`put_chunks` does so by itself).
Layout below the root: `vid_<sha256>` for each video, `partial/<random>` for uploads under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterable
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, BinaryIO, Self, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from serve.errors import UnknownVideo
from serve.keys import is_video_id, video_id
from serve.settings import Store
from serve.upload import Upload

_CHUNK = 1 << 20
_PARTIAL_SECONDS = 3600.0
_REMEMBERED = 4096  # files: half a megabyte
_WRITTEN = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Held:
    path: str
    size: int
    used: float


class VideoStore:
    """On a local path or an fsspec URL (`s3://…`, `gs://…`, `memory://…`). Every process that works with the videos has
    its own. Every method that takes an id raises UnknownVideo (404) for a text that is no id or is not held.

    Bounds: the videos held have at most `max_bytes` together, and none is older than `max_age` seconds since its last
    use; the least recently used go first. Uploads under way come on top, each at most `max_bytes`. A use is a `put` or,
    in a local folder, an `open`, recorded in the file's modification time; object stores cannot record reads.
    Several processes may share a root; then the bounds hold after each put, not at every moment.
    """

    def __init__(self, url: str, max_bytes: int, max_age: float) -> None:
        if max_bytes <= 0 or max_age <= 0:
            raise ValueError(f"max_bytes: {max_bytes} and max_age: {max_age} must be above 0")
        self.max_bytes = max_bytes
        self.max_age = max_age
        files, root = fsspec.core.url_to_fs(url)
        self._files: Any = files
        self._root: str = root.rstrip("/")
        self._local = isinstance(files, LocalFileSystem)
        self._lock = threading.Lock()
        self._checked: dict[tuple[str, int, int], None] = {}  # files whose bytes are those of their names
        if self._local:
            os.makedirs(self._root, mode=0o700, exist_ok=True)  # what people upload is theirs alone
        self._files.makedirs(f"{self._root}/partial", exist_ok=True)

    @classmethod
    def of(cls, settings: Store) -> Self:
        return cls(settings.url, settings.max_bytes, settings.max_age_seconds)

    def put(self, source: BinaryIO) -> str:
        """Stores what `source` has from its position to its end; the id. TooLarge when the store cannot hold it."""
        upload = self._upload()
        try:
            while chunk := source.read(_CHUNK):
                upload.write(chunk)
            return upload.commit()
        finally:
            upload.discard()

    async def put_chunks(self, chunks: AsyncIterable[bytes]) -> str:
        """The same for an upload that is still arriving. Cancelled or failed, it leaves nothing behind."""
        upload = self._upload()
        try:
            async for chunk in chunks:
                await asyncio.to_thread(upload.write, chunk)
            return await asyncio.to_thread(upload.commit)
        finally:
            # In a thread, because it waits for a write that a cancelled caller has left running.
            await asyncio.shield(asyncio.to_thread(upload.discard))

    def open(self, video: str) -> BinaryIO:
        """A real file, seekable, at 0, the caller's own to close. It stays readable when the video is evicted."""
        path = self._path(video)
        if not self.exists(video):
            raise unknown(video)
        try:
            if not self._local:
                return self._intact(video, self._download(path))
            os.utime(path)
            return self._intact(video, open(path, "rb"))
        except FileNotFoundError:  # evicted since
            raise unknown(video) from None

    def _intact(self, video: str, file: IO[bytes]) -> BinaryIO:
        """The file, at 0, once its bytes have been compared with its name: a disk may lose some. This process reads
        each local file through only once, a copy from elsewhere each time.

        Raises:
            UnknownVideo: they differ, or are fewer. The remains are deleted.
        """
        status = os.fstat(file.fileno())
        known = video, status.st_ino, status.st_size
        if known in self._checked:
            return cast(BinaryIO, file)
        if video_id(hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()) != video:
            file.close()
            _log.error("%s is damaged and was deleted", video)
            self._remove(self._path(video))
            raise UnknownVideo("this video was damaged on the disk; upload it again", field="video.id", value=video)
        if self._local:
            self._checked[known] = None
            while len(self._checked) > _REMEMBERED:
                del self._checked[next(iter(self._checked))]
        file.seek(0)
        return cast(BinaryIO, file)

    def exists(self, video: str) -> bool:
        """False, too, for a text that is no id. Does not count as a use."""
        return is_video_id(video) and self._info(video) is not None

    def size(self, video: str) -> int:
        """Bytes of one video. Does not count as a use."""
        info = self._info(video)
        if info is None:
            raise unknown(video)
        return int(info["size"])

    def delete(self, video: str) -> None:
        try:
            self._files.rm_file(self._path(video))
        except FileNotFoundError:
            raise unknown(video) from None

    def usage(self) -> tuple[int, int]:
        """(videos, bytes) held."""
        held = self._held()
        return len(held), sum(video.size for video in held)

    def ids(self) -> list[str]:
        """Of all videos held, sorted. Does not count as a use."""
        oldest = time.time() - self.max_age
        return sorted(held.path.rsplit("/", 1)[-1] for held in self._held() if held.used >= oldest)

    def _upload(self) -> Upload:
        return Upload(self._files, f"{self._root}/partial/{uuid.uuid4().hex}", self.max_bytes, self._keep)

    def _keep(self, partial: str, video: str, size: int) -> None:
        """The commit. A video that is held already is replaced by equal bytes, which renews its time of use."""
        path = self._path(video)
        with self._lock:
            self._make_room(size, [held for held in self._held() if held.path != path])
            self._files.mv(partial, path)

    def _make_room(self, room: int, held: list[_Held]) -> None:
        """Removes what is too old and what is over the limit, and the remains of dead uploads."""
        for partial in self._list(f"{self._root}/partial"):
            if partial.used < time.time() - _PARTIAL_SECONDS:  # a live upload writes more often
                self._remove(partial.path)
        oldest_allowed = time.time() - self.max_age
        total = sum(video.size for video in held)
        for video in sorted(held, key=lambda video: (video.used, video.path)):
            if video.used >= oldest_allowed and total + room <= self.max_bytes:
                break
            self._remove(video.path)
            total -= video.size

    def _download(self, path: str) -> BinaryIO:
        local = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            with self._files.open(path, "rb") as remote:
                shutil.copyfileobj(remote, local, _CHUNK)
        except BaseException:
            local.close()
            raise
        local.seek(0)
        return cast(BinaryIO, local)

    def _path(self, video: str) -> str:
        if not is_video_id(video):
            raise unknown(video)
        return f"{self._root}/{video}"

    def _info(self, video: str) -> dict[str, Any] | None:
        self._files.invalidate_cache(self._root)
        try:
            info = cast(dict[str, Any], self._files.info(self._path(video)))
        except FileNotFoundError:
            return None
        return info if written(info) >= time.time() - self.max_age else None

    def _held(self) -> list[_Held]:
        return [file for file in self._list(self._root) if is_video_id(file.path.rsplit("/", 1)[-1])]

    def _list(self, folder: str) -> list[_Held]:
        self._files.invalidate_cache(folder)
        try:
            infos = self._files.ls(folder, detail=True)
        except FileNotFoundError:  # object stores have no empty folders
            return []
        files = [info for info in infos if info["type"] == "file"]
        return [_Held(info["name"], int(info["size"]), written(info)) for info in files]

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self._files.rm_file(path)


def written(info: dict[str, Any]) -> float:
    """When a file was last written, in seconds since 1970, from what its file system calls it."""
    found = next((info[name] for name in _WRITTEN if info.get(name) is not None), None)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        return found.timestamp()
    if found is None:
        raise ValueError(f"this file system does not tell when a file was written; it tells {sorted(info)}")
    return float(found)


def unknown(video: str) -> UnknownVideo:
    return UnknownVideo("no video of this id is held; upload it again", field="video.id", value=video)
