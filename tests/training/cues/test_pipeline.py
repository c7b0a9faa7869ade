"""The whole way from a scene's pictures to answers, with the scene itself as the estimators."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.training.cues.conftest import SETTINGS, Estimate, exact
from training.cues.aggregate import aggregate, vertical
from training.cues.estimators import Estimators
from training.cues.measure import measure
from training.cues.noise import again, questions_of
from training.cues.oracle import Noise, Truth, scaled
from training.cues.rotations import level
from training.questions.candidates import Candidate
from training.questions.cues import FloatArray, Track
from training.questions.templates import KINDS, TYPES
from training.questions.viewpoints import bodies


def in_sight(asked: Candidate) -> bool:
    """Everything that the question names is seen in every frame that it needs: what is hidden nobody can know."""
    frames = [*range(len(asked.cues.times))[asked.ask.frames], *range(asked.ask.start, asked.ask.end + 1)]
    frames += [] if asked.ask.at is None else [asked.ask.at]
    named = [asked.around[number].track for number in asked.ask.named]
    return all(track is None or track.visible[frames].all() for track in named)


def steady(asked: Candidate) -> bool:
    """Its words do not hang on a millionth. Where a thing stands exactly still the ratio of its steps is anything."""
    random = np.random.default_rng(0)
    shaken = [asked.values + 1e-6 * random.uniform(-1, 1, asked.values.shape) for _ in range(8)]
    lengths = asked.ask.kind in ("dis", "spd", "spd_comp")
    say = KINDS[asked.ask.kind].say
    return all(say(np.abs(values) if lengths else values) == asked.statements for values in shaken)


def matched(truth: Truth, found: tuple[Track, ...]) -> list[tuple[Track, Track]]:
    by_name = {track.name: track for track in found}
    return [(track, by_name[track.name]) for track in truth.cues.tracks if track.name in by_name]


def error(truth: Truth, tracks: tuple[Track, ...]) -> float:
    """Root mean square distance from the true centres, metres, over frames in sight."""
    pairs = matched(truth, tracks)
    away = [(found.centres - true.centres)[true.visible & np.isfinite(found.centres).all(1)] for true, found in pairs]
    return float(np.sqrt((np.concatenate(away) ** 2).sum(axis=1).mean()))


def test_exact_estimators_give_the_answers_of_the_scenes_own_cues(truths: list[Truth], estimate: Estimate) -> None:
    same = Counter[str]()
    for truth in truths:
        found = estimate(truth, exact(truth)).cues
        around = bodies(found)
        places = {body.name: number for number, body in enumerate(around)}
        questions = [asked for asked in questions_of(truth.cues, 25, 0) if in_sight(asked)]
        certain = [asked for asked in questions if steady(asked)]
        assert len(certain) > 0.9 * len(questions)
        for asked in certain:
            assert again(asked, around, places, found) == asked.statements, (truth.scene.video, asked.ask)
            same[asked.ask.type] += 1
    assert set(same) == set(TYPES)
    assert min(same.values()) >= 10  # enough of every type to mean something


def test_exact_estimators_give_the_scenes_own_tracks(truths: list[Truth], estimate: Estimate) -> None:
    for truth in truths:
        found = estimate(truth, exact(truth))
        np.testing.assert_array_equal(found.cues.times, truth.cues.times)
        np.testing.assert_allclose(found.cues.camera_to_world, truth.cues.camera_to_world, atol=1e-12)
        pairs = matched(truth, found.cues.tracks)
        assert len(pairs) == len(truth.cues.tracks)
        for true, track in pairs:
            np.testing.assert_array_equal(track.visible, true.visible)
            # Points are float32: a few parts in ten million of 10 m.
            np.testing.assert_allclose(track.centres[true.visible], true.centres[true.visible], atol=1e-5)
            assert track.is_agent == true.is_agent
            np.testing.assert_array_equal(track.boxes[true.visible], true.boxes[true.visible])
        assert found.bandwidths == [0.0] * len(pairs)  # nothing to smooth
        assert sum(found.outliers) == 0


def test_what_is_told_of_a_thing_stands_at_its_track(truths: list[Truth]) -> None:
    """Things come in the order of their detection, tracks in that of their names."""
    measured = measure(truths[0].footage(), exact(truths[0]), SETTINGS)
    count = len(measured.names)
    names = np.array([f"thing {count - number}" for number in range(count)])
    jumping = measured.centres.copy()
    jumping[0, 12] += 50
    found = aggregate("v", replace(measured, names=names, centres=jumping), SETTINGS)
    [jumped] = [number for number, track in enumerate(found.cues.tracks) if track.name == names[0]]
    assert count > 1
    assert [number for number, outliers in enumerate(found.outliers) if outliers] == [jumped]


@pytest.mark.parametrize(
    "noise",
    [Noise(depth=0.03), Noise(turn=1.0), Noise(move=0.02), Noise(depth=0.02, turn=0.5, move=0.01)],
    ids=["depth", "camera turned", "camera moved", "all"],
)
def test_aggregation_beats_a_mean_of_each_frame(truths: list[Truth], estimate: Estimate, noise: Noise) -> None:
    """Each frame alone: the mean of the valid points in the mask, by the pose of that frame."""
    alone, together = [], []
    for truth in truths:
        estimators = exact(truth, noise)
        measured = measure(truth.footage(), estimators, SETTINGS)
        found = aggregate(truth.scene.video, measured, SETTINGS).cues
        world = np.einsum("fij,nfj->nfi", measured.poses[:, :3, :3], measured.centres) + measured.poses[:, :3, 3]
        ordered = _ordered(found.tracks, measured.names)
        frames = [replace(track, centres=own) for track, own in zip(ordered, world, strict=True)]
        alone.append(error(truth, tuple(frames)))
        together.append(error(truth, found.tracks))
    assert np.mean(together) < 0.8 * np.mean(alone), (together, alone)


def _ordered(tracks: tuple[Track, ...], names: np.ndarray) -> list[Track]:
    by_name = {track.name: track for track in tracks}
    return [by_name[str(name)] for name in names]


def test_aggregation_beats_single_frames_for_fronts(truths: list[Truth], estimate: Estimate) -> None:
    def off(noisy: FloatArray, true: FloatArray) -> float:
        return float(np.degrees(np.arccos(np.clip((noisy * true).sum(axis=1), -1, 1))).mean())

    alone, together = [], []
    for truth in truths:
        measured = measure(truth.footage(), exact(truth, Noise(front=10.0)), SETTINGS)
        fronts = np.einsum("fij,nfj->nfi", measured.poses[:, :3, :3], measured.forward)
        for true, track in matched(truth, aggregate(truth.scene.video, measured, SETTINGS).cues.tracks):
            if true.forward is not None and track.forward is not None:
                alone.append(off(fronts[list(measured.names).index(true.name)], true.forward))
                together.append(off(track.forward, true.forward))
    assert np.mean(together) < 0.8 * np.mean(alone), (together, alone)


def test_the_unit_of_the_geometry_does_not_matter(truths: list[Truth], estimate: Estimate) -> None:
    """π³ has no unit: whichever it had, the same cues come out."""
    one, other = (
        estimate(truths[0], _in_unit(exact(truths[0], Noise(surface=True)), factor)) for factor in (0.01, 3.0)
    )
    assert other.scale == pytest.approx(one.scale * 0.01 / 3.0, rel=1e-4)
    np.testing.assert_allclose(one.cues.camera_to_world, other.cues.camera_to_world, rtol=1e-4, atol=1e-4)
    for first, second in zip(one.cues.tracks, other.cues.tracks, strict=True):
        np.testing.assert_allclose(first.centres, second.centres, rtol=1e-4, atol=1e-4)


def test_lengths_have_the_unit_of_rendered_scenes(truths: list[Truth], estimate: Estimate) -> None:
    found = estimate(truths[0], _in_unit(exact(truths[0]), 7.0))
    measured = measure(truths[0].footage(), _in_unit(exact(truths[0]), 7.0), SETTINGS)
    assert found.scale * float(measured.depth) == pytest.approx(SETTINGS.median_depth)


def _in_unit(estimators: Estimators, factor: float) -> Estimators:
    return replace(estimators, geometer=scaled(estimators.geometer, factor))


def test_the_vertical_is_found_where_nobody_states_it(truths: list[Truth]) -> None:
    """By the agents that stand, or, where nothing has a front, by the cameras' level x axes and how they are held."""
    for truth in truths:
        measured = measure(truth.footage(), exact(truth), SETTINGS)
        unknown = replace(measured, up=np.full(3, np.nan))
        assert np.degrees(np.arccos(vertical(unknown)[2])) < 3  # a bird leans where it climbs
        cameras = replace(unknown, sure=np.zeros_like(unknown.sure))
        held = np.degrees(np.arccos(-measured.poses[:, 2, 1].mean()))
        assert np.degrees(np.arccos(vertical(cameras)[2])) <= held + 1e-6


