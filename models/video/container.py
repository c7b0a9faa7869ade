"""From bytes to an opened video stream, within limits and without decoding a frame."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import av
from av.stream import Discard, Disposition

from models.errors import NotAVideo, OutOfLimits, Undecodable
from models.video.claims import check_samples, is_cut

VideoSource = bytes | str | os.PathLike[str] | BinaryIO

CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
SAMPLES_PER_FRAME = 10  # sound, subtitles and a phone's sensor tracks beside the frames, when samples are counted
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

# No decoder may run before the limits are checked (FFmpeg decodes a few frames to look at a stream otherwise), nothing
# inside a file may open another file, and no protocol may be used.
OPTIONS = {"codec_whitelist": "none", "protocol_whitelist": "none", "enable_drefs": "0", "use_absolute_path": "0"}


@dataclass(frozen=True)
class Limits:
    """What a video may have; beyond it is OutOfLimits. Sizes in pixels, of the source."""

    max_bytes: int = 200 * 2**20  # ten minutes at 2.7 Mbit/s; an upload of that size takes seconds
    max_seconds: float = 600.0  # 32 frames of a longer clip lie 19 s and more apart: no motion is left in them
    max_side: int = 4096  # DCI 4K
    max_pixels: int = 4096 * 2304  # one 4K frame is 14 MB decoded, and a decoder holds up to 20 of them
    max_fps: float = 250.0  # the slow motion of phones is 240, which a clock in milliseconds rounds to 250
    max_streams: int = 32  # a film with sound and subtitles in many languages
    max_source_frames: int = 36_000  # max_seconds at 60 frames per second; every packet is read once
    max_frames: int = 256  # sampled: at 230,400 px they are 177 MB, and 37,600 video tokens


class Kind(NamedTuple):
    """A container: our name and FFmpeg's; whether it has an index to seek by; whether it stores presentation times.

    AVI stores none: the k-th frame that comes out of the decoder is the k-th frame.
    """

    name: str
    format: str
    indexed: bool
    timed: bool


@dataclass(frozen=True)
class Source:
    """A file that passed the checks of its outside. `cut`: it ends before it says it does."""

    file: BinaryIO
    kind: Kind
    cut: bool


@dataclass(frozen=True)
class Opened:
    """PyAV's container and the video stream in it whose frames are wanted."""

    container: Any
    stream: Any

    @property
    def codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)


def sniff(head: bytes) -> Kind:
    """The container of a file that starts with `head` (at least 400 bytes of it). NotAVideo when it is none of ours."""
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}:
        return Kind("mp4", "mov", True, True)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return Kind("webm" if b"webm" in head[:64] else "matroska", "matroska", True, True)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return Kind("avi", "avi", False, False)
    if head[0:1] == head[188:189] == head[376:377] == b"\x47":
        return Kind("mpegts", "mpegts", False, True)
    raise NotAVideo("the file is not a video that is understood here: MP4, QuickTime, WebM, Matroska, AVI or MPEG-TS")


@contextmanager
def checked(source: VideoSource, limits: Limits) -> Iterator[Source]:
    """The file behind `source`, after every check that needs no FFmpeg. A file object must seek; it stays open."""
    with _binary(source) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise NotAVideo("the file is empty")
        at_most("bytes", size, limits.max_bytes)
        file.seek(0)
        kind = sniff(file.read(400))
        if kind.name == "mp4":
            check_samples(file, SAMPLES_PER_FRAME * limits.max_source_frames)
        yield Source(file, kind, is_cut(file, kind.name))


@contextmanager
def opened(source: Source, limits: Limits, threads: int) -> Iterator[Opened]:
    """Opens from the start. NotAVideo, Undecodable or OutOfLimits when the stream may not be decoded.

    FFmpeg's log stays off, as PyAV leaves it: it holds text from the file.
    """
    source.file.seek(0)
    try:
        container = av.open(
            Reader(source.file),
            mode="r",
            format=source.kind.format,
            options=OPTIONS,
            metadata_errors="replace",
            buffer_size=2**17,
            io_open=_no_other_file,
        )
    except av.FFmpegError:
        if source.cut:
            raise Undecodable("the file is cut off: nothing of it can be read", field="video") from None
        raise NotAVideo(f"the file starts like {source.kind.name} but cannot be opened as such") from None
    with container:
        at_most("streams", len(container.streams), limits.max_streams)
        video = Opened(container, _video_stream(container))
        _prepare(video, limits, threads)
        yield video


def check_size(width: int, height: int, limits: Limits) -> None:
    """Called with what the header claims, before decoding, and with what the first frame has."""
    at_most("width", width, limits.max_side, " px")
    at_most("height", height, limits.max_side, " px")
    at_most("pixels", width * height, limits.max_pixels)


def at_most(field: str, value: float, limit: float, unit: str = "") -> None:
    if value > limit:
        message = f"{field} of the video: {value}{unit}; the limit is {limit}{unit}"
        raise OutOfLimits(message, field=field, value=value, limit=limit)


class Reader:
    """All that FFmpeg gets of a file: no name, no descriptor, no way to write."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _binary(source: VideoSource) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).open("rb")
    return nullcontext(source)


def _video_stream(container: Any) -> Any:
    """The first video stream that is no picture (a cover, a thumbnail), one marked as default before others."""
    videos = [stream for stream in container.streams.video if not stream.disposition & PICTURES]
    if not videos:
        raise NotAVideo("the file has no video stream")
    return max(videos, key=lambda stream: bool(stream.disposition & Disposition.default))


def _prepare(video: Opened, limits: Limits, threads: int) -> None:
    context = video.stream.codec_context
    codec = video.codec if context is not None else "unknown"
    if codec not in CODECS:
        allowed = ", ".join(sorted(CODECS))
        raise Undecodable(
            f"the video's codec is {codec}; {allowed} are decoded", field="codec", value=codec, limit=allowed
        )
    check_size(context.width, context.height, limits)
    for stream in video.container.streams:
        stream.discard = Discard.default if stream is video.stream else Discard.all
    # A header may lie about the size: the decoder itself refuses what is larger, before it allocates. It counts whole
    # blocks of up to 128 px.
    context.options = {"max_pixels": str(limits.max_pixels * 3 // 2 + 2**16)}
    context.thread_type = "FRAME"
    context.thread_count = threads


def _no_other_file(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a video may not open another file")
