"""What an answer looked at: a weight for every patch of the video, in space and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from ._errors import BrokenResponse
from ._json import Json

__all__ = ["Explanation"]


@dataclass(frozen=True)
class Explanation:
    """T temporal patches of R rows and C columns."""

    times: Sequence[float]  # [T] seconds
    grid: tuple[int, int, int]  # T, R, C
    attention: Sequence[Sequence[Sequence[float]]] = field(repr=False)  # [T][R][C], >= 0, sums to 1
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json) -> Explanation:
        try:
            times = tuple(float(time) for time in raw["times"])
            t, r, c = (int(size) for size in raw["grid"])
            attention = [[[float(weight) for weight in row] for row in patch] for patch in raw["attention"]]
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenResponse(
                f"explanation: not times, grid and attention: {error!r}", field="explanation"
            ) from None
        shaped = len(attention) == t and all(len(patch) == r and {*map(len, patch)} == {c} for patch in attention)
        if len(times) != t or not shaped or min(t, r, c) < 1:
            said = f"grid is {[t, r, c]}, but times has {len(times)} and attention {len(attention)} entries"
            raise BrokenResponse(f"explanation: {said}, or its rows differ in length", field="explanation")
        return cls(times, (t, r, c), attention, raw)

    def over_time(self) -> list[float]:
        """[T] how much of the attention each temporal patch got; sums to 1."""
        return [sum(map(sum, patch)) for patch in self.attention]

    def save_strip(
        self, frames: Sequence[Any] | str | PathLike[str], path: str | PathLike[str], *, columns: int = 8
    ) -> Path:
        """Draws the attention over the video as a PNG: frames in time, heat upon them, and a bar for every patch.

        `frames`: the video's file, or pictures (PIL images, or arrays uint8 [H, W, 3]) spread evenly over the patches.
        At most `columns` frames are shown; the bars show every patch. CannotDraw without Pillow, or when the file
        cannot be read (that takes PyAV or the `ffmpeg` command).
        """
        from ._strip import draw_strip  # Pillow is an extra

        path = Path(path)
        draw_strip(self, frames, columns).save(path, "PNG")
        return path
