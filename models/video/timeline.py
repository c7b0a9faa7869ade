"""When the frames of a video are shown, learnt from its packets without decoding one.

Legend: N packets of the video stream; a tick is the stream's unit of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import numpy as np

from models.errors import OutOfLimits, Undecodable
from models.video.container import Limits, Opened, Source, at_most

PACKET = np.dtype([("pts", "i8"), ("key", "?"), ("shown", "?"), ("duration", "i8")])


@dataclass(frozen=True)
class Timeline:
    """When frames are shown. `pts` int64 [N], ticks, and `keys`, `shown`, bool [N], are in decoding order."""

    pts: np.ndarray
    keys: np.ndarray
    shown: np.ndarray
    last_duration: int
    tick: Fraction

    @cached_property
    def times(self) -> np.ndarray:
        """int64 [frames], ticks: when the frames are shown, increasing."""
        return np.unique(self.pts[self.shown])

    @property
    def frames(self) -> int:
        return len(self.times)

    @cached_property
    def interval(self) -> float:
        """Mean ticks between frames; of a single one, how long it is shown (a second when the file does not say)."""
        if self.frames > 1:
            return (int(self.times[-1]) - int(self.times[0])) / (self.frames - 1)
        return self.last_duration or float(1 / self.tick)

    @property
    def fps(self) -> float:
        return 1 / (self.interval * float(self.tick))

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return (int(self.times[-1]) - int(self.times[0]) + (self.last_duration or self.interval)) * float(self.tick)

    def seconds(self, pts: int) -> float:
        """Since the first frame."""
        return float((int(pts) - int(self.times[0])) * self.tick)

    def runs(self, wanted: list[int], seek: bool) -> list[tuple[int, list[int]]]:
        """Splits increasing times into groups, each to be decoded from a packet (its place) onward without a break.

        A new group starts where a key frame lies between two wanted frames, so that seeking to it skips work. Without
        `seek` there is one group, from the first packet.
        """
        if not seek:
            return [(0, wanted)]
        order = np.argsort(self.pts, kind="stable")
        places = order[np.searchsorted(self.pts, wanted, sorter=order)]
        keys = np.flatnonzero(self.keys)
        groups: list[tuple[int, list[int]]] = []
        last = -1
        for pts, place in zip(wanted, places, strict=True):
            before = keys[(keys <= place) & (self.pts[keys] <= pts)]
            key = int(before[-1]) if len(before) else 0
            if groups and key <= last + 1:
                groups[-1][1].append(pts)
            else:
                groups.append((key, [pts]))
            last = int(place)
        return groups


def scan(source: Source, video: Opened, limits: Limits) -> Timeline:
    """Reads every packet once and decodes none. OutOfLimits; Undecodable when the file is cut off or has no frames."""
    packets = np.array(list(_packets(source, video, limits)), PACKET)
    if source.kind.name == "mpegts":
        packets = packets[:-1]  # a transport stream ends anywhere, in general inside a frame
    pts, keys, shown = packets["pts"], packets["key"], packets["shown"]
    if keys.any():  # a stream that was cut out of a longer one has packets before its first key frame
        first = keys.argmax()
        shown = shown & (np.arange(len(pts)) >= first) & (pts >= pts[first])
    last_duration = int(packets["duration"][shown][pts[shown].argmax()]) if shown.any() else 0
    timeline = Timeline(pts, keys, shown, max(last_duration, 0), video.stream.time_base)
    if source.cut:
        readable = round(timeline.duration, 2) if timeline.frames else 0.0
        raise Undecodable(f"the file is cut off: only {readable} s of it can be read", field="video", value=readable)
    if not timeline.frames:
        raise Undecodable("the video stream has no frames", field="video")
    at_most("duration", round(timeline.duration, 3), limits.max_seconds, " s")
    at_most("fps", round(timeline.fps, 3), limits.max_fps)
    return timeline


def packet_time(packet: Any) -> int | None:
    """When a packet is shown, in ticks; where the container knows no more, when it is decoded."""
    time: int | None = packet.dts if packet.pts is None else packet.pts
    return time


def _packets(source: Source, video: Opened, limits: Limits) -> Iterator[tuple[int, bool, bool, int]]:
    try:
        for number, packet in enumerate(video.container.demux(video.stream)):
            if number > limits.max_source_frames:
                message = f"the video has more than {limits.max_source_frames} frames"
                raise OutOfLimits(message, field="frames", value=number, limit=limits.max_source_frames)
            pts = packet_time(packet)
            if packet.size and pts is not None:
                whole = not (packet.is_discard or packet.is_corrupt)
                yield pts, packet.is_keyframe, whole, packet.duration or 0
    except av.FFmpegError:
        if not source.cut:
            raise Undecodable("the file is damaged: its frames cannot be listed", field="video") from None
