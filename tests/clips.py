"""Small real videos, encoded when a test asks for them.

The default drawing shows a white square on grey; the cell it stands in is the number of 1/30 s since the start, so that
`time_of` tells from the pixels of a frame when it was shown, whatever codec and size the frame went through.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from einops import reduce

Draw = Callable[[float], np.ndarray]

CODECS = {
    "mp4": "libx264",
    "mov": "libx264",
    "matroska": "libx264",
    "webm": "libvpx-vp9",
    "avi": "mpeg4",
    "mpegts": "libx264",
}
ENCODERS = {  # quality that keeps the square sharp, speed, and no chatter
    # without mbtree, whose assembly makes other bytes of the same 16x16 frames in one run of twenty
    "libx264": {"crf": "12", "preset": "veryfast", "mbtree": "0"},
    "libx265": {"crf": "12", "preset": "veryfast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "-8"},  # 8 would adapt to how busy the machine is
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"qmin": "2", "qmax": "4"},
}
EXACT = {"fflags": "+bitexact"}  # the same bytes on every run: no random identifiers, no dates
COLUMNS, ROWS = 16, 12
CELLS_PER_SECOND = 30  # 192 cells: 6.4 s
CLOCK = Fraction(1, 90_000)
# ISO 14496-12, 8.3.2: a, b, u, c, d, v of the matrix that turns the picture clockwise for display.
MATRICES = {90: (0, 1, 0, -1, 0, 0), 180: (-1, 0, 0, 0, -1, 0), 270: (0, -1, 0, 1, 0, 0)}
MIRROR = (-1, 0, 0, 0, 1, 0)


def square(size: tuple[int, int]) -> Draw:
    """The default drawing for frames of `size` (width, height)."""
    width, height = size

    def draw(time: float) -> np.ndarray:
        row, column = divmod(round(time * CELLS_PER_SECOND) % (COLUMNS * ROWS), COLUMNS)
        image = np.full((height, width, 3), 60, np.uint8)
        top, bottom = (height * edge // ROWS for edge in (row, row + 1))
        left, right = (width * edge // COLUMNS for edge in (column, column + 1))
        image[top:bottom, left:right] = 235
        return image

    return draw


def time_of(frame: np.ndarray) -> float:
    """Seconds, a multiple of 1/30, that the default drawing shows. `frame` uint8 [H, W, 3], at least 16x12."""
    height, width, _ = frame.shape
    across = np.arange(COLUMNS * 16) * width // (COLUMNS * 16)
    down = np.arange(ROWS * 16) * height // (ROWS * 16)
    cells = reduce(frame[down][:, across].astype(float), "(r h) (c w) rgb -> (r c)", "mean", r=ROWS, c=COLUMNS)
    return int(cells.argmax()) / CELLS_PER_SECOND


def times_of(frames: np.ndarray) -> np.ndarray:
    """float64 [F] of uint8 [F, H, W, 3]."""
    return np.array([time_of(frame) for frame in frames])


def make_clip(
    path: str | PathLike[str] | None = None,
    *,
    seconds: float = 2.0,
    fps: int = 30,
    size: tuple[int, int] = (112, 84),
    codec: str | None = None,
    container: str = "mp4",
    times: Sequence[float] | None = None,
    draw: Draw | None = None,
    audio: bool | Literal["only"] = False,
    rotation: int = 0,
    gop: int = 12,
    pixel_format: str = "yuv420p",
    colour: tuple[int, int] | None = None,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a video, written to `path` as well when it is given.

    `times`: seconds at which frames are shown (variable frame rate), in place of `seconds` and `fps`. `size`: (width,
    height), even. `draw`: seconds to uint8 [height, width, 3] RGB. `rotation`: degrees clockwise, as metadata (MP4
    only). `gop`: frames from key frame to key frame. `colour`: AVColorSpace and AVColorRange to encode in and to write
    down; None: FFmpeg's BT.601 without a mark. `pixel_aspect`: width over height of a pixel. 112x84 is a size that no
    sampling changes.
    """
    codec = codec or CODECS[container]
    file = io.BytesIO()
    with _scheduled_as_before(), av.open(file, "w", format=container, options=EXACT) as out:
        if audio != "only":
            video = out.add_stream(codec, rate=fps, options={"g": str(gop)} | ENCODERS.get(codec, {}) | (options or {}))
            video.width, video.height = size
            video.pix_fmt = pixel_format
            if times is not None:
                video.codec_context.time_base = CLOCK
            if pixel_aspect is not None:
                video.codec_context.sample_aspect_ratio = pixel_aspect
            if colour is not None:
                video.codec_context.colorspace, video.codec_context.color_range = colour
        if audio:
            sound = out.add_stream("libopus" if container == "webm" else "aac", rate=48_000)
        if audio != "only":
            shown = times if times is not None else [i / fps for i in range(round(seconds * fps))]
            _encode(out, video, shown, draw or square(size), colour, CLOCK if times is not None else Fraction(1, fps))
        if audio:
            silence(out, sound, seconds)
    data = file.getvalue()
    if rotation:
        data = with_matrix(data, MATRICES[rotation])
    if path is not None:
        Path(path).write_bytes(data)
    return data


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """SVT-AV1, run as root, makes a real-time thread of the one that calls it (SCHED_FIFO, priority 99), and every
    process that this one starts later inherits it: browsers and replicas then let nothing else run."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def _encode(
    out: Any, stream: Any, times: Sequence[float], draw: Draw, colour: tuple[int, int] | None, clock: Fraction
) -> None:
    space = {} if colour is None else {"dst_colorspace": colour[0], "dst_color_range": colour[1]}
    for time in times:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(time)), format="rgb24")
        frame = frame.reformat(format=stream.pix_fmt, **space)
        frame.pts, frame.time_base = round(Fraction(time) / clock), clock
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def silence(out: Any, stream: Any, seconds: float) -> None:
    """Encodes stereo at 48 kHz into an open container."""
    for start in range(0, round(seconds * 48_000), 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def remuxed(data: bytes, container: str, *, first: int = 0, options: dict[str, str] | None = None) -> bytes:
    """The packets of the video stream from number `first` on, as they are, in another container."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(file, "w", format=container, options=EXACT | (options or {})) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][first:]:
            packet.stream = stream
            out.mux(packet)
    return file.getvalue()