def test_levelling_turns_the_vertical_to_z() -> None:
    random = np.random.default_rng(0)
    ups = [np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0]), *random.normal(size=(20, 3))]
    for up in ups:
        unit = up / np.linalg.norm(up)
        turn = level(unit)
        np.testing.assert_allclose(turn @ unit, [0, 0, 1], atol=1e-9)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_more_noise_changes_more_answers(truths: list[Truth], estimate: Estimate) -> None:
    def changed(noise: Noise) -> float:
        tally = Counter[bool]()
        for truth in truths[:3]:
            found = estimate(truth, exact(truth, noise)).cues
            around = bodies(found)
            places = {body.name: number for number, body in enumerate(around)}
            answers = [(q, again(q, around, places, found)) for q in questions_of(truth.cues, 10, 0)]
            tally.update(answer != q.statements for q, answer in answers if answer is not None)
        return tally[True] / tally.total()

    shares = [changed(Noise(depth=depth)) for depth in (0.0, 0.02, 0.1)]
    assert shares[0] < shares[1] < shares[2]


def test_a_camera_may_turn_all_the_way_round(truths: list[Truth]) -> None:
    """An orbit of 540 degrees, with a degree of noise: smoothing comes nearer to it, and nowhere goes the other way."""
    angles, random = np.radians(np.linspace(0, 540, 32)), np.random.default_rng(0)
    true = np.stack([rotation(np.array([0.0, 0, angle])) for angle in angles])
    noisy = np.stack([turn @ rotation(random.normal(0, np.radians(1), 3)) for turn in true])
    measured = measure(truths[0].footage(), exact(truths[0]), SETTINGS)
    poses = measured.poses.copy()
    poses[:, :3, :3] = noisy
    found = aggregate("orbit", replace(measured, poses=poses), SETTINGS).cues.camera_to_world[:, :3, :3]

    def off(turns: FloatArray) -> FloatArray:
        return np.degrees(np.arccos(np.clip((np.einsum("fij,fij->f", turns, true) - 1) / 2, -1, 1)))

    assert off(found).mean() < 0.7 * off(noisy).mean()
    assert off(found).max() < 3


def rotation(vector: FloatArray) -> FloatArray:
    """[3] radians about an axis -> [3, 3]."""
    angle = max(float(np.linalg.norm(vector)), 1e-12)
    x, y, z = vector / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def test_paths_show_the_noise_that_they_have(truths: list[Truth], estimate: Estimate) -> None:
    noise = [estimate(truth, exact(truth, Noise(turn=1.0, move=0.02, front=10.0))).noise for truth in truths]
    depths = [float(np.median(truth.rendered.depth[truth.rendered.depth < 1e9])) for truth in truths]
    assert np.median([one.turn for one in noise]) == pytest.approx(1.0, rel=0.3)
    moves = [one.move / depth for one, depth in zip(noise, depths, strict=True)]
    assert np.median(moves) == pytest.approx(0.02, rel=0.3)
    # About two of three axes it moves a front, and what is told is one coordinate's.
    assert np.median([one.front for one in noise]) == pytest.approx(10.0 * np.sqrt(2 / 3), rel=0.4)
