"""What a file claims about itself, checked before FFmpeg believes it.

FFmpeg allocates an index entry for every sample that an MP4 header *announces*: a file of 2 KB that announces ten
million of them takes 740 MB, without a frame decoded (seen with FFmpeg 8.1). And it plays what is left of a file that
lost its tail without a word. Both are visible in the outermost structure of the file, which this module reads itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from models.errors import NotAVideo, OutOfLimits

MAX_INDEX_BYTES = 32 * 2**20  # the headers of a ten-minute clip are under 2 MB, cover art included
MAX_BOXES = 200_000  # a fragment is a handful of boxes and holds at least one frame
RIFF_SLACK = 16  # writers disagree whether the size of a RIFF file counts its own header and padding


class Box(NamedTuple):
    """One outermost box of an MP4 file; its content is at [start, end)."""

    kind: bytes
    start: int
    end: int


def is_cut(file: BinaryIO, container: str) -> bool:
    """Whether the file ends before its own outermost element does, or before the index that an MP4 file needs.

    MPEG-TS has no outermost element, so it never is.
    """
    size = file.seek(0, os.SEEK_END)
    if container == "mp4":
        ends = {box.kind: box.end for box in boxes(file) if box.kind in {b"mdat", b"moov", b"moof"}}
        return max(ends.values(), default=0) > size or (b"mdat" in ends and b"moov" not in ends)
    file.seek(0)
    head = file.read(4096)
    if container in {"matroska", "webm"}:
        return (matroska_size(head) or 0) > size
    if container == "avi" and len(head) >= 12:
        return int.from_bytes(head[4:8], "little") + 8 > size + RIFF_SLACK
    return False


def check_samples(file: BinaryIO, max_samples: int) -> None:
    """OutOfLimits when the headers of an MP4 file announce more than `max_samples` samples, in all tracks together.

    The tables are searched for by name instead of by path: FFmpeg finds them in places where no standard puts them.
    """
    size = file.seek(0, os.SEEK_END)
    total = 0
    for box in boxes(file):
        if box.kind == b"mdat":
            continue
        length = min(box.end, size) - box.start
        if length > MAX_INDEX_BYTES:
            raise OutOfLimits(
                f"the header of the file has {length} bytes; at most {MAX_INDEX_BYTES} are read",
                field="header_bytes",
                value=length,
                limit=MAX_INDEX_BYTES,
            )
        file.seek(box.start)
        content = file.read(length)
        if b"cmov" in content:
            raise NotAVideo("the header of the file is compressed, which is not supported")
        total += box_samples(box.kind + content, size)
        if total > max_samples:
            raise OutOfLimits(
                f"the file announces {total} samples; at most {max_samples} are read",
                field="frames",
                value=total,
                limit=max_samples,
            )


def boxes(file: BinaryIO) -> Iterator[Box]:
    """The outermost boxes, ISO 14496-12 section 4.2. Ends quietly at what is no box."""
    size = file.seek(0, os.SEEK_END)
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(min(at, size))
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        start = at + 8
        if length == 1 and len(head) == 16:
            length, start = int.from_bytes(head[8:], "big"), at + 16
        elif length == 0:  # the last box, up to the end of the file
            length = size - at
        if at + length < start:
            return
        yield Box(kind, start, at + length)
        at += length
    raise OutOfLimits(f"the file has more than {MAX_BOXES} boxes", field="boxes", value=MAX_BOXES + 1, limit=MAX_BOXES)


def box_samples(content: bytes, file_size: int) -> int:
    """Samples announced in one outermost box by the tables `stsz`, `stz2` (a whole track) and `trun` (a fragment).

    PCM sound has one sample per 1/48000 s. FFmpeg reads it in chunks, without an entry per sample, so it is not
    counted, as long as its bytes can be in the file.
    """
    total = 0
    for track in content.split(b"trak"):
        pcm = _is_pcm(track)
        for each, count in (*_entries(track, b"stsz"), *_entries(track, b"stz2")):
            total += 0 if pcm and each * count <= file_size else count
    return total + sum(count for count, _ in _entries(content, b"trun"))


def _is_pcm(track: bytes) -> bool:
    """A sound track (QuickTime adds a second handler, of the data) whose one run of samples lasts one tick each."""
    handlers = {track[at + 12 : at + 16] for at in _places(track, b"hdlr")}
    runs = [(track[at + 8 : at + 12], track[at + 16 : at + 20]) for at in _places(track, b"stts")]
    one = b"\0\0\0\1"
    return b"soun" in handlers and handlers <= {b"soun", b"alis", b"url "} and runs == [(one, one)]


def _entries(content: bytes, kind: bytes) -> Iterator[tuple[int, int]]:
    """The two numbers after version and flags of every table `kind`; a number beyond the end is 0."""
    for at in _places(content, kind):
        first, second = struct.unpack(">II", content[at + 8 : at + 16].ljust(8, b"\0"))
        yield first, second


def _places(content: bytes, kind: bytes) -> Iterator[int]:
    at = content.find(kind)
    while at >= 0:
        yield at
        at = content.find(kind, at + len(kind))


def matroska_size(head: bytes) -> int | None:
    """Where the Segment of a Matroska file ends, in bytes (RFC 8794 for the numbers, RFC 9559 for the identifiers).

    None when it says "unknown", as live recordings do, or when `head` does not reach so far.
    """
    at = 0
    while 0 <= at < len(head) - 12:
        identifier = head[at : at + 4]
        length = 9 - head[at + 4].bit_length()
        number = int.from_bytes(head[at + 4 : at + 4 + length], "big")
        largest = (1 << 7 * length) - 1
        value = number & largest
        end = at + 4 + length + value
        if identifier == b"\x18\x53\x80\x67":
            return None if value == largest else end
        at = end
    return None
