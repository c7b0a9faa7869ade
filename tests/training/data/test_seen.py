"""Predictions that cannot see what they predict, in memory and as files; and files that show nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import OutOfLimits
from models.video import Sampling, read
from tests.clips import make_clip, times_of
from training.data.seen import Files, View, shortened, visible
from training.questions.records import Extras, Record

EXTRAS = Extras(("Left",), (0.2, 0.9), (2, 9), "the camera", 10, "g", ("truth", "a", "b", "c"))
PREDICTION = Record("v", "?", ("a", "b", "c", "d"), "A", "abs_dir_pred")
PLAIN = replace(PREDICTION, type="abs_dis")
OURS = replace(PREDICTION, extras=EXTRAS)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twenty frames in 1.9 s that show their times."""
    make_clip(tmp_path / "v.mp4", seconds=2, fps=10)
    return tmp_path / "v.mp4"


@pytest.mark.parametrize(
    ("record", "frames", "seconds", "expected"),
    [
        (PLAIN, 7, 3.0, 7),
        (PREDICTION, 32, 9.3, 30),  # the last two are foretold
        (PREDICTION, 20, 9.3, 18),
        (PREDICTION, 8, 9.3, 6),
        (OURS, 20, 1.9, 10),  # to 0.9 s
        (replace(OURS, extras=replace(EXTRAS, interval=(0.2, 1.0), visible_frames=11)), 20, 1.9, 10),  # the last is odd
        (OURS, 39, 1.9, 16),  # another sampling: what is printed as 0.9 s may have been 0.85 s
        (OURS, 10, 1.9, 4),
        (replace(OURS, extras=replace(EXTRAS, interval=(0.2, 1.4))), 32, 31 * 0.145, 10),  # 9 * 0.145 s, printed
    ],
)
def test_visible_frames_end_before_what_is_foretold(record: Record, frames: int, seconds: float, expected: int) -> None:
    assert visible(record, frames, seconds) == expected


def test_a_prediction_of_everything_is_refused() -> None:
    with pytest.raises(OutOfLimits, match="none before those that are foretold"):
        visible(PREDICTION, 2, 1.0)


def test_the_clip_in_memory_has_the_visible_frames_alone(video: Path) -> None:
    whole = read(video, Sampling(count=20))
    clip = shortened(whole, OURS)
    assert np.array_equal(clip.frames, whole.frames[:10])
    assert clip.times[-1] == pytest.approx(0.9)
    assert clip.grid_thw[0] == 5
    assert clip.seconds_per_time == pytest.approx(whole.seconds_per_time)
    assert shortened(whole, PLAIN) is whole


def test_the_file_has_the_same_frames_at_the_same_times(tmp_path: Path, video: Path) -> None:
    view = Files(tmp_path / "views", 20).of(video, OURS)
    assert view.path != video
    whole, cut = read(video, Sampling(count=20)), read(view.path, Sampling(count=view.frames))
    assert cut.facts.frames == view.frames == 10
    assert np.array_equal(times_of(cut.frames), times_of(whole.frames[:10]))
    np.testing.assert_allclose(cut.times, whole.times[:10], atol=1e-3)
    assert cut.frames.shape[1:] == whole.frames.shape[1:]
    error = np.abs(cut.frames.astype(int) - whole.frames[:10]).mean()
    assert error < 3, "a second pass through the codec, no more"


def test_another_video_of_the_same_name_gets_another_file(tmp_path: Path, video: Path) -> None:
    first = Files(tmp_path / "views", 20).of(video, OURS)
    make_clip(video, seconds=2.5, fps=10)
    second = Files(tmp_path / "views", 20).of(video, OURS)
    fewer = Files(tmp_path / "views", 12).of(video, PREDICTION)
    assert len({first.path, second.path, fewer.path}) == 3


def test_what_may_be_seen_whole_is_the_video_itself(tmp_path: Path, video: Path) -> None:
    files = Files(tmp_path / "views", 32)
    assert files.of(video, PLAIN) == files.first(video, 99) == View(video, 32)
    assert not (tmp_path / "views").exists()


def test_a_video_of_one_frame_is_refused(tmp_path: Path) -> None:
    make_clip(tmp_path / "still.mp4", seconds=0.1, fps=10)
    with pytest.raises(OutOfLimits, match="nothing moves"):
        Files(tmp_path / "views", 32).of(tmp_path / "still.mp4", PLAIN)


@pytest.mark.parametrize("record", [PLAIN, OURS])
def test_a_grey_view_is_as_long_and_as_large_and_shows_nothing(tmp_path: Path, video: Path, record: Record) -> None:
    files = Files(tmp_path / "views", 16)
    view = files.of(video, record)
    source, grey = (read(one.path, Sampling(count=one.frames)) for one in (view, files.grey(view)))
    assert grey.frames.shape == source.frames.shape
    assert np.ptp(grey.frames.astype(int)) <= 2
    np.testing.assert_allclose(np.mean(np.diff(grey.times)), np.mean(np.diff(source.times)), atol=2e-3)
