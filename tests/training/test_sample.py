"""The sample clip and its question: a newcomer's first answer must be about what really happens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from models.video import Sampling, read
from training.raycast import GROUND, Camera, picture, things
from training.sample import FPS, FRAMES, car_box, encode, frames, numbered, question, sample_times, write_sample
from training.street import BALL, BALL_RADIUS, CAR, SIZE, ball_at, camera_at, car_at, scene_at

Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "new"
    write_sample(path)
    return path


@pytest.fixture(scope="module")
def decoded(directory: Path) -> Pictures:
    with av.open(str(directory / "clip.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "question.json").read_text())


def driven(start: float, end: float, step: float) -> NDArray[np.floating]:
    """Where the car drives, as unit vectors in the axes of the camera at 0.0 s: from its path, not from its heading."""
    times = np.arange(start, end, step)
    steps = np.stack([car_at(t + 0.01) - car_at(t - 0.01) for t in times.tolist()])
    return (steps / np.linalg.norm(steps, axis=1, keepdims=True)) @ camera_at(0).axes


def test_clip_is_six_seconds_of_small_h264_that_every_browser_plays(directory: Path) -> None:
    path = directory / "clip.mp4"
    assert path.stat().st_size < 250_000
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = stream.codec_context.name, stream.pix_fmt, (stream.width, stream.height), stream.average_rate
        assert facts == ("h264", "yuv420p", SIZE, FPS)
        times = [frame.time for frame in container.decode(stream)]
    np.testing.assert_allclose(times, np.arange(FRAMES) / FPS, atol=1e-3)  # the container's clock ticks finer
    assert FRAMES / FPS == 6


def test_decoded_frames_look_like_the_rendered_ones(decoded: Pictures) -> None:
    for index in (0, 45, 89):
        rendered = picture(scene_at(index / FPS), camera_at(index / FPS))
        error = np.mean((decoded[index].astype(float) - rendered) ** 2)
        assert 10 * np.log10(255**2 / error) > 30  # dB; below that the compression is visible


def test_the_question_is_about_the_frames_that_the_model_sees(directory: Path) -> None:
    clip = read((directory / "clip.mp4").read_bytes(), Sampling(count=32))
    assert clip.facts.duration == pytest.approx(6)
    assert np.round(clip.times, 1).tolist() == sample_times()


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    pictures = [image for image, _ in zip(frames(), range(4), strict=False)]
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / name, pictures)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_question_file_is_a_record_with_four_different_options(record: dict[str, Any]) -> None:
    assert set(record) == {"question", "options", "answer", "type"}
    assert len(set(record["options"])) == 4
    assert record["answer"] in "ABCD"
    assert record["type"] == "abs_ori"
    assert record == question().__dict__


def test_the_right_letter_is_what_the_path_of_the_car_says(record: dict[str, Any]) -> None:
    start, end = map(float, re.findall(r"between (\S+) s and (\S+) s", record["question"])[0])
    assert numbered(driven(start, end, 0.02)) == record["options"]["ABCD".index(record["answer"])]


@pytest.mark.parametrize("step", [1 / FPS, 0.15, 0.23])
def test_the_answer_does_not_depend_on_how_densely_the_clip_is_sampled(step: float) -> None:
    right = question().options["ABCD".index(question().answer)]
    assert numbered(driven(sample_times()[2], sample_times()[28], step)) == right


def test_the_wording_does_not_set_the_right_option_apart(record: dict[str, Any]) -> None:
    def mirrored(text: str) -> str:
        return re.sub("Left|Right", lambda side: {"Left": "Right", "Right": "Left"}[side[0]], text)

    def reversed_(text: str) -> str:
        labels = re.findall(r"\) (\S+)\.", text)[::-1]
        return " ".join(f"({number}) {label}." for number, label in enumerate(labels, 1))

    for change in (mirrored, reversed_):
        assert {change(option) for option in record["options"]} == set(record["options"])


def test_the_box_in_the_question_holds_the_red_car_of_the_clip(record: dict[str, Any], decoded: Pictures) -> None:
    left, top, right, bottom = map(int, re.findall(r"\[(.*)\]", record["question"])[0].split(", "))
    start = float(re.findall(r"between (\S+) s", record["question"])[0])
    red, green, blue = decoded[round(start * FPS)].astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red > 110) & (red > 2.2 * green) & (red > 2.2 * blue))
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    assert inside.mean() > 0.99  # the codec smears a little colour over the border
    assert len(rows) > 0.2 * (right - left) * (bottom - top)
    assert car_box(start) == (left, top, right, bottom)


def test_the_car_is_in_sight_all_the_time_and_passes_behind_the_ball() -> None:
    hidden = 0
    for t in np.arange(0, 6, 0.4).tolist():
        scene, camera = scene_at(t), camera_at(t)
        alone = type(scene)(scene.solids[: len(CAR)], scene.ground)
        car, clear = np.isin(things(scene, camera), CAR), np.isin(things(alone, camera), CAR)
        assert car.sum() > 900
        hidden += int(((things(scene, camera) == BALL) & clear).sum())
    assert hidden > 300


def test_the_ball_comes_nearer_and_stops() -> None:
    distances = [np.linalg.norm(ball_at(t) - camera_at(t).position) for t in np.arange(0, 4.4, 0.2)]
    assert (np.diff(distances) < 0).all()
    assert (ball_at(4.5) == ball_at(5.9)).all()


def test_the_ball_is_drawn_with_the_size_and_place_that_perspective_demands() -> None:
    camera = Camera(camera_at(2.0).position, 0.1, 0.0, 400.0, (600, 400))
    seen = things(scene_at(2.0), camera) == BALL
    rows, columns = np.nonzero(seen)
    column, row = camera.project(ball_at(2.0)[None])[0]
    distance = np.linalg.norm(ball_at(2.0) - camera.position)
    # The image of a ball off the axis is a slightly longer ellipse with a shifted middle: 3 % of its size here.
    assert rows.max() - rows.min() + 1 == pytest.approx(2 * 400 * BALL_RADIUS / distance, rel=0.05)
    assert (columns.mean(), rows.mean()) == pytest.approx((column, row), abs=3)


def test_the_car_stands_on_the_ground_and_never_meets_the_ball() -> None:
    for t in np.arange(0, 6, 0.1).tolist():
        assert car_at(t)[2] == 0
        # 1.95 m from the car's middle to its farthest corner
        assert np.linalg.norm((car_at(t) - ball_at(t))[:2]) > 1.95 + BALL_RADIUS


def test_the_camera_moves_slowly_and_sees_mostly_ground() -> None:
    steps = [np.linalg.norm(camera_at(t + 1 / FPS).position - camera_at(t).position) for t in np.arange(0, 5.9, 0.1)]
    assert min(steps) > 0
    assert max(steps) < 0.03
    assert (things(scene_at(3), camera_at(3)) == GROUND).mean() > 0.4
