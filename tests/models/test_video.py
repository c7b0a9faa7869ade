"""Which frames are sampled, when they are shown, and what their pixels are. Size 112x84 passes through unresized."""

from __future__ import annotations

import gc
import io
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from models.errors import OutOfLimits
from models.rope import Grid
from models.video import Limits, Sampling, probe, read
from tests.clips import MIRROR, find_box, make_clip, patched, remuxed, square, times_of, with_matrix

# Matroska rounds times to milliseconds.
MILLISECOND = 1.01e-3

FORMATS = [
    ("mp4", "libx264", "h264"),
    ("mov", "mpeg4", "mpeg4"),
    ("mp4", "libx265", "hevc"),
    ("mp4", "libsvtav1", "av1"),
    ("matroska", "libx264", "h264"),
    ("webm", "libvpx", "vp8"),
    ("webm", "libvpx-vp9", "vp9"),
    ("avi", "mpeg4", "mpeg4"),
    ("avi", "libx264", "h264"),
    ("mpegts", "libx264", "h264"),
]


@pytest.mark.parametrize(("container", "encoder", "codec"), FORMATS)
@pytest.mark.parametrize("count", [2, 7, 32])
def test_every_container_and_codec_gives_the_frames_of_the_asked_times(
    container: str, encoder: str, codec: str, count: int
) -> None:
    clip = read(make_clip(container=container, codec=encoder, seconds=1.5), Sampling(count))
    frames = 45 - (container == "mpegts")  # the last one of a transport stream may be cut, so it does not count
    even = np.round(np.linspace(0, frames - 1, count)) / 30
    np.testing.assert_allclose(clip.times[:count], even, atol=MILLISECOND)
    np.testing.assert_allclose(times_of(clip.frames[:count]), even, atol=1e-9)
    assert clip.facts.codec == codec
    assert clip.facts.container == {"mov": "mp4"}.get(container, container)
    assert (clip.facts.width, clip.facts.height, clip.facts.frames) == (112, 84, frames)
    assert clip.facts.fps == pytest.approx(30, abs=0.02)  # milliseconds again
    assert clip.facts.duration == pytest.approx(frames / 30, abs=MILLISECOND)


@pytest.mark.parametrize("gop", [1, 5, 250])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}])
def test_seeking_gives_the_same_frames_as_decoding_everything(gop: int, options: dict[str, str]) -> None:
    data = make_clip(seconds=3, gop=gop, options=options)
    everything = read(data, Sampling(90))
    few = read(data, Sampling(5))
    np.testing.assert_array_equal(few.frames[:5], everything.frames[np.round(np.linspace(0, 89, 5)).astype(int)])


