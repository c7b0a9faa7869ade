"""The strip: real decoded frames, heat where the attention is, bars as high as their share."""

from __future__ import annotations

import builtins
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dsr_client import BrokenResponse, CannotDraw, Explanation
from dsr_client._frames import _by_ffmpeg, _by_pyav, frames_at
from PIL import Image

from tests.clips import make_clip, time_of

T, R, C = 4, 3, 4


def looking_at(patch: int, row: int, column: int, patches: int = T) -> Explanation:
    attention = np.full((patches, R, C), 0.1 / (patches * R * C))
    attention[patch, row, column] += 0.9
    times = [0.5 * number for number in range(patches)]
    return Explanation.of({"times": times, "grid": [patches, R, C], "attention": attention.tolist()})


def grey(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (160, 120), (90, 90, 90)) for _ in range(count)]


def drawn(path: Path) -> np.ndarray:
    """uint8 [H, W, 3]"""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def hot_columns(path: Path) -> np.ndarray:
    """[x] how far the frames' pixels are from grey, of the strip at `path`."""
    pixels = drawn(path).astype(float)[10:160]
    spread = pixels.max(-1) - pixels.min(-1)
    result: np.ndarray = spread.max(0)
    return result


def test_heat_stands_on_the_frame_and_place_that_was_looked_at(tmp_path: Path) -> None:
    path = looking_at(2, 1, 3).save_strip(grey(T), tmp_path / "strip.png")
    hottest = hot_columns(path).argmax() / drawn(path).shape[1]
    assert 2.7 / T < hottest < 3 / T, "third of four frames, at its right edge"


@pytest.mark.parametrize(
    "make", [lambda n: [np.asarray(p) for p in grey(n)], lambda n: np.stack([np.asarray(p) for p in grey(n)]), grey]
)
def test_pictures_may_be_images_or_arrays_and_more_than_the_patches(make: Any, tmp_path: Path) -> None:
    expected = looking_at(1, 0, 0).save_strip(grey(T), tmp_path / "a.png").read_bytes()
    assert looking_at(1, 0, 0).save_strip(make(2 * T), tmp_path / "b.png").read_bytes() == expected


def test_frames_of_a_file_are_those_at_the_times_of_the_patches(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, seconds=3, fps=30, size=(320, 240), gop=7)
    times = [0.0, 0.5, 1.0, 2.9, 9.0]
    shown = [time_of(np.asarray(frame)) for frame in frames_at(clip, times)]
    assert shown == pytest.approx([0.0, 0.5, 1.0, 2.9, 2.9 + 2 / 30], abs=1 / 60)
    strip = looking_at(0, 0, 0).save_strip(clip, tmp_path / "strip.png")
    assert drawn(strip).shape[1] > T * 160


def test_a_turned_video_stands_upright(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    straight = np.zeros((96, 160, 3), np.uint8)
    straight[:, 100:] = 255  # turned clockwise by 90 degrees: the right edge becomes the bottom
    make_clip(clip, seconds=0.5, size=(160, 96), draw=lambda _: straight, rotation=90)
    [frame] = frames_at(clip, [0.2])
    pixels = np.asarray(frame.convert("L")).astype(int)
    assert pixels.shape == (160, 96)
    assert pixels[120:].mean() > 200
    assert pixels[:80].mean() < 50


def test_a_clip_with_a_late_first_frame_is_timed_from_it(tmp_path: Path) -> None:
    clip = tmp_path / "clip.ts"
    make_clip(clip, seconds=2, fps=10, size=(320, 240), container="mpegts")
    assert time_of(np.asarray(frames_at(clip, [1.0])[0])) == pytest.approx(1.0, abs=1 / 60)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
def test_ffmpeg_and_pyav_show_the_same_frames(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, seconds=2, fps=30, size=(320, 240))
    times = [0.0, 0.7, 1.9, 5.0]
    for one, other in zip(_by_pyav(clip, times), _by_ffmpeg(clip, times), strict=True):
        assert time_of(np.asarray(one)) == time_of(np.asarray(other))


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_a_long_clip_shows_some_frames_and_all_bars(columns: int, tmp_path: Path) -> None:
    path = looking_at(20, 0, 0, patches=40).save_strip(grey(40), tmp_path / "strip.png", columns=columns)
    strip = drawn(path)
    width = strip.shape[1]
    assert width < columns * 240
    bars = strip[-80:-30].min(-1)
    tallest = (bars < 200).sum(0).argmax() / width
    assert 19.5 / 40 < tallest < 21.5 / 40


def test_what_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation, out = looking_at(0, 0, 0), tmp_path / "strip.png"
    with pytest.raises(FileNotFoundError):
        explanation.save_strip(tmp_path / "nothing.mp4", out)
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(CannotDraw, match=r"text\.mp4 cannot be decoded"):
        explanation.save_strip(tmp_path / "text.mp4", out)
    with pytest.raises(TypeError, match=r"float64 \[4, 3\]"):
        explanation.save_strip([np.zeros((4, 3))], out)
    with pytest.raises(ValueError, match="none given"):
        explanation.save_strip([], out)
    with pytest.raises(ValueError, match="columns"):
        explanation.save_strip(grey(T), out, columns=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotDraw, match=r"pip install av.*ffmpeg"):
        explanation.save_strip(tmp_path / "text.mp4", out)
    assert not out.exists()


def test_without_pillow_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_pillow(name: str, *more: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.delitem(sys.modules, "dsr_client._strip", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(CannotDraw, match=r"dsr-client\[explain\]"):
        looking_at(0, 0, 0).save_strip(grey(T), tmp_path / "strip.png")


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": [0.0], "grid": [1, 1, 1]},
        {"times": [0.0, 1.0], "grid": [1, 1, 1], "attention": [[[1.0]]]},
        {"times": [0.0], "grid": [1, 1, 2], "attention": [[[1.0]]]},
        {"times": [0.0], "grid": [1, 2], "attention": [[[1.0]]]},
        {"times": ["x"], "grid": [1, 1, 1], "attention": [[[1.0]]]},
        {"times": [], "grid": [0, 0, 0], "attention": []},
    ],
)
def test_an_explanation_whose_parts_do_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BrokenResponse, match="explanation"):
        Explanation.of(wrong)


def test_attention_over_time_sums_to_one() -> None:
    weights = looking_at(3, 0, 0).over_time()
    assert sum(weights) == pytest.approx(1)
    assert weights.index(max(weights)) == 3
