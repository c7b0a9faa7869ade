"""Legitimate files that are unusual, and those that no decoder of ours is for: both decide what a refusal means."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from tests.clips import EXACT, MIRROR, make_clip, remuxed, silence, with_index_first, with_matrix
from tests.hostile.case import BROKEN, NO_VIDEO, Case, answered, refused

SHORT = 0.4  # seconds
SIZE = (112, 84)
OTHER_HARDWARE = ("_amf", "_nvenc", "_qsv", "_v4l2m2m", "_vaapi", "_vulkan", "_mf", "_videotoolbox", "_cuvid")
ALLOWED = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
FOREIGN_CONTAINERS = ("flv", "asf", "nut", "ogg", "mpeg", "vob", "ivf", "h264", "hevc", "m4v", "rm", "swf", "mxf", "dv")
OUR_CONTAINERS = ("matroska", "mov", "avi", "mpegts")


def oddities() -> Iterator[Case]:
    """To be answered, every one."""
    mp4 = make_clip(seconds=SHORT)
    for container in ("mp4", "mov", "matroska", "webm", "avi", "mpegts", "3gp", "3g2", "ipod", "f4v"):
        codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "3gp": "mpeg4", "3g2": "mpeg4", "ipod": "mpeg4"}.get(
            container, "libx264"
        )
        yield answered(f"container {container}", make_clip(seconds=SHORT, container=container, codec=codec))
    for codec in ("libx265", "libvpx", "libvpx-vp9", "mpeg4", "libsvtav1"):
        yield answered(f"codec {codec}", make_clip(seconds=SHORT, container="matroska", codec=codec))
    for pixels in ("yuv422p", "yuv444p", "yuvj420p", "gray", "yuv420p10le"):
        yield answered(f"pixels {pixels}", make_clip(seconds=SHORT, pixel_format=pixels))
    for degrees in (90, 180, 270):
        yield answered(f"rotated by {degrees}", make_clip(seconds=SHORT, rotation=degrees))
    yield answered("mirrored", with_matrix(mp4, MIRROR))
    for size in ((113, 85), (57, 31), (2, 300), (300, 2), (16, 16)):
        data = make_clip(seconds=SHORT, size=size, pixel_format="yuv444p")
        yield answered(f"size {size[0]}x{size[1]}", data)
    times = {
        "one frame": [0.0],
        "two frames": [0.0, 5.0],
        "a pause": [0.0, 0.1, 0.2, 30.0],
        "a burst": [0.0, 0.004, 0.008, 0.012, 1.0],
        "a late start": [3.0, 3.1, 3.2],
        "a slow clock": [0.0, 100.0, 300.0],
    }
    for name, shown in times.items():
        for container in ("mp4", "matroska"):
            yield answered(f"{name} in {container}", make_clip(times=shown, container=container))
    for aspect in (Fraction(4, 3), Fraction(1, 2)):
        yield answered(f"pixels of {aspect}", make_clip(seconds=SHORT, pixel_aspect=aspect))
    yield answered("with sound", make_clip(seconds=SHORT, audio=True))
    yield answered("240 frames per second", make_clip(seconds=SHORT, fps=240))
    yield answered("index first", with_index_first(mp4))
    for flags in ("frag_keyframe+empty_moov", "frag_every_frame+empty_moov+default_base_moof", "dash"):
        yield answered(f"fragments {flags}", remuxed(mp4, "mp4", options={"movflags": flags}))


def foreign() -> Iterator[Case]:
    """Every codec that PyAV can encode and we do not decode, and containers that we do not open."""
    for name in sorted(av.codecs_available):
        made = encoded(name)
        if made is not None:
            container, data = made
            yield refused(f"encoder {name} in {container}", data, {BROKEN, NO_VIDEO})
    mp4 = make_clip(seconds=SHORT)
    for container in FOREIGN_CONTAINERS:
        try:
            data = remuxed(mp4, container)
        except (av.FFmpegError, ValueError):  # not for H.264
            try:
                data = make_clip(seconds=SHORT, container=container, codec="mpeg4")
            except (av.FFmpegError, ValueError):
                continue
        yield refused(f"container {container}", data, {NO_VIDEO})


def encoded(name: str) -> tuple[str, bytes] | None:
    """(container, bytes) of three small frames by one encoder; None when it is none for this machine, or of a codec
    that is decoded."""
    if name.endswith(OTHER_HARDWARE):
        return None
    try:
        codec = av.codec.Codec(name, "w")
    except ValueError:  # only a decoder
        return None
    if codec.type != "video" or not codec.video_formats or codec.canonical_name in ALLOWED:
        return None
    for container in OUR_CONTAINERS:
        try:
            pixels = codec.video_formats[0].name
            data = make_clip(seconds=0.1, size=(176, 144), codec=name, container=container, pixel_format=pixels)
        except (av.FFmpegError, ValueError, OverflowError):
            continue
        return container, data
    return None


def without_frames() -> Iterator[Case]:
    """Sound alone, a cover alone, nothing alone; no colours that can be shown, and too many tracks."""
    for container in ("mp4", "mov", "matroska", "webm"):
        yield refused(f"sound alone in {container}", make_clip(container=container, audio="only"), {NO_VIDEO})
    yield refused("sound alone in mpegts", make_clip(container="mpegts", audio="only"), {NO_VIDEO, BROKEN})
    for container in ("mp4", "matroska", "avi", "mpegts"):
        data = make_clip(container=container, seconds=0)
        yield refused(f"no frame in {container}", data, {NO_VIDEO, BROKEN})
    for matrix in ("ycgco", "bt2020c", "ictcp"):
        data = make_clip(seconds=SHORT, options={"x264-params": f"colormatrix={matrix}"})
        yield refused(f"colours of {matrix}", data, {BROKEN})
    yield refused("a cover and sound", _cover(), {NO_VIDEO})
    for tracks in (33, 100):
        yield refused(f"{tracks} tracks", _tracks(tracks))


def _cover() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=EXACT) as out:
        sound, cover = out.add_stream("aac", rate=48_000), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").reformat(format="yuvj420p")
        picture.pts = 0
        out.mux(cover.encode(picture) + cover.encode(None))
        silence(out, sound, seconds=0.2)
    return file.getvalue()


def _tracks(number: int) -> bytes:
    """A film with `number` times the same track."""
    file = io.BytesIO()
    with av.open(io.BytesIO(make_clip(seconds=0.1, size=SIZE))) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        with av.open(file, "w", format="matroska", options=EXACT) as out:
            for stream in [out.add_stream_from_template(source.streams.video[0]) for _ in range(number)]:
                packets[0].stream = stream
                out.mux(packets[0])
    return file.getvalue()