@pytest.mark.parametrize("codec", ["libx265", "mpeg4"])
def test_an_index_that_calls_the_wrong_frames_key_frames_changes_nothing(codec: str) -> None:
    data = make_clip(
        codec=codec,
        gop=30,
        options={"x265-params": "log-level=none:keyint=30:bframes=0:scenecut=0"} if codec == "libx265" else {},
    )
    start, end = find_box(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stss")
    assert data[start + 8 : end] == (1).to_bytes(4, "big") + (31).to_bytes(4, "big")
    wrong = patched(data, start + 12, (45).to_bytes(4, "big"))
    np.testing.assert_array_equal(read(wrong, Sampling(2)).frames, read(data, Sampling(2)).frames)


def test_variable_frame_rate_is_sampled_by_time_and_not_by_number() -> None:
    shown = [0, 1, 2, 3, 4, 5, 6, 30, 60, 90, 120]  # in 1/30 s: a burst, then one frame per second
    clip = read(make_clip(times=[t / 30 for t in shown]), Sampling(5))
    np.testing.assert_allclose(clip.times[:5], [0, 1, 2, 3, 4], atol=1e-4)
    np.testing.assert_allclose(times_of(clip.frames[:5]), [0, 1, 2, 3, 4], atol=1e-9)


def test_a_frame_that_stays_on_screen_is_taken_for_every_target() -> None:
    clip = read(make_clip(times=[0, 1 / 30, 2 / 30, 3 / 30, 4]), Sampling(4))
    np.testing.assert_allclose(clip.times, [0, 0.1, 4, 4], atol=1e-4)
    np.testing.assert_array_equal(clip.frames[2], clip.frames[3])


def test_times_count_from_the_first_frame_of_the_video() -> None:
    clip = read(make_clip(times=[5.0, 5.5, 6.0, 6.5]), Sampling(4))
    np.testing.assert_allclose(clip.times, [0, 0.5, 1, 1.5], atol=1e-4)


def test_frames_before_the_start_of_an_edit_list_are_not_shown() -> None:
    data = make_clip(seconds=1, options={"bf": "0"}, gop=30)
    at = find_box(data, b"moov", b"trak", b"edts", b"elst")[0]
    tick = 512  # of 1/15360 s: what FFmpeg writes for 30 frames per second
    trimmed = patched(data, at + 12, (10 * tick).to_bytes(4, "big"))
    clip = read(trimmed, Sampling(20))
    assert clip.facts.frames == 20
    np.testing.assert_allclose(times_of(clip.frames), np.arange(10, 30) / 30, atol=1e-9)
    assert clip.times[0] == 0


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_stream_cut_out_of_a_longer_one_starts_at_its_first_key_frame(container: str) -> None:
    options = {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}  # frames shown before a key frame need the one before
    data = remuxed(make_clip(gop=10, options=options), container, first=7)
    clip = read(data, Sampling(60))
    np.testing.assert_allclose(times_of(clip.frames[: clip.sampled]), np.arange(10, 60) / 30, atol=1e-9)
    assert clip.facts.frames == 50


@pytest.mark.parametrize("fps", [1, 2.5, 10, 30])
def test_by_rate_takes_a_frame_every_interval_from_the_first(fps: float) -> None:
    clip = read(make_clip(seconds=2), Sampling(None, fps))
    targets = np.arange(math.floor(59 / 30 * fps) + 1) / fps
    assert clip.sampled == len(targets)
    np.testing.assert_allclose(times_of(clip.frames[: clip.sampled]), targets, atol=1 / 60 + 1e-9)
    np.testing.assert_allclose(clip.times[: clip.sampled], times_of(clip.frames[: clip.sampled]), atol=1e-6)


def test_a_rate_above_the_videos_takes_every_frame_once() -> None:
    clip = read(make_clip(seconds=1), Sampling(None, 1000))
    np.testing.assert_allclose(clip.times, np.arange(30) / 30, atol=1e-6)


def test_more_frames_than_the_limit_are_refused_with_both_numbers() -> None:
    data = make_clip(seconds=1)
    for sampling in (Sampling(11), Sampling(None, 11)):
        with pytest.raises(OutOfLimits, match=r"\b11\b.*\b10\b") as refusal:
            read(data, sampling, Limits(max_frames=10))
        assert (refusal.value.value, refusal.value.limit) == (11, 10)


def test_an_odd_count_is_padded_by_its_last_frame_at_times_that_go_on() -> None:
    clip = read(make_clip(seconds=1), Sampling(3, temporal_patch=4))
    assert (clip.sampled, len(clip.frames)) == (3, 4)
    np.testing.assert_array_equal(clip.frames[3], clip.frames[2])
    np.testing.assert_allclose(clip.times[2:], [29 / 30, 29 / 30 + 29 / 60], atol=1e-6)


def test_fewer_frames_than_asked_are_all_taken() -> None:
    clip = read(make_clip(seconds=0.5), Sampling(32))
    assert clip.sampled == 15
    assert len(clip.frames) == 16
    np.testing.assert_allclose(times_of(clip.frames[:15]), np.arange(15) / 30, atol=1e-9)


def test_a_single_frame_makes_a_clip_with_the_frames_own_duration() -> None:
    clip = read(make_clip(seconds=0.1, fps=10), Sampling(8))
    assert clip.sampled == 1
    assert clip.seconds_per_time == pytest.approx(0.2)
    np.testing.assert_allclose(clip.times, [0, 0.1])


def test_the_grid_is_that_of_merged_tokens() -> None:
    clip = read(make_clip(seconds=1), Sampling(8))
    grid = Grid(*clip.grid_thw, clip.seconds_per_time)
    assert (grid.times, grid.rows, grid.columns) == (4, 3, 4)
    assert grid.seconds_per_time == pytest.approx(2 * (29 / 30) / 7)


def corner(pixels: np.ndarray) -> str:
    """Where the brightest quarter of a frame is."""
    height, width, _ = pixels.shape
    halves = {"top": slice(None, height // 2), "bottom": slice(height // 2, None)}
    sides = {"left": slice(None, width // 2), "right": slice(width // 2, None)}
    return max(
        (f"{v} {h}" for v in halves for h in sides),
        key=lambda c: pixels[halves[c.split()[0]], sides[c.split()[1]]].mean(),
    )


@pytest.mark.parametrize(
    ("rotation", "place"), [(0, "top left"), (90, "top right"), (180, "bottom right"), (270, "bottom left")]
)
def test_rotation_metadata_turns_the_picture_clockwise(rotation: int, place: str) -> None:
    clip = read(make_clip(rotation=rotation, seconds=0.2), Sampling(2))  # the square stands at the top left
    assert corner(clip.frames[0]) == place
    width, height = (84, 112) if rotation in {90, 270} else (112, 84)
    assert clip.frames.shape[1:3] == (height, width)
    assert (clip.facts.width, clip.facts.height, clip.facts.rotation) == (width, height, rotation)


def test_a_mirrored_picture_is_mirrored_and_not_turned() -> None:
    clip = read(with_matrix(make_clip(seconds=0.2), MIRROR), Sampling(2))
    assert corner(clip.frames[0]) == "top right"


BT709, BT601, NARROW, FULL = 1, 5, 1, 2  # AVColorSpace and AVColorRange


@pytest.mark.parametrize("colour", [None, (BT601, NARROW), (BT709, NARROW), (BT601, FULL), (BT709, FULL)])
@pytest.mark.parametrize("rgb", [(200, 40, 90), (10, 240, 30), (128, 128, 128)])
def test_a_solid_colour_survives_its_matrix_and_range(
    colour: tuple[int, int] | None, rgb: tuple[int, int, int]
) -> None:
    data = make_clip(
        seconds=0.2, draw=lambda _: np.full((84, 112, 3), rgb, np.uint8), colour=colour, options={"crf": "1"}
    )
    frames = read(data, Sampling(2)).frames
    # 8-bit YCbCr in the narrow range has steps of up to 2 in RGB; a wrong matrix or range is off by 10 and more.
    assert np.abs(frames.astype(int) - rgb).max() <= 4


def test_non_square_pixels_are_seen_as_a_viewer_sees_them() -> None:
    facts = probe(make_clip(seconds=0.2, pixel_aspect=Fraction(2)))
    assert (facts.width, facts.height) == (224, 84)


def test_resizing_is_bicubic_with_antialias_on_bytes() -> None:
    data = make_clip(size=(448, 336), seconds=0.2)
    large = read(data, Sampling(2)).frames[:1]
    small = read(data, Sampling(2, max_pixels=112 * 84)).frames[:1]
    planes = torch.from_numpy(large).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(planes, size=(84, 112), mode="bicubic", antialias=True)
    np.testing.assert_array_equal(small, expected.permute(0, 2, 3, 1).numpy())


def test_the_same_bytes_give_the_same_frames_from_memory_file_and_path(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    data = make_clip(path, size=(320, 240))
    first = read(data, Sampling(5))
    with path.open("rb") as file:
        others = [
            read(data, Sampling(5), threads=4),
            read(path, Sampling(5)),
            read(str(path), Sampling(5)),
            read(file, Sampling(5)),
        ]
        assert not file.closed
    for other in others:
        np.testing.assert_array_equal(first.frames, other.frames)
        np.testing.assert_array_equal(first.times, other.times)
    assert probe(io.BytesIO(data)) == first.facts


def test_the_square_of_the_test_clips_tells_its_time() -> None:
    for size in ((112, 84), (640, 360), (56, 56)):
        shown = [0, 1 / 30, 0.5, 2, 6.3]
        np.testing.assert_allclose(times_of(np.stack([square(size)(t) for t in shown])), shown, atol=1e-9)


def test_nothing_of_a_video_waits_for_the_garbage_collector() -> None:
    data = make_clip(rotation=90)
    read(data)
    gc.collect()
    gc.disable()
    try:
        read(data)
        large = [frame for frame in gc.get_objects() if type(frame) is av.VideoFrame and frame.width > 16]
        open_files = [file for file in gc.get_objects() if type(file) is av.container.InputContainer]
    finally:
        gc.enable()
    assert (len(large), len(open_files)) == (0, 0)
