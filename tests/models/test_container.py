"""What is refused, and that it is refused before a frame is decoded.

Where a test says "before decoding", the frames' bytes are zeroed: a decoder would have failed with Undecodable.
"""

from __future__ import annotations

import io
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from models.errors import InputError, NotAVideo, OutOfLimits, Undecodable
from models.video import Limits, Sampling, probe, read
from tests.clips import find_box, make_clip, patched, remuxed, silence, times_of, with_index_first

TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def zeroed(mp4: bytes) -> bytes:
    """The same file with every byte of its frames zero."""
    start, end = find_box(mp4, b"mdat")
    return patched(mp4, start, bytes(end - start))


def claiming(mp4: bytes, width: int, height: int) -> bytes:
    """Another frame size in the header than in the frames."""
    at = mp4.index(b"avc1", find_box(mp4, *TABLES, b"stsd")[0])
    return patched(mp4, at + 28, struct.pack(">HH", width, height))


def test_zeroed_frames_do_not_decode() -> None:
    with pytest.raises(Undecodable):
        probe(zeroed(make_clip()))


@pytest.mark.parametrize(
    ("field", "limits", "value"),
    [
        ("bytes", Limits(max_bytes=1000), None),
        ("width", Limits(max_side=111), 112),
        ("pixels", Limits(max_pixels=112 * 84 - 1), 112 * 84),
        ("duration", Limits(max_seconds=1.9), 2.0),
        ("fps", Limits(max_fps=29), 30.0),
        ("frames", Limits(max_source_frames=59), 60),
        ("streams", Limits(max_streams=1), 2),
    ],
)
def test_each_limit_is_enforced_before_decoding(field: str, limits: Limits, value: float | None) -> None:
    data = zeroed(make_clip(audio=True))
    for refuse in (probe, lambda data, limits: read(data, Sampling(), limits)):
        with pytest.raises(OutOfLimits) as refusal:
            refuse(data, limits)
        limit = refusal.value.limit
        assert refusal.value.field == field
        assert refusal.value.value == (len(data) if value is None else value)
        assert str(limit) in str(refusal.value)


def test_a_video_at_its_limits_is_served() -> None:
    data = make_clip(audio=True)
    exact = Limits(len(data), 2.0, 112, 112 * 84, 30, 2, 60, 60)
    assert read(data, Sampling(60), exact).facts.frames == 60


def test_a_header_that_claims_a_giant_frame_is_refused() -> None:
    with pytest.raises(OutOfLimits, match=r"width.*20000 px.*4096 px"):
        read(claiming(make_clip(), 20_000, 20_000))


def test_a_header_that_claims_small_frames_does_not_get_large_ones_decoded() -> None:
    data = claiming(make_clip(size=(640, 480), seconds=0.2), 112, 84)
    assert read(data, Sampling(2)).facts.width == 640
    with pytest.raises(Undecodable, match=r"at 0\.0 s"):  # the decoder's own check, before it allocates
        read(data, Sampling(2), Limits(max_pixels=4 * 112 * 84))
    with pytest.raises(OutOfLimits, match=r"width.*640 px"):
        read(data, Sampling(2), Limits(max_side=300))


