"""Token ids to text while they come: whole characters only, and nothing that may turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a decoder shows for bytes that are no character, or not one yet


class Words:
    """`decode` is the tokenizer's; it must work byte by byte, as Qwen's does: `decode(a + b) == decode(a) + decode(b)`
    wherever no character is cut."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._open: list[int] = []  # ids whose text is not decoded yet: they end within a character
        self._held = ""  # decoded, but the beginning of a stop string may stand in it
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain now; "" while there is none. After a stop string, `stopped` is true."""
        self._open.append(token)
        text = self._decode(self._open)
        if text.endswith(REPLACEMENT):
            return ""
        self._open.clear()
        return self._release(text)

    def end(self) -> str:
        """What was held back, when no token follows. A stop string may still be found."""
        if self.stopped:
            return ""
        certain = self._release(self._decode(self._open))
        if not self.stopped:
            certain, self._held = certain + self._held, ""
        return certain

    def _release(self, text: str) -> str:
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            certain, self._held, self.stopped = self._held[: min(found)], "", True
            return certain
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        border = len(self._held) - keep
        certain, self._held = self._held[:border], self._held[border:]
        return certain


def _overlap(text: str, stop: str) -> int:
    """How many of `text`'s last characters may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
