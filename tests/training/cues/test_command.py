"""From a folder of videos to records and questions: resumed, told, and never half."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.cues.conftest import SETTINGS
from training.cues import extract, record
from training.cues.__main__ import main
from training.cues.aggregate import PathNoise, aggregate
from training.cues.ask import ask
from training.cues.estimators import Estimators, Footage, Geometry
from training.cues.keep import Curve, Table
from training.cues.measure import measure
from training.cues.oracle import oracle
from training.cues.usable import reasons
from training.questions import records
from training.questions.engine import Plan
from training.questions.templates import TYPES
from training.review import page
from training.scenes import SceneConfig, Seeds
from training.scenes.clips import read_cues, write_clips

COUNT = 5  # the question engine learns what a text foretells from four videos and more
TINY = SceneConfig(size=(56, 56))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    assert list(write_clips(folder, [Seeds.train(seed) for seed in range(COUNT)], TINY))[-1] == COUNT
    return folder


@pytest.fixture(scope="module")
def out(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command's records of these clips. Tests that change them work on a copy."""
    folder = tmp_path_factory.mktemp("cues") / "out"
    assert main([str(clips), "--out", str(folder), "--estimators", "oracle"]) == 0
    return folder


@pytest.fixture
def no_noise(tmp_path: Path) -> Path:
    """A table of a world in which noise does nothing."""
    row = {"changed": dict.fromkeys(TYPES, 0.0)}
    curves = {name: [row | {"shown": 0.0}, row | {"shown": 1.0}] for name in ("turn", "move", "centre", "front")}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"curves": curves}))
    return path


def test_records_hold_what_the_clips_own_records_hold(clips: Path, out: Path) -> None:
    found = list(record.read_all(out))
    assert len(found) == COUNT
    for one in found:
        true = read_cues(clips / f"{one.cues.video}.json")
        assert one.usable, one.reasons
        assert (one.cues.size, one.cues.times.tolist()) == (true.size, true.times.tolist())
        by_name = {track.name: track for track in one.cues.tracks}
        for track in true.tracks:
            own = by_name[track.name]
            np.testing.assert_array_equal(own.visible, track.visible)
            np.testing.assert_allclose(own.centres[own.visible], track.centres[own.visible], atol=1e-5)


def test_the_review_page_shows_their_boxes_and_paths(clips: Path, out: Path, tmp_path: Path) -> None:
    one = next(record.read_all(out))
    asked = records.Record(one.cues.video, "How does it move?", ("It goes.", "It stays."), "A", "abs_dis")
    assert page.write([asked], clips, out, tmp_path / "review", "set") == []
    shown = (tmp_path / "review" / page.FILE).read_text()
    assert '"cues": null' not in shown
    assert all(f'"name": "{track.name}", "path": [[' in shown for track in one.cues.tracks)


def test_a_file_of_cues_that_holds_none_is_named_by_the_review_page(clips: Path, tmp_path: Path) -> None:
    name = sorted(clips.glob("*.mp4"))[0].stem
    (tmp_path / f"{name}.json").write_text('{"tracks": [{"name": "car"}]}')
    asked = records.Record(name, "How does it move?", ("It goes.", "It stays."), "A", "abs_dis")
    with pytest.raises(ValueError, match=f"{name}.json holds no cues"):
        page.write([asked], clips, tmp_path, tmp_path / "review", "set")


def test_a_record_tells_where_it_comes_from(out: Path) -> None:
    facts = json.loads(next(out.glob("scene-*.json")).read_text())
    assert facts["provenance"]["estimators"]["geometer"]["kind"] == "oracle"
    assert facts["provenance"]["settings"]["edge"] == SETTINGS.edge
    assert set(facts["noise"]) == {"turn", "move", "centre", "front"}
    assert all(0 <= track["confidence"] <= 1 for track in facts["tracks"])