@pytest.mark.parametrize("table", [b"stsz", b"trun"])
def test_an_index_larger_than_the_file_is_refused_before_it_is_built(table: bytes) -> None:
    """FFmpeg would take 74 bytes of memory per claimed sample: 3.7 GB here."""
    if table == b"stsz":
        data = make_clip()
        at = find_box(data, *TABLES, b"stsz")[0]
        bomb = patched(data, at + 4, struct.pack(">II", 1, 50_000_000))
    else:
        data = remuxed(make_clip(), "mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
        bomb = patched(data, data.index(b"trun") + 4, struct.pack(">II", 0, 50_000_000))
    assert read(data, Sampling(2)).facts.frames == 60
    with pytest.raises(OutOfLimits, match=r"50000\d\d\d samples.*360000"):
        probe(bomb)


def test_pcm_sound_with_more_samples_than_frames_are_allowed_is_served() -> None:
    data = with_pcm(make_clip(seconds=1))
    assert data.count(b"twos") or data.count(b"sowt")
    assert read(data, Sampling(2), Limits(max_source_frames=30)).facts.frames == 30


def with_pcm(mp4: bytes) -> bytes:
    """A QuickTime file with the video of `mp4` and 48,000 samples of sound."""
    file = io.BytesIO()
    with av.open(io.BytesIO(mp4)) as source, av.open(file, "w", format="mov") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        frame = av.AudioFrame(format="s16", layout="mono", samples=48_000)
        frame.sample_rate, frame.pts = 48_000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"hello, world",
        bytes(4096),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"GIF89a" + bytes(100),
        b"<html><video src='http://127.0.0.1/'></video></html>",
        b"\0\0\0\x18ftypmp42" + b"not a box at all" * 20,
        b"\0\0\0\x14ftypmp42" + bytes(8) + b"\0\0\0\1free" + b"\xff" * 8,
        b"\x1a\x45\xdf\xa3" + b"not an element" * 20,
        b"RIFF\x10\0\0\0AVI nothing in it",
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    ],
)
def test_what_is_no_video_is_called_so(content: bytes) -> None:
    with pytest.raises(NotAVideo):
        probe(content)


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm"])
def test_sound_alone_has_no_video_stream(container: str) -> None:
    with pytest.raises(NotAVideo, match="has no video stream"):
        probe(make_clip(container=container, audio="only"))


def test_a_cover_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        sound, cover = out.add_stream("aac", rate=48_000), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        picture = av.VideoFrame(64, 64, "yuvj420p")
        picture.pts = 0
        out.mux(cover.encode(picture) + cover.encode(None))
        silence(out, sound, seconds=0.5)
    with pytest.raises(NotAVideo, match="has no video stream"):
        probe(file.getvalue())


@pytest.mark.parametrize(("codec", "pixels"), [("mjpeg", "yuvj420p"), ("ffv1", "yuv420p"), ("mpeg2video", "yuv420p")])
def test_a_codec_outside_the_list_is_refused_by_name(codec: str, pixels: str) -> None:
    with pytest.raises(Undecodable, match=codec) as refusal:
        probe(make_clip(container="matroska", codec=codec, pixel_format=pixels, seconds=0.2))
    assert refusal.value.field == "codec"


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{url}'\n",
        "file '{url}'\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>',
        "\0\0\0\x14ftypisom\n#EXTM3U\n#EXTINF:10,\n{url}\n",
    ],
)
def test_a_playlist_is_no_video_and_nothing_in_it_is_opened(playlist: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, seconds=0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        for url in (f"http://127.0.0.1:{server.getsockname()[1]}/clip.mp4", str(clip)):
            path = tmp_path / "list.m3u8"
            path.write_text(playlist.format(url=url))
            with pytest.raises(NotAVideo):
                read(path)
        with pytest.raises(TimeoutError):
            server.accept()


def with_frames_elsewhere(mp4: bytes, name: bytes) -> bytes:
    """A QuickTime alias record: the frames are in the file `name` of the folder of the movie."""
    path = b"/x/" + name + b"\0" * (len(name) % 2 == 0)
    record = bytes(10) + b"\3" + b"vol".ljust(27, b"\0") + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0")
    record += (
        bytes(16) + struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(path)) + path + b"\xff\xff\0\0"
    )
    table = struct.pack(">IIII4s", 0, 1, len(record) + 12, 0, b"")[:12] + b"alis" + bytes(4) + record
    parents = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    start, end = find_box(mp4, *parents)
    for depth in range(1, len(parents) + 1):
        at = find_box(mp4, *parents[:depth])[0] - 8
        size = struct.unpack_from(">I", mp4, at)[0] + len(table) - (end - start)
        mp4 = patched(mp4, at, struct.pack(">I", size))
    return mp4[:start] + table + mp4[end:]


