"""Server-sent events (WHATWG HTML, 9.2): bytes in pieces of any size to the events of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ._errors import BrokenResponse, problem_error
from ._json import parse
from ._models import Answer, Token

__all__ = ["EventDecoder", "EventReader"]

_LINE_END = re.compile(rb"\r\n|\n|\r")  # and nothing else: U+2028 may stand inside of JSON


class EventDecoder:
    """(event name, data) of every whole event. An event that the stream's end cuts off is none."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line that has not ended yet
        self._name = ""
        self._data: list[str] = []
        self._first = True

    def feed(self, piece: bytes) -> Iterator[tuple[str, str]]:
        for line in self._lines(piece):
            if self._first:
                self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
            if line:
                self._take(line.decode("utf-8", "replace"))
                continue
            if self._data:
                yield self._name or "message", "\n".join(self._data)
            self._name, self._data = "", []

    def _lines(self, piece: bytes) -> list[bytes]:
        if self._pieces and self._pieces[-1].endswith(b"\r"):  # it may have been half of \r\n: now it can be seen
            piece = self._pieces.pop() + piece
        if not _LINE_END.search(piece):
            self._pieces.append(piece)
            return []
        held = b"\r" if piece.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(piece[: len(piece) - len(held)])
        whole = [b"".join([*self._pieces, (lines or [rest])[0]]), *lines[1:]] if lines else []
        self._pieces = [part for part in ((rest,) if lines else (*self._pieces, rest)) if part]
        if held:
            self._pieces.append(held)
        return whole

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        # Anything else is a comment (": keep-alive"), `id` or `retry`, which are about coming back to a stream.


class EventReader:
    """The tokens and the answer of one stream. `finish` says what is wrong with a stream that has ended too early."""

    def __init__(self, request_id: str | None) -> None:
        self._decoder = EventDecoder()
        self._request_id = request_id
        self._tokens = 0

    def feed(self, piece: bytes) -> Iterator[Token | Answer]:
        """Raises the ServiceError that an `error` event tells. Events of a kind that nobody knows are left out."""
        for name, data in self._decoder.feed(piece):
            if name == "token":
                self._tokens += 1
                yield Token.of(parse(data, "a token event"))
            elif name == "answer":
                yield Answer.of(parse(data, "the answer event"), self._request_id)
            elif name == "error":
                raise problem_error(parse(data, "the error event"), self._request_id)

    def finish(self) -> BrokenResponse:
        return BrokenResponse(f"the stream ended after {self._tokens} tokens without its answer")
