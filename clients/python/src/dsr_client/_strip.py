"""The picture of an explanation: frames side by side, heat upon them, their times, and a bar for every temporal patch.

The heat has one scale for the whole strip, so that frames can be compared: the hottest patch is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import CannotDraw

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError:
    raise CannotDraw("drawing takes Pillow: pip install 'dsr-client[explain]'") from None

from ._frames import frames_at

if TYPE_CHECKING:
    from ._explanation import Explanation

__all__ = ["draw_strip"]

FRAME_HEIGHT, GAP, LABEL_HEIGHT, BARS_HEIGHT = 160, 6, 18, 64  # pixels
PAPER, INK, QUIET, BAR = (250, 250, 248), (32, 32, 32), (120, 120, 120), (203, 65, 56)
MOST_OPAQUE = 0.7  # the hottest patch still shows the frame beneath
STOPS = ((0.0, (20, 11, 53)), (0.35, (132, 32, 107)), (0.7, (237, 105, 37)), (1.0, (252, 255, 164)))


def draw_strip(explanation: Explanation, frames: Sequence[Any] | str | PathLike[str], columns: int = 8) -> Image.Image:
    if columns < 1:
        raise ValueError(f"columns is {columns}; at least 1")
    shown = _spread(len(explanation.times), columns)
    pictures = [_resized(picture) for picture in _pictures(explanation, frames, shown)]
    hottest = max(max(map(max, patch)) for patch in explanation.attention) or 1.0
    width = sum(picture.width + GAP for picture in pictures) + GAP
    strip = Image.new("RGB", (width, FRAME_HEIGHT + LABEL_HEIGHT + BARS_HEIGHT + LABEL_HEIGHT + 3 * GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    x = GAP
    for patch, picture in zip(shown, pictures, strict=True):
        strip.paste(_heated(picture, explanation.attention[patch], hottest), (x, GAP))
        label = f"{explanation.times[patch]:.2f} s"
        draw.text((x + picture.width / 2, FRAME_HEIGHT + 2 * GAP), label, INK, ImageFont.load_default(11), anchor="ma")
        x += picture.width + GAP
    _draw_bars(draw, explanation, shown, width)
    return strip


def _spread(count: int, at_most: int) -> list[int]:
    """At most `at_most` of 0 … count-1, evenly spread, first and last among them when there is room for two."""
    if count <= at_most:
        return list(range(count))
    if at_most == 1:
        return [count // 2]
    return [round(i * (count - 1) / (at_most - 1)) for i in range(at_most)]


def _pictures(
    explanation: Explanation, frames: Sequence[Any] | str | PathLike[str], shown: Sequence[int]
) -> list[Image.Image]:
    if isinstance(frames, str | PathLike):
        return frames_at(Path(frames), [explanation.times[patch] for patch in shown])
    if not len(frames):
        raise ValueError("frames: none given; at least 1")
    # The middle one of those that a patch spans: a patch of two frames shows its second.
    patches = len(explanation.times)
    return [_image(frames[(2 * patch + 1) * len(frames) // (2 * patches)]) for patch in shown]


def _image(frame: Any) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    shape, kind = getattr(frame, "shape", None), getattr(frame, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or str(kind) != "uint8":
        said = type(frame).__name__ if shape is None else f"{kind} {list(shape)}"
        raise TypeError(f"frames: expected PIL images or arrays uint8 [H, W, 3], got {said}")
    return Image.fromarray(frame)


def _resized(picture: Image.Image) -> Image.Image:
    return picture.resize((max(48, round(picture.width * FRAME_HEIGHT / picture.height)), FRAME_HEIGHT))


def _heated(picture: Image.Image, patch: Sequence[Sequence[float]], hottest: float) -> Image.Image:
    """`picture` under the heat of one temporal patch [R][C]."""
    levels = bytes(round(255 * max(0.0, weight) / hottest) for row in patch for weight in row)
    heat = Image.frombytes("L", (len(patch[0]), len(patch)), levels).resize(picture.size, Image.Resampling.BICUBIC)
    colour = Image.merge("RGB", [heat.point(_table(channel)) for channel in range(3)])
    return Image.composite(colour, picture, heat.point([round(MOST_OPAQUE * level) for level in range(256)]))


def _table(channel: int) -> list[int]:
    """A colour channel by level 0 … 255, straight lines between the stops."""
    table = []
    for level in range(256):
        heat = level / 255
        low, high = next((a, b) for a, b in pairwise(STOPS) if heat <= b[0])
        part = (heat - low[0]) / (high[0] - low[0])
        table.append(round(low[1][channel] + part * (high[1][channel] - low[1][channel])))
    return table


def _draw_bars(draw: ImageDraw.ImageDraw, explanation: Explanation, shown: Sequence[int], width: int) -> None:
    """How much each temporal patch got, over the whole width; the patches whose frames are shown are dark."""
    weights = explanation.over_time()
    top = FRAME_HEIGHT + LABEL_HEIGHT + 2 * GAP
    bottom, step, most = top + BARS_HEIGHT, (width - 2 * GAP) / len(weights), max(weights) or 1.0
    for patch, weight in enumerate(weights):
        left, right = GAP + patch * step, GAP + (patch + 1) * step - 2
        height = (BARS_HEIGHT - GAP) * weight / most
        draw.rectangle((left, bottom - height, max(left, right), bottom), BAR if patch in shown else QUIET)
    draw.line((GAP, bottom, width - GAP, bottom), INK)
    font, y = ImageFont.load_default(10), bottom + 3
    said = (
        f"attention over time, {explanation.times[0]:.2f} to {explanation.times[-1]:.2f} s; highest {max(weights):.0%}"
    )
    draw.text((GAP, y), said, QUIET, font)
