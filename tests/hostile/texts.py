"""What is no video at all: playlists that name other files and addresses, pages, archives, programs, pictures, sound,
and two things in one."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import wave
import zipfile
from collections.abc import Iterator

from tests.clips import find_box, make_clip, patched
from tests.hostile.case import NO_VIDEO, Case, answered, either, refused

TARGETS = ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/latest/meta-data", "concat:/etc/passwd|/etc/group")
PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "m3u8 key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:1,\nx.ts\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile '{}'\nduration 5\n",
    "concat": "file '{}'\n",
    "dash": '<?xml version="1.0"?><MPD><Period><AdaptationSet><BaseURL>{}</BaseURL></AdaptationSet></Period></MPD>',
    "smooth": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{}"/></SmoothStreamingMedia>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:{}\nm=video 9 RTP/AVP 96\n",
    "pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "xspf": '<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{}</location></track></trackList></playlist>',
    "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "smil": '<smil><body><video src="{}"/></body></smil>',
    "reference movie": "\0\0\0\x14ftypqt  \n#EXTM3U\n#EXTINF:10,\n{}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{}"/></svg>',
    "html": "<html><video src='{}'></video></html>",
    "entity": '<!DOCTYPE x [<!ENTITY e SYSTEM "{}">]><x>&e;</x>',
}
TEXTS = {
    "srt": b"1\n00:00:00,000 --> 00:00:01,000\n<font face='/etc/passwd'>x</font>\n",
    "ass": b"[Script Info]\n[Events]\nDialogue: 0,0:00:00.00,0:00:05.00,Default,,0,0,0,,x\n",
    "vtt": b"WEBVTT\n\n00:00.000 --> 00:01.000\nx\n",
    "ffmetadata": b";FFMETADATA1\ntitle=x\n",
    "json": b'{"video": {"url": "file:///etc/passwd"}}',
    "csv": b"a,b\n1,=cmd|' /C calc'!A0\n",
    "script": b"#!/bin/sh\nrm -rf /\n",
    "python": b"import os\nos.system('id')\n",
    "text": b"hello, world\n" * 100,
    "utf-16": "video".encode("utf-16"),
    "pickle": b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    "url": b"https://example.com/clip.mp4",
    "path": b"/proc/self/environ",
}
MAGIC = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(64),
    "gif": b"GIF89a\xff\xff\xff\xff" + bytes(64),
    "bmp": b"BM" + b"\xff" * 64,
    "webp": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(64),
    "tiff": b"II*\0" + b"\xff" * 64,
    "ico": b"\0\0\1\0\1\0" + bytes(64),
    "elf": b"\x7fELF\2\1\1" + bytes(200),
    "pe": b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0" + bytes(100),
    "java": b"\xca\xfe\xba\xbe" + bytes(64),
    "wasm": b"\0asm\1\0\0\0" + bytes(64),
    "pdf": b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n",
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(64),
    "rar": b"Rar!\x1a\7\1\0" + bytes(64),
    "xz": b"\xfd7zXZ\0" + bytes(64),
    "sqlite": b"SQLite format 3\0" + bytes(84),
    "flac": b"fLaC" + bytes(64),
    "ogg": b"OggS" + bytes(64),
    "mp3": b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" * 50,
    "midi": b"MThd\0\0\0\6" + bytes(64),
    "flv": b"FLV\1\5\0\0\0\x09" + bytes(64),
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(64),
    "rtsp": b"RTSP/1.0 200 OK\r\n\r\n",
    "y4m": b"YUV4MPEG2 W9999 H9999 F1:1\nFRAME\n" + bytes(64),
    "ivf": b"DKIF\0\0\x20\0VP90" + b"\xff" * 32,
    "exr": b"v/1\1" + bytes(64),
    "psd": b"8BPS\0\1" + b"\xff" * 32,
}


def texts() -> Iterator[Case]:
    """All refused as no video, the smallest files too."""
    for name, form in PLAYLISTS.items():
        for number, target in enumerate(TARGETS):
            yield refused(f"playlist {name} {number}", form.format(target).encode(), {NO_VIDEO})
    for name, text in (TEXTS | MAGIC).items():
        yield refused(f"content {name}", text, {NO_VIDEO})
    for name, data in {"zip": _zip(), "gzip": gzip.compress(bytes(10**6), mtime=0), "tar": _tar()}.items():
        yield refused(f"content {name}", data, {NO_VIDEO})
    yield refused("content wav", _wav(), {NO_VIDEO})
    for size in (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 188, 377, 400, 4096):
        yield refused(f"{size} zeros", bytes(size), {NO_VIDEO})
        if size:
            yield refused(f"{size} ones", b"\xff" * size, {NO_VIDEO})


def polyglots() -> Iterator[Case]:
    """Two kinds of file in one: only what a viewer's player would show counts."""
    mp4 = make_clip(seconds=0.4)
    yield answered("mp4, then zip", mp4 + _zip())
    yield answered("mp4, then html", mp4 + b"\0\0\0\x30free<script>alert(document.domain)</script>".ljust(48))
    yield answered("mp4, then zeros", mp4 + bytes(1000))
    yield either("mp4 twice", mp4 + mp4)
    ftyp = find_box(mp4, b"ftyp")[1]
    page = b"<html><script>alert(1)</script></html>"
    yield answered("html in a free box", _with_room(mp4, ftyp, page))
    for name, front in {"pdf": b"%PDF-1.7\n", "gif": b"GIF89a", "html": b"<html>", "newline": b"\n"}.items():
        yield refused(f"{name}, then mp4", front + mp4, {NO_VIDEO})
    for container in ("matroska", "webm", "avi", "mpegts"):
        other = make_clip(seconds=0.4, container=container)
        yield either(f"{container}, then mp4", other + mp4)
        yield refused(f"zip, then {container}", _zip() + other, {NO_VIDEO})
        yield either(f"head of mp4 on {container}", mp4[:32] + other[32:])
        yield either(f"head of {container} on mp4", other[:32] + mp4[32:])


def _with_room(mp4: bytes, at: int, content: bytes) -> bytes:
    """A free box put in; chunk offsets of the one track moved by its size (32 bits)."""
    box = struct.pack(">I4s", len(content) + 8, b"free") + content
    start, end = find_box(mp4, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco")
    count = (end - start - 8) // 4
    offsets = [offset + len(box) for offset in struct.unpack_from(f">{count}I", mp4, start + 8)]
    moved = patched(mp4, start + 8, struct.pack(f">{count}I", *offsets))
    return moved[:at] + box + moved[at:]


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            zipfile.ZipInfo("../../etc/cron.d/x", (2020, 1, 1, 0, 0, 0)), bytes(10**6), zipfile.ZIP_DEFLATED
        )
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("x")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def _wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(4000))
    return file.getvalue()