def test_a_finished_record_is_not_made_again_and_half_of_one_is(clips: Path, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    first, second, third, *_ = sorted(copy.glob("scene-*.json"))
    second.unlink()
    third.unlink()
    third.with_suffix(".npz").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in (first, first.with_suffix(".npz"))}
    assert main([str(clips), "--out", str(copy), "--estimators", "oracle"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(record.read_all(copy))) == COUNT
    assert not list(copy.glob("*.part"))


def test_when_all_is_there_no_estimator_is_loaded(clips: Path, out: Path) -> None:
    def refuse() -> Estimators:
        raise AssertionError("there is nothing to estimate")

    done = list(extract.extract_all(extract.videos(clips), out, refuse, SETTINGS))
    assert len(done) == COUNT
    assert not any(one.error for one in done)


def test_a_video_that_fails_is_told_and_stops_no_other(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(clips, folder)
    first = sorted(folder.glob("*.mp4"))[0]
    first.write_bytes(first.read_bytes()[:2000])
    (folder / "no-scene.mp4").write_bytes(sorted(folder.glob("*.mp4"))[1].read_bytes())
    assert main([str(folder), "--out", str(copy), "--estimators", "oracle"]) == 1
    errors = json.loads((copy / record.ERRORS).read_text())
    assert set(errors) == {first.stem, "no-scene"}
    assert "no rendered clip" in errors["no-scene"]
    assert len(list(record.read_all(copy))) == COUNT - 1
    assert "failed: no-scene" in capsys.readouterr().err


def test_records_of_other_settings_are_not_mixed(
    clips: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    sorted(copy.glob("scene-*.json"))[0].unlink()
    assert main([str(clips), "--out", str(copy), "--estimators", "oracle", "--set", "edge=0.05"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_damaged_arrays_are_found(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    data = next(copy.glob("*.npz"))
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="is damaged"):
        list(record.read_all(copy))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "published"], "--pi3, --detector, --masks, --orientation missing"),
        (["--estimators", "oracle", "--set", "edges=1"], "edges is no setting"),
        (["--estimators", "oracle", "--set", "edge=wide"], "edge is 'wide'"),
        (["--estimators", "oracle", "--set", "nms=1.5"], "nms is 1.5"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(clips), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.mp4", "a.mov"], "two videos of one name: a"),
        (["audit.mp4"], "the name audit"),
        (["free.mp4"], "the name free"),
        (["a.txt"], "no videos"),
    ],
)
def test_names_that_records_cannot_have_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        extract.videos(tmp_path)


def test_fewer_than_one_worker_are_refused(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would make nothing, and end as if all were well."""
    with pytest.raises(SystemExit) as ended:
        main([str(clips), "--out", str(tmp_path / "out"), "--estimators", "oracle", "--workers", "0"])
    assert ended.value.code == 2
    assert "--workers: 0; at least 1" in capsys.readouterr().err


def test_other_settings_are_told_also_when_nothing_is_left_to_make(
    clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clips), "--out", str(out), "--estimators", "oracle", "--set", "gap=3"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_command_asks_questions_that_can_be_read(
    clips: Path, out: Path, tmp_path: Path, no_noise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    command = [str(clips), "--out", str(copy), "--estimators", "oracle", "--questions", "--per-scene", "24"]
    assert main([*command, "--types", "abs_dir,rel_dir", "--noise-table", str(no_noise)]) == 0
    asked = records.read(copy / "questions.json")
    assert len(asked) > 20
    assert {one.type for one in asked} == {"abs_dir", "rel_dir"}
    assert {one.videoID for one in asked} <= {path.stem for path in clips.glob("*.mp4")}
    assert all(one.extras is not None for one in asked)
    assert json.loads((copy / "audit.json").read_text())["rows"]
    assert "too few questions for a verdict" in capsys.readouterr().err


def test_a_type_is_asked_only_of_videos_that_are_good_enough_for_it(out: Path, tmp_path: Path) -> None:
    curve = {type_: (0.0, 1.0 if type_ == "abs_spd" else 0.2) for type_ in TYPES}
    table = Table({"centre": Curve((0.0, 0.1), curve)})
    found = list(record.read_all(out))
    shaky = replace(found[0], noise=replace(found[0].noise, centre=0.05))
    plan = Plan(per_scene=8, drawn=20, types=("abs_spd", "rel_spd"))
    made = ask([shaky, *found[1:]], tmp_path, table, 0.25, plan, 0)
    assert made.kept["abs_spd"] == COUNT - 1
    assert made.kept["rel_spd"] == COUNT
    speeds = {one.videoID for one in records.read(tmp_path / "questions.json") if one.type == "abs_spd"}
    assert shaky.cues.video not in speeds


def test_the_table_is_read_between_its_levels() -> None:
    table = Table({
        "turn": Curve((0.0, 1.0), dict.fromkeys(TYPES, (0.0, 0.4))),
        "centre": Curve((0.0, 1.0), dict.fromkeys(TYPES, (0.1, 0.1))),
    })  # fmt: skip
    noise = PathNoise(turn=0.5, move=9.0, centre=0.3, front=9.0)
    assert table.expected(noise, "abs_dis") == pytest.approx(1 - 0.8 * 0.9)
    assert table.kept(noise, 0.29) == TYPES
    assert table.kept(noise, 0.27) == ()


def test_a_type_that_was_not_measured_is_asked_of_no_real_video() -> None:
    row = {"changed": {type_: 0.0 for type_ in TYPES if type_ != "abs_dis"}}
    table = Table.of({"curves": {"turn": [row | {"shown": 0.0}, row | {"shown": 1.0}]}})
    assert table.kept(PathNoise(0, 0, 0, 0), 0.25) == tuple(type_ for type_ in TYPES if type_ != "abs_dis")


@pytest.mark.parametrize("text", ["{}", '{"curves": {"turn": [{}]}}', "[1]", "none"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"table\.json"):
        Table.load(path)


class TestUnusable:
    """Clips that nothing should be asked about."""

    @pytest.fixture
    def footage(self, clips: Path) -> Footage:
        return Footage.open(sorted(clips.glob("*.mp4"))[0], SETTINGS)

    def reasons(self, footage: Footage, estimators: Estimators) -> list[str]:
        measured = measure(footage, estimators, SETTINGS)
        return reasons(measured, aggregate(footage.name, measured, SETTINGS), SETTINGS)

    def test_a_cut_by_its_colours(self, footage: Footage, clips: Path) -> None:
        frames = footage.frames.copy()
        frames[16:] = 255 - Footage.open(sorted(clips.glob("*.mp4"))[1], SETTINGS).frames[16:]
        (reason,) = self.reasons(replace(footage, frames=frames), oracle())
        assert reason.startswith("a cut after frame 15")

    def test_a_fast_pan_is_no_cut(self, footage: Footage) -> None:
        """Colours that change in every frame: the same pictures, every other one of them inverted."""
        frames = footage.frames.copy()
        frames[::2] = 255 - frames[::2]
        assert self.reasons(replace(footage, frames=frames), oracle()) == []

    def test_a_cut_by_what_the_next_frame_sees(self, footage: Footage) -> None:
        inner = oracle()

        class Jumps:
            facts = inner.geometer.facts

            def __call__(self, footage: Footage) -> Geometry:
                found = inner.geometer(footage)
                poses = found.poses.copy()
                poses[20:, :3, :3] = np.diag([-1.0, 1, -1]) @ poses[20:, :3, :3]  # looks the other way
                poses[20:, :3, 3] += 1000
                return replace(found, poses=poses)

        told = self.reasons(footage, replace(inner, geometer=Jumps()))
        assert any(reason.startswith("a cut after frame 19") and "seen next" in reason for reason in told)

    def test_nothing_that_can_be_trusted(self, footage: Footage) -> None:
        inner = oracle()

        class Unsure:
            facts = inner.geometer.facts

            def __call__(self, footage: Footage) -> Geometry:
                found = inner.geometer(footage)
                return replace(found, confidence=0.05 * found.confidence)

        told = self.reasons(footage, replace(inner, geometer=Unsure()))
        assert any("0.0% of the points are valid" in reason for reason in told)

    def test_nothing_that_moves(self, footage: Footage) -> None:
        inner = oracle()

        class Frozen:
            facts = inner.geometer.facts

            def __call__(self, footage: Footage) -> Geometry:
                found = inner.geometer(footage)
                points = np.broadcast_to(np.array([0, 0, 5], np.float32), found.points.shape)
                return replace(found, poses=np.tile(np.eye(4), (len(found.poses), 1, 1)), points=points)

        told = self.reasons(footage, replace(inner, geometer=Frozen()))
        assert any(reason.startswith("nothing moves: 0.00 units") for reason in told)

    def test_too_few_frames(self, footage: Footage) -> None:
        measured = measure(footage, oracle(), SETTINGS)
        few = replace(measured, times=measured.times[:5])
        aggregated = aggregate(footage.name, measured, SETTINGS)
        assert reasons(few, aggregated, SETTINGS) == ["5 frames; at least 8 are needed"]
