"""Decodes the frames at given times, and as little else as gives them.

Where the container has an index and a key frame lies between two wanted frames, decoding jumps to it. When that does
not give exactly the frame that was listed for a time (a broken index, a key frame that is none), everything from there
on is decoded from the start of the file instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import av
import numpy as np
from einops import rearrange

from models.errors import Undecodable
from models.video.container import Limits, Opened, Source, opened
from models.video.timeline import Timeline, packet_time


@dataclass(frozen=True)
class Picture:
    """A decoded frame, shown at `pts` ticks. `aspect`: width over height of one of its pixels."""

    frame: Any
    pts: int
    aspect: Fraction

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] RGB as stored.

        The colour matrix and range of the stream are respected. A stream that names none is taken for BT.601, as FFmpeg
        does; so were the frames that the models were trained on.
        """
        with _converting():
            rgb: np.ndarray = self.frame.to_ndarray(format="rgb24", threads=1)
        return rgb


@dataclass(frozen=True)
class Orientation:
    """How a stored frame becomes the one that a viewer sees; `across` and `down` are directions after `transposed`.

    From a display matrix, which sends a pixel (x, y) to (a x + c y, b x + d y), up to a shift; y points down.
    """

    transposed: bool = False
    across: int = 1
    down: int = 1

    @classmethod
    def of(cls, frame: Any) -> Self:
        # PyAV keeps a frame whose side data was read until the garbage collector runs: here that is a small copy.
        with _converting():
            copy = frame.reformat(width=16, height=16, format="gray", threads=1)
        matrix = copy.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = (int(number) for number in np.frombuffer(bytes(matrix), np.int32)[:5])
        transposed = abs(b) + abs(c) > abs(a) + abs(d)
        across, down = (c, b) if transposed else (a, d)
        return cls(transposed, -1 if across < 0 else 1, -1 if down < 0 else 1)

    @property
    def rotation(self) -> int:
        """Degrees clockwise: 0, 90, 180 or 270. A mirror image counts as not turned, or as turned by 90 or 270."""
        if self.transposed:
            return 90 if self.down > 0 else 270
        return 180 if self.across < 0 and self.down < 0 else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.transposed else (width, height)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] as a viewer sees it."""
        turned = rearrange(pixels, "h w c -> w h c") if self.transposed else pixels
        return np.ascontiguousarray(turned[:: self.down, :: self.across])


@contextmanager
def _converting() -> Iterator[None]:
    """A stream may name a colour matrix that FFmpeg has no conversion for, as YCgCo or that of BT.2020 with constant
    luminance: damage, in general, for cameras write none of them."""
    try:
        yield
    except av.FFmpegError:
        raise Undecodable("the video names colours that cannot be converted to RGB", field="video") from None


def pictures(source: Source, timeline: Timeline, wanted: list[int], limits: Limits, threads: int) -> Iterator[Picture]:
    """The pictures at `wanted`, increasing times of `timeline`, in ticks. Undecodable names the time that fails."""
    done = 0
    with suppress(_Lost), opened(source, limits, threads) as video:
        for place, group in timeline.runs(wanted, source.kind.indexed):
            start = int(timeline.pts[place]) if place else None
            for picture in _nearest(_decoded(video, source, timeline, group, start), group, reach=0):
                yield picture
                done += 1
    if done == len(wanted):
        return
    try:
        # In one thread a decoder reports damage at the packet that has it. Some streams give fewer frames than packets
        # (two fields of a frame, references that are never shown), so that the nearest has to do.
        with opened(source, limits, threads=1) as video:
            yield from _nearest(_decoded(video, source, timeline), wanted[done:], reach=timeline.interval)
    except _Lost as lost:
        seconds = round(timeline.seconds(lost.pts), 3)
        message = f"the video cannot be decoded at {seconds} s"
        raise Undecodable(message, field="video", value=seconds) from None


class _Lost(Exception):
    """Not an error yet: there is a second way to decode."""

    def __init__(self, pts: int) -> None:
        super().__init__(pts)
        self.pts = pts


def _nearest(decoded: Iterator[Picture], wanted: list[int], reach: float) -> Iterator[Picture]:
    """For each time the picture nearest to it, at most `reach` ticks away."""
    before: Picture | None = None
    after = next(decoded, None)
    for pts in wanted:
        while after is not None and after.pts < pts:
            before, after = after, next(decoded, None)
        near = min((p for p in (before, after) if p is not None), key=lambda p: abs(p.pts - pts), default=None)
        if near is None or abs(near.pts - pts) > reach:
            raise _Lost(pts)
        yield near


def _decoded(
    video: Opened, source: Source, timeline: Timeline, group: Sequence[int] = (), start: int | None = None
) -> Iterator[Picture]:
    """Pictures as they are shown, from the key frame at `start` on. Stops when the packets of `group` are decoded.

    _Lost: damage, or a start that is no key frame; some decoders would go on with what they never had.
    """
    stream, context = video.stream, video.stream.codec_context
    # In MP4 a packet is a whole frame, so that one that no other refers to can be left out when it is not wanted.
    sparing = bool(group) and source.kind.name == "mp4" and video.codec == "h264"
    times = iter(timeline.times.tolist())
    pts = int(timeline.times[0]) if start is None else start
    entered = start is None
    try:
        if start is not None:
            video.container.seek(start, stream=stream)
        for pts, packet in _packets(video, timeline, group if source.kind.timed else ()):
            if sparing:
                context.skip_frame = "DEFAULT" if pts in group else "NONREF"
            for frame in context.decode(packet):
                shown = frame.pts if source.kind.timed else next(times, None)
                entered = entered or frame.key_frame
                if frame.is_corrupt or not entered:
                    raise _Lost(pts if shown is None else shown)
                if shown is not None:
                    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
                    yield Picture(frame, shown, aspect or Fraction(1))
    except av.FFmpegError:
        raise _Lost(pts) from None


def _packets(video: Opened, timeline: Timeline, group: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Packets with their times, up to the last that holds a time of `group`, or all; then None: it empties the decoder.

    Those that come or are shown before the first key frame are left out: their references were not read.
    """
    missing, entry, pts = set(group), None, int(timeline.times[0])
    for packet in video.container.demux(video.stream):
        time = packet_time(packet)
        if time is None or not packet.size:  # an empty packet would end the stream for the decoder
            continue
        if entry is None and (packet.is_keyframe or not timeline.keys.any()):
            entry = time
        if entry is not None and time >= entry:
            pts = time
            yield pts, packet
            missing.discard(pts)
            if group and not missing:
                break
    yield pts, None
