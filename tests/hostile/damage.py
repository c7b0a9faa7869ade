"""Files that are cut off, and files with changed bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from tests.clips import find_box, make_clip, patched, remuxed, with_index_first
from tests.hostile.case import BROKEN, NO_VIDEO, Case, either, refused

PARTS = (0.1, 0.5, 0.9, 0.99)
FLIPPED = 8  # files of each kind


@cache
def bases() -> dict[str, bytes]:
    """Small clips of every container and codec that is decoded, by name."""
    clips = {name: make_clip(seconds=0.5, container=name) for name in ("mp4", "mov", "matroska", "avi", "mpegts")}
    clips["webm"] = make_clip(seconds=0.5, container="webm", audio=True)
    clips["index first"] = with_index_first(clips["mp4"])
    clips["fragments"] = remuxed(clips["mp4"], "mp4", options={"movflags": "frag_every_frame+empty_moov"})
    for codec in ("libx265", "libvpx", "libsvtav1", "mpeg4"):
        clips[codec] = make_clip(seconds=0.3, container="matroska", codec=codec)
    return clips


def truncated() -> Iterator[Case]:
    """MPEG-TS and fragments may end anywhere, and a player would show them."""
    for name, data in bases().items():
        for part in PARTS:
            cut = data[: int(len(data) * part)]
            if name in ("mp4", "mov", "index first", "avi"):
                yield refused(f"{name} cut to {part:.0%}", cut, {BROKEN, NO_VIDEO})
            else:
                yield either(f"{name} cut to {part:.0%}", cut)
        for lost in (1, 5):
            yield either(f"{name} without its last {lost}", data[:-lost])
        for kept in (1, 8, 12, 100, 377):
            yield refused(f"{name} cut to {kept} bytes", data[:kept], {NO_VIDEO, BROKEN})


def flipped() -> Iterator[Case]:
    """Bits turned, runs of bytes replaced, moved and taken out; in headers more often than frames are long."""
    for place, (name, data) in enumerate(bases().items()):
        for number in range(FLIPPED):
            generator = np.random.default_rng([place, number])
            yield either(f"{name} damaged {number}", damaged(data, generator))
    mp4 = bases()["mp4"]
    start, end = find_box(mp4, b"moov")
    for number in range(24):
        generator = np.random.default_rng([100, number])
        at = int(generator.integers(start, end - 4))
        yield either(f"moov damaged {number}", patched(mp4, at, generator.bytes(int(generator.integers(1, 5)))))


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """One random change or a few. Most files get few, in the middle: so the damage is found late, deep in a decoder."""
    content = bytearray(data)
    for _ in range(min(int(generator.geometric(0.5)), 8)):
        at = int(generator.integers(len(content))) if generator.random() < 0.8 else _near_an_end(content, generator)
        length = min(2 ** int(generator.integers(0, 8)), len(content) - at)
        match int(generator.integers(6)):
            case 0:
                content[at] ^= 1 << int(generator.integers(8))
            case 1:
                content[at : at + length] = generator.bytes(length)
            case 2:
                content[at : at + length] = b"\xff" * length
            case 3:
                content[at : at + length] = bytes(length)
            case 4 if len(content) > 1000:
                del content[at : at + length]
            case _:
                source = int(generator.integers(len(content)))
                content[at:at] = content[source : source + length]
    return bytes(content)


def _near_an_end(content: bytearray, generator: np.random.Generator) -> int:
    """Headers and indexes are at the start and at the end."""
    at = int(generator.integers(min(600, len(content))))
    return at if generator.random() < 0.5 else len(content) - 1 - at