def test_frames_in_another_file_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip("victim.mp4")
    attack = with_frames_elsewhere(make_clip(), b"victim.mp4")
    with av.open(io.BytesIO(attack), format="mov", options={"enable_drefs": "1"}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60  # the attack works where it is let in
    with pytest.raises(Undecodable):
        read(attack)


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm", "avi"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_that_lost_its_tail_is_refused_with_what_is_left(container: str, part: float) -> None:
    data = make_clip(container=container, seconds=3)
    data = with_index_first(data) if container == "mp4" else data
    with pytest.raises(Undecodable, match=r"cut off: only (\d+\.\d+) s of it can be read") as refusal:
        read(data[: int(len(data) * part)])
    assert 0 < float(refusal.value.value or 0) < 3


def test_a_file_that_lost_its_index_is_refused_as_cut_off() -> None:
    data = make_clip()
    with pytest.raises(Undecodable, match="cut off: nothing of it can be read"):
        probe(data[: find_box(data, b"mdat")[1]])


def test_a_transport_stream_may_end_anywhere() -> None:
    data = make_clip(container="mpegts")
    clip = read(data[: len(data) * 2 // 3], Sampling(8))
    assert 30 < clip.facts.frames < 50
    assert clip.times == pytest.approx(times_of(clip.frames), abs=1e-6)


def with_damage(mp4: bytes, number: int, noise: bool = False) -> bytes:
    """A packet of zeros, or with noise in its last two thirds."""
    with av.open(io.BytesIO(mp4)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0)][number]
    kept = size // 3 if noise else 0
    damage = np.random.default_rng(0).bytes(size - kept) if noise else bytes(size)
    return patched(mp4, position + kept, damage)


# One decoder fails at the packet, the other gives a frame that it marks as corrupt.
@pytest.mark.parametrize(("codec", "noise"), [("libx264", False), ("mpeg4", True)])
def test_a_damaged_frame_is_named_by_its_time(codec: str, noise: bool) -> None:
    damaged = with_damage(make_clip(codec=codec, options={"bf": "0"}, gop=60), 30, noise)
    with pytest.raises(Undecodable, match=r"at 1\.0 s") as refusal:
        read(damaged, Sampling(8))
    assert refusal.value.value == 1.0
    assert probe(damaged).frames == 60


def test_a_damaged_frame_that_is_not_needed_does_no_harm() -> None:
    clip = read(with_damage(make_clip(options={"bf": "0"}, gop=15), 20), Sampling(2))
    assert times_of(clip.frames) == pytest.approx([0, 59 / 30])


@pytest.mark.parametrize("matrix", ["ycgco", "bt2020c", "ictcp"])
def test_colours_that_cannot_be_converted_are_refused(matrix: str) -> None:
    data = make_clip(seconds=0.2, options={"x264-params": f"colormatrix={matrix}"})
    for refuse in (probe, read):
        with pytest.raises(Undecodable, match="colours that cannot be converted"):
            refuse(data)


def test_messages_hold_no_text_of_the_library_and_nothing_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "secret-name.mp4"
    path.write_bytes(zeroed(make_clip()))
    code = f"from models.video import read\ntry: read({str(path)!r})\nexcept ValueError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("the video cannot be decoded at 0.0 s\n", "")


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm", "avi", "mpegts"])
def test_flipped_bytes_give_frames_or_our_errors_and_nothing_else(container: str) -> None:
    data = make_clip(container=container, seconds=0.5)
    began = time.monotonic()
    for at in range(0, len(data), max(1, len(data) // 40)):
        for byte in (b"\0", b"\xff", b"\x7f\xff\xff\xff"):
            try:
                clip = read(patched(data, at, byte)[: len(data)], Sampling(3))
            except InputError:
                continue
            assert clip.sampled <= 3
    assert time.monotonic() - began < 10