def find_box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Where the content of the first MP4 box at `path` starts and ends."""
    start, end = 0, len(data)
    for kind in path:
        while data[start + 4 : start + 8] != kind:
            start += struct.unpack_from(">I", data, start)[0]
            assert start < end, f"no box {kind!r}"
        end = start + struct.unpack_from(">I", data, start)[0]
        start += 8
    return start, end


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def with_matrix(mp4: bytes, matrix: tuple[int, ...]) -> bytes:
    """Replaces the display matrix of the first track (tkhd version 0)."""
    at = find_box(mp4, b"moov", b"trak", b"tkhd")[0] + 40
    return patched(mp4, at, struct.pack(">6i", *(number << 16 for number in matrix)))


def with_index_first(mp4: bytes) -> bytes:
    """Moves the `moov` box to just before the frames, as for the web (one track, 32-bit offsets)."""
    (moov, end), (frames, _) = find_box(mp4, b"moov"), find_box(mp4, b"mdat")
    box = mp4[moov - 8 : end]
    at, stop = find_box(mp4, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco")
    offsets = [number + len(box) for number in struct.unpack(f">{(stop - at - 8) // 4}I", mp4[at + 8 : stop])]
    box = patched(box, at + 8 - (moov - 8), struct.pack(f">{len(offsets)}I", *offsets))
    return mp4[: frames - 8] + box + mp4[frames - 8 : moov - 8] + mp4[end:]
