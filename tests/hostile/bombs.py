"""Small files that ask for much: frames of a giant size, counts and lengths without end, boxes in boxes, clocks beyond
reason, and names of other files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import av

from tests.clips import EXACT, find_box, make_clip, patched, remuxed
from tests.hostile.case import BEYOND, BROKEN, NO_VIDEO, Case, either, refused

STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
TIMES = (0, 1, 2**31 - 1, 2**32 - 1)
COUNTS = (10**7, 2**31 - 1, 2**31, 2**32 - 1)


def bombs() -> Iterator[Case]:
    mp4 = make_clip(seconds=0.4)
    yield from _sizes(mp4)
    yield from _counts(mp4)
    yield from _boxes(mp4)
    yield from _elements()
    yield refused("frames of 8K in a few KB", _giant("libx264"), {BEYOND})
    yield refused("frames of 8K, mpeg4", _giant("mpeg4"), {BEYOND, BROKEN})
    yield refused("frames of 8K in small claims", _claiming(_giant("libx264"), 112, 84), {BEYOND, BROKEN})
    yield refused("40,000 frames of a few bytes", _many(40_000), {BEYOND})


def clocks() -> Iterator[Case]:
    """Packets whose times jump, fall, repeat or lie at the ends of what fits; and too long, too fast."""
    data = make_clip(seconds=0.4, options={"bf": "0"})
    orders: dict[str, Callable[[int], int]] = {
        "all equal": lambda number: 0,
        "falling": lambda number: 1000 - number,
        "negative": lambda number: number - 2**31,
        "huge": lambda number: 2**40 + number,
        "far beyond": lambda number: 2**61 + number * 2**55,
        "a leap": lambda number: number + (2**33 if number > 5 else 0),
        "zigzag": lambda number: number ^ 7,
        "no progress": lambda number: number // 4,
    }
    for name, order in orders.items():
        for container in ("matroska", "mp4", "mpegts", "avi"):
            made = _retimed(data, container, order)
            if made is not None:
                yield either(f"times {name} in {container}", made)
    yield refused("an hour between two frames", make_clip(times=[0, 3600]), {BEYOND})
    yield refused("a thousand frames per second", make_clip(times=[i / 1000 for i in range(30)]), {BEYOND})
    for box, at in ((b"mvhd", 12), (b"mdhd", 12)):
        path = (b"moov", box) if box == b"mvhd" else (b"moov", b"trak", b"mdia", box)
        for scale in TIMES:
            yield either(f"{box.decode()} scale {scale}", patched(data, find_box(data, *path)[0] + at, _u32(scale)))
            yield either(f"{box.decode()} long {scale}", patched(data, find_box(data, *path)[0] + at + 4, _u32(scale)))


def references() -> Iterator[Case]:
    """Names of other files where a container may hold them."""
    mp4 = make_clip(seconds=0.4)
    dref = find_box(mp4, b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")[0]
    for name, kind in {"url": b"url ", "urn": b"urn ", "alis": b"alis", "rsrc": b"rsrc", "cios": b"cios"}.items():
        # The flag "the frames are in this file" is taken back.
        yield either(f"dref {name}", patched(mp4, dref + 12, kind + bytes(4)))
    for target in (b"/etc/passwd", b"http://127.0.0.1:9/x.mov"):
        rdrf = _box(b"rdrf", bytes(4) + b"url " + _u32(len(target) + 1) + target + b"\0")
        movie = _box(b"moov", _box(b"rmra", _box(b"rmda", rdrf)))
        yield refused(
            f"reference movie to {len(target)}", _box(b"ftyp", b"qt  " + bytes(4)) + movie, {NO_VIDEO, BROKEN}
        )
    compressed = _box(b"cmov", _box(b"dcom", b"zlib") + _box(b"cmvd", _u32(2**31) + b"\x78\x9c" + bytes(100)))
    yield refused("compressed header", _box(b"ftyp", b"qt  " + bytes(4)) + _box(b"moov", compressed), {NO_VIDEO})
    matroska = make_clip(seconds=0.4, container="matroska")
    names = b"\x3c\xb9\x23\x90/etc/passwd\0\0\0\0\0"  # PrevUID and a file name beside it
    yield either("matroska with a previous file", matroska + names)


def _sizes(mp4: bytes) -> Iterator[Case]:
    for width, height in ((65535, 65535), (20_000, 20_000), (4097, 100), (100, 65535), (32767, 1)):
        yield refused(f"claims {width}x{height}", _claiming(mp4, width, height))
    for width, height in ((0, 0), (1, 1), (0, 84), (4096, 2304)):
        yield either(f"claims {width}x{height}", _claiming(mp4, width, height))
    tkhd = find_box(mp4, b"moov", b"trak", b"tkhd")[0]
    for matrix in ((0, 0, 0, 0, 0, 0), (2**31 - 1,) * 6, (1, 1, 1, 1, 1, 1), (-(2**31),) * 6):
        yield either(f"matrix of {matrix[0]}", patched(mp4, tkhd + 40, struct.pack(">6i", *matrix)))


def _counts(mp4: bytes) -> Iterator[Case]:
    fragments = remuxed(mp4, "mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    for count in COUNTS:
        at = find_box(mp4, *STBL, b"stsz")[0]
        yield refused(f"stsz of {count}", patched(mp4, at + 4, struct.pack(">II", 1, count)), {BEYOND})
        yield refused(f"trun of {count}", patched(fragments, fragments.index(b"trun") + 8, _u32(count)), {BEYOND})
        for table in (b"stts", b"stsc", b"stco", b"stss", b"ctts"):
            place = mp4.find(table, find_box(mp4, *STBL)[0])
            if place > 0:
                yield either(f"{table.decode()} of {count}", patched(mp4, place + 8, _u32(count)))
        stts = find_box(mp4, *STBL, b"stts")[0]
        yield either(f"stts run of {count}", patched(mp4, stts + 8, _u32(count)))
        elst = find_box(mp4, b"moov", b"trak", b"edts", b"elst")[0]
        yield either(f"elst of {count}", patched(mp4, elst + 4, _u32(count)))


def _boxes(mp4: bytes) -> Iterator[Case]:
    head = mp4[: find_box(mp4, b"ftyp")[1]]
    for kind in (b"moov", b"free", b"mdat", b"trak", b"meta", b"udta"):
        for depth in (100, 10_000):
            yield refused(f"{kind.decode()} in itself {depth} times", head + _nested(kind, depth), {NO_VIDEO, BROKEN})
    yield refused("200,001 boxes", head + _box(b"free", b"") * 200_001, {BEYOND})
    yield refused("a header of 40 MB", head + _box(b"moov", bytes(40 * 2**20)), {BEYOND})
    for length in (0, 1, 7, 8, 2**31, 2**32 - 1):
        yield refused(f"moov of length {length}", head + _u32(length) + b"moov" + mp4[-200:], {NO_VIDEO, BROKEN})
    for length in (0, 8, 2**63 - 1, 2**63, 2**64 - 1):
        large = _u32(1) + b"moov" + struct.pack(">Q", length) + bytes(64)
        yield refused(f"moov of long length {length}", head + large, {NO_VIDEO, BROKEN})
    yield either("brand without end", patched(mp4, 0, _u32(2**31)))


def _elements() -> Iterator[Case]:
    """Matroska, AVI and MPEG-TS."""
    matroska = make_clip(seconds=0.4, container="matroska")
    segment = matroska.index(b"\x18\x53\x80\x67")
    for name, size in {"unknown": b"\x01" + b"\xff" * 7, "zero": b"\x01" + bytes(7), "most": b"\x01\x7f" * 4}.items():
        yield either(f"segment of {name} length", patched(matroska, segment + 4, size))
    start = matroska[:segment] + b"\x18\x53\x80\x67\x01" + b"\xff" * 7
    for depth in (50, 5000):
        yield refused(
            f"{depth} clusters in each other", start + b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff" * depth
        )
        yield refused(
            f"{depth} tags in each other", start + b"\x12\x54\xc3\x67\x01\xff\xff\xff\xff\xff\xff\xff" * depth
        )
    yield refused("a void of an exabyte", start + b"\xec\x08" + b"\x7f" * 7 + bytes(100))
    avi = make_clip(seconds=0.4, container="avi")
    for tag in (b"hdrl", b"strl", b"movi"):
        for length in (0, 2**31 - 1, 2**32 - 1):
            yield either(f"{tag.decode()} of {length}", patched(avi, avi.index(tag) - 4, struct.pack("<I", length)))
    yield either("lists in each other", avi[:12] + b"LIST\xff\xff\xff\x7fhdrl" * 5000)
    strf = avi.index(b"strf") + 8
    yield either("avi of 65535x65535", patched(avi, strf + 4, struct.pack("<ii", 65535, 65535)))
    yield either("avi of negative height", patched(avi, strf + 8, struct.pack("<i", -84)))
    stream = make_clip(seconds=0.4, container="mpegts")
    yield either(
        "packets in another order", b"".join(sorted(stream[at : at + 188] for at in range(0, len(stream), 188)))
    )
    yield refused("10,000 empty packets", (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 10_000, {NO_VIDEO, BROKEN})
    yield refused("10,000 program tables", stream[188:376] * 10_000, {NO_VIDEO, BROKEN})


def _giant(codec: str) -> bytes:
    options = {"preset": "ultrafast", "threads": "1"} if codec == "libx264" else {}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=EXACT) as out:
        stream = out.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def _many(frames: int) -> bytes:
    """One packet, over and over."""
    file = io.BytesIO()
    with av.open(io.BytesIO(make_clip(seconds=0.1, size=(16, 16), codec="mpeg4"))) as source:
        packet = next(packet for packet in source.demux(video=0) if packet.size)
        with av.open(file, "w", format="matroska", options=EXACT) as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            packet.stream = stream
            tick = packet.time_base
            for number in range(frames):
                packet.pts = packet.dts = int(number / 80 / tick)
                packet.time_base = tick
                out.mux(packet)
    return file.getvalue()


def _retimed(data: bytes, container: str, order: Callable[[int], int]) -> bytes | None:
    """The packets with other times of presentation, or of decoding too; None where the writer takes neither."""
    for both in (False, True):
        try:
            return _timed(data, container, order, both)
        except (av.FFmpegError, OverflowError):
            continue
    return None


def _timed(data: bytes, container: str, order: Callable[[int], int], both: bool) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container, options=EXACT) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream = stream
            packet.pts = order(number)
            packet.dts = packet.pts if both else number
            out.mux(packet)
    return file.getvalue()


def _claiming(mp4: bytes, width: int, height: int) -> bytes:
    """Another frame size in the header than in the frames."""
    at = mp4.index(b"avc1", find_box(mp4, *STBL, b"stsd")[0])
    return patched(mp4, at + 28, struct.pack(">HH", width, height))


def _nested(kind: bytes, depth: int) -> bytes:
    return b"".join(struct.pack(">I4s", 8 * (depth - level), kind) for level in range(depth))


def _box(kind: bytes, content: bytes) -> bytes:
    return _u32(len(content) + 8) + kind + content


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)
