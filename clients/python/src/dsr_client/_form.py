"""`multipart/form-data` (RFC 7578) that is read from a file piece by piece while it is sent: memory stays flat."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import BinaryIO

__all__ = ["AsyncForm", "Form", "Progress"]

PIECE_BYTES = 256 * 1024

Progress = Callable[[int, "int | None"], None]
"""(bytes of the video sent, its size; None when nobody knows), after every piece. Starts again when a retry does."""


class Form:
    """Text fields, then one file named `video`, from where `file` stands to its end.

    May be iterated again when the file is seekable. The file is left open.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, str]],
        file: BinaryIO,
        name: str = "video",
        progress: Progress | None = None,
    ) -> None:
        if isinstance(file, io.TextIOBase):
            raise TypeError("video: the file is open as text; open it in binary mode ('rb')")
        self._file = file
        self._progress = progress
        self._start = file.tell() if file.seekable() else None
        self._begun = False
        self.size = _remaining(file, self._start)
        boundary = secrets.token_hex(16)
        self._head = b"".join(_field(boundary, *field) for field in fields) + _file_head(boundary, name)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if self.size is not None:  # else it goes out chunked
            self.headers["Content-Length"] = str(len(self._head) + self.size + len(self._tail))

    @property
    def can_repeat(self) -> bool:
        return self._start is not None or not self._begun

    def __iter__(self) -> Iterator[bytes]:
        self._begin()
        yield self._head
        sent = 0
        while piece := self._file.read(PIECE_BYTES):
            yield piece
            sent = self._count(sent, piece)
        yield self._tail

    async def pieces(self) -> AsyncIterator[bytes]:
        """The same; the file is read in threads, so that a slow disk holds up nobody else."""
        self._begin()
        yield self._head
        sent = 0
        while piece := await asyncio.to_thread(self._file.read, PIECE_BYTES):
            yield piece
            sent = self._count(sent, piece)
        yield self._tail

    def _begin(self) -> None:
        if self._begun and self._start is not None:
            self._file.seek(self._start)
        self._begun = True

    def _count(self, sent: int, piece: bytes) -> int:
        sent += len(piece)
        if self._progress is not None:
            self._progress(sent, self.size)
        return sent


class AsyncForm:
    """A form as httpx's asynchronous client wants it: `async for`, and nothing that looks synchronous."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._form.pieces()


def _remaining(file: BinaryIO, start: int | None) -> int | None:
    if start is None:
        return None
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    return end - start


def _field(boundary: str, name: str, text: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()


def _file_head(boundary: str, name: str) -> bytes:
    name = name.encode("utf-8", "replace").decode()  # a name on disk may be no Unicode
    for sign in '"\r\n':
        name = name.replace(sign, f"%{ord(sign):02X}")
    disposition = f'Content-Disposition: form-data; name="video"; filename="{name}"'
    return f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
