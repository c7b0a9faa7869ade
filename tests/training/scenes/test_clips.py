"""Clips on disk: what is read back is what was rendered, at the same times, and nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.video import Sampling, read
from training.questions.cues import Cues
from training.scenes import Rendered, Scene, SceneConfig, Seeds, cues_of, render, sample_scene
from training.scenes.__main__ import main
from training.scenes.clips import read_cues, write_clip, write_clips

SMALL = SceneConfig(frames=6, seconds=(0.7, 1.5), size=(56, 56))


def write_all(directory: Path, count: int, config: SceneConfig = SMALL) -> list[int]:
    return list(write_clips(directory, range(count), config))


def equal(one: Cues, other: Cues) -> None:
    assert (one.video, one.size) == (other.video, other.size)
    assert np.array_equal(one.times, other.times)
    np.testing.assert_allclose(one.camera_to_world, other.camera_to_world, atol=1e-6)  # decimals in the file
    for first, second in zip(one.tracks, other.tracks, strict=True):
        assert first.name == second.name
        np.testing.assert_allclose(first.centres, second.centres, atol=1e-6)
        np.testing.assert_array_equal(first.boxes, second.boxes)
        assert np.array_equal(first.visible, second.visible)
        assert np.array_equal(first.confidence, second.confidence)
        assert (first.forward is None) == (second.forward is None)
        if first.forward is not None and second.forward is not None:
            np.testing.assert_allclose(first.forward, second.forward, atol=1e-6)


def test_a_clip_reads_back_as_its_frames_at_their_times(
    tmp_path: Path, scenes: list[Scene], rendered: list[Rendered]
) -> None:
    for scene, seen in zip(scenes[:3], rendered[:3], strict=True):
        write_clip(tmp_path, scene, seen)
        clip = read((tmp_path / f"{scene.video}.mp4").read_bytes(), Sampling(count=32, max_pixels=112 * 112))
        assert clip.times.tolist() == scene.times.tolist()
        # The last frame is shown as long as the others; rounded to the file's clock, a ten thousandth of a second.
        assert clip.facts.duration == pytest.approx(scene.times[-1] + scene.times[1], abs=1e-4)
        assert clip.frames.shape == (32, 112, 112, 3)
        error = np.mean((clip.frames.astype(float) - seen.frames.numpy()) ** 2, axis=(1, 2, 3))
        # dB, every frame; what is lost is mostly colour, of which the codec keeps a quarter of the pixels.
        assert (10 * np.log10(255**2 / error)).min() > 29


def test_cues_read_back_as_they_were_also_where_boxes_are_unknown(tmp_path: Path, scenes: list[Scene]) -> None:
    for one in scenes[:2]:
        seen = render(one)
        seen.masks[3] = 0
        write_clip(tmp_path, one, seen)
        found = read_cues(tmp_path / f"{one.video}.json")
        equal(found, cues_of(one, seen))
        assert all(np.isnan(track.boxes[3]).all() and not track.visible[3] for track in found.tracks)


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    assert write_all(tmp_path, 3) == [0, 1, 2, 3]
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    first, second = (tmp_path / f"{Scene.name_of(seed)}.mp4" for seed in (0, 1))
    first.write_bytes(b"kept")
    second.with_suffix(".json").unlink()
    second.with_suffix(".json.part").write_text("cut of")
    assert write_all(tmp_path, 4) == [2, 3, 4]
    assert first.read_bytes() == b"kept"
    assert second.read_bytes() == made[second.name]
    assert second.with_suffix(".json").read_bytes() == made[f"{second.stem}.json"]
    assert not list(tmp_path.glob("*.part"))


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = sample_scene(1, SMALL)
    seen = render(scene)
    written = set()
    for _ in range(8):
        write_clip(tmp_path, scene, seen)
        written.add((tmp_path / f"{scene.video}.mp4").read_bytes())
    assert len(written) == 1


def test_clips_of_another_config_are_not_mixed(tmp_path: Path) -> None:
    write_all(tmp_path, 1)
    with pytest.raises(ValueError, match="another config"):
        write_all(tmp_path, 1, SceneConfig(frames=6, seconds=(0.7, 1.5), size=(84, 56)))


def test_the_command_writes_the_clips_of_its_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["write", str(tmp_path), "--scenes", "2", "--seed", "4", "--size", "84x56", "--frames", "8", "--held-out"]
    assert main(command) == 0
    assert "2/2 clips" in capsys.readouterr().err
    expected = [Seeds.held_out(4), Seeds.held_out(5)]
    fields = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("scene-*.json"))]
    assert [field["seed"] for field in fields] == expected
    assert len(list(tmp_path.glob("*.mp4"))) == 2
    scene = sample_scene(expected[0], SceneConfig(frames=8, size=(84, 56)))
    equal(read_cues(tmp_path / f"{scene.video}.json"), cues_of(scene, render(scene)))


def test_the_command_says_what_is_wrong_with_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["write", str(tmp_path), "--scenes", "1", "--size", "100x84"]) == 2
    assert "multiples of 28" in capsys.readouterr().err
