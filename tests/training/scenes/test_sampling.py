"""What scenes are made of: always the same for a seed, physically possible, and varied enough to ask about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from training.questions import verbalise
from training.questions.cues import FloatArray
from training.scenes import Body, Scene, SceneConfig, Seeds, project, sample_scene
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.config import CAMERA_MOVES
from training.scenes.motion import MOVES
from training.scenes.parts import Shape


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [sample_scene(seed) for seed in range(120)]


def bodies(many: Iterable[Scene]) -> list[Body]:
    return [body for scene in many for body in scene.bodies]


def steps(body: Body) -> FloatArray:
    return np.linalg.norm(np.diff(body.centres, axis=0), axis=1)


def shares(counts: Counter[str]) -> dict[str, float]:
    return {word: count / counts.total() for word, count in counts.items()}


def said(verbaliser: Callable[[FloatArray], tuple[str, ...]], tracks: Iterable[FloatArray]) -> dict[str, float]:
    return shares(Counter(word for track in tracks for word in verbaliser(track)))


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    one, again, other = sample_scene(5), sample_scene(5), sample_scene(6)
    assert one.bodies[0].parts == again.bodies[0].parts
    for first, second in zip(one.bodies, again.bodies, strict=True):
        assert first.name == second.name
        assert np.array_equal(first.centres, second.centres)
        assert np.array_equal(first.axes, second.axes)
    assert np.array_equal(one.camera_to_world, again.camera_to_world)
    assert np.array_equal(one.times, again.times)
    assert np.array_equal(one.look.shades, again.look.shades)
    assert not np.array_equal(one.camera_to_world, other.camera_to_world)


def test_names_kinds_and_colours_are_unique_in_a_scene(many: list[Scene]) -> None:
    for scene in many:
        assert 2 <= len(scene.bodies) <= 5
        assert len({body.kind for body in scene.bodies}) == len(scene.bodies)
        assert len({body.colour for body in scene.bodies}) == len(scene.bodies)
        assert scene.bodies[0].name == f"{scene.bodies[0].colour} {scene.bodies[0].kind}"


def test_every_scene_has_an_agent_and_almost_every_one_an_agent_that_moves(many: list[Scene]) -> None:
    assert all(any(body.is_agent for body in scene.bodies) for scene in many)
    moving = [any(body.is_agent and steps(body).sum() > 0.3 for body in scene.bodies) for scene in many]
    assert np.mean(moving) > 0.95  # a path may be one of standing and turning


def test_every_kind_colour_shape_move_and_camera_move_occurs(many: list[Scene]) -> None:
    assert {body.kind for body in bodies(many)} == {kind.name for kind in KINDS}
    assert {body.colour for body in bodies(many)} == set(COLOURS)
    assert {part.shape for body in bodies(many) for part in body.parts} == set(Shape)
    assert {move for body in bodies(many) for move in body.moves} == set(MOVES)
    assert {scene.camera_move for scene in many} == set(CAMERA_MOVES)
    assert {len(scene.bodies) for scene in many} == {2, 3, 4, 5}


def test_poses_are_rotations_and_upright(many: list[Scene]) -> None:
    for scene in many:
        rotation = scene.camera_to_world[:, :3, :3]
        np.testing.assert_allclose(rotation @ np.swapaxes(rotation, 1, 2), np.tile(np.eye(3), (32, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
        np.testing.assert_allclose(rotation[:, 2, 0], 0, atol=1e-12)
        assert (rotation[:, 2, 1] < 0).all()  # the camera's y axis points down
        assert (scene.camera_to_world[:, 3] == [0, 0, 0, 1]).all()
        for body in scene.bodies:
            own = np.swapaxes(body.axes, 1, 2) @ body.axes
            np.testing.assert_allclose(own, np.tile(np.eye(3), (32, 1, 1)), atol=1e-12)
            np.testing.assert_allclose(np.linalg.det(body.axes), 1, atol=1e-12)


def test_cameras_of_a_kind_move_as_it_says(many: list[Scene]) -> None:
    for scene in many:
        eyes, looks = scene.camera_to_world[:, :3, 3], scene.camera_to_world[:, :3, 2]
        moved, turned = np.ptp(eyes, axis=0).max(), np.arccos(np.clip(looks[0] @ looks[-1], -1, 1))
        assert (moved > 0.5) == (scene.camera_move not in ("static", "pan"))
        assert (turned > 0.05) or scene.camera_move in ("static", "dolly", "track", "crane")


def test_objects_stay_on_the_stage_above_the_ground_and_never_meet(many: list[Scene]) -> None:
    for scene in many:
        for body in scene.bodies:
            assert np.hypot(*body.centres.T[:2]).max() < scene.config.stage
            lowest = min(part.centre[2] - part.half[2] for part in body.parts)
            assert (body.centres[:, 2] + lowest).min() > -0.2  # the foot; a bird that dives tilts its own
        for one, other in combinations(scene.bodies, 2):
            apart = np.abs(one.centres - other.centres)
            assert (np.hypot(apart[:, 0], apart[:, 1]) + apart[:, 2] > 0.8).all()


def test_objects_are_in_the_picture_most_of_the_time(many: list[Scene]) -> None:
    for scene in many:
        seen = project(scene, np.stack([body.centres for body in scene.bodies]))
        inside = ((seen[..., :2] > 0) & (seen[..., :2] < scene.config.size)).all(axis=-1) & (seen[..., 2] > 0)
        assert (inside.mean(axis=1) >= 0.8).all()


def test_motion_has_no_jumps(many: list[Scene]) -> None:
    for scene in many:
        assert max(steps(body).max() for body in scene.bodies) < 1.3 * scene.config.steps[1]
        turns = [np.arccos(np.clip((b.axes[1:, :, 0] * b.axes[:-1, :, 0]).sum(-1), -1, 1)) for b in scene.bodies]
        assert max(turn.max() for turn in turns) < 1.3
        assert np.linalg.norm(np.diff(scene.camera_to_world[:, :3, 3], axis=0), axis=1).max() < 1.5


def test_some_objects_stand_and_most_move_at_many_speeds(many: list[Scene]) -> None:
    longest = np.array([steps(body).max() for body in bodies(many)])
    assert 0.1 < (longest < 1e-9).mean() < 0.4
    assert (longest > 0.2).mean() > 0.4
    moving = np.concatenate([steps(body) for body in bodies(many)])
    moving = moving[moving > 0.1]
    assert np.percentile(moving, 90) > 2 * np.percentile(moving, 10)


def test_agents_mostly_go_where_they_face_but_not_always(many: list[Scene]) -> None:
    agents = [body for body in bodies(many) if body.is_agent]
    forward = np.concatenate([body.axes[:-1, :, 0] for body in agents])
    moved = np.concatenate([np.diff(body.centres, axis=0) for body in agents])
    length, facing = np.linalg.norm(moved, axis=1), np.linalg.norm(np.diff(forward, axis=0, append=0), axis=1)
    along = (forward * moved).sum(axis=1)[length > 0.05] / length[length > 0.05]
    assert np.mean(along > 0.9) > 0.75
    assert np.mean(along < -0.9) > 0.02  # backwards
    assert np.mean(np.abs(along) < 0.5) > 0.01  # sideways
    assert np.mean((length < 0.01) & (facing > 0.1)) > 0.02  # turning on the spot


def test_words_of_every_question_type_occur_often(many: list[Scene]) -> None:
    eyes = [scene.camera_to_world[:, :3, 3] for scene in many]
    speeds = said(verbalise.trends, (steps(body) for body in bodies(many)))
    constant = (verbalise.CONSTANT, verbalise.THEN_LARGER, verbalise.THEN_SMALLER)
    assert min(speeds[word] for word in (*constant, verbalise.LARGER, verbalise.SMALLER)) > 0.08
    between = (one.centres - other.centres for scene in many for one, other in combinations(scene.bodies, 2))
    to_camera = (body.centres - eye for scene, eye in zip(many, eyes, strict=True) for body in scene.bodies)
    for tracks in (between, to_camera):
        distances = said(verbalise.trends, (np.linalg.norm(track, axis=1) for track in tracks))
        # A distance rarely changes by a fifth from one frame to the next, so the other two are rare in any video.
        assert min(distances[word] for word in constant) > 0.12
    pairs = (np.stack([steps(one), steps(other)], 1) for s in many for one, other in combinations(s.bodies, 2))
    compared = said(verbalise.comparisons, pairs)
    assert min(compared[word] for word in (verbalise.SAME, verbalise.FORMER, verbalise.LATTER)) > 0.15


def test_every_direction_word_occurs_often(many: list[Scene]) -> None:
    def in_camera(scene: Scene, vectors: FloatArray) -> FloatArray:
        x, y, z = np.einsum("fji,fj->if", scene.camera_to_world[:, :3, :3], vectors)
        return np.stack([z, -x, -y], axis=1)

    fronts = (in_camera(s, body.axes[:, :, 0]) for s in many for body in s.bodies if body.is_agent)
    places = (in_camera(s, one.centres - two.centres) for s in many for one, two in combinations(s.bodies, 2))
    for tracks, least in ((fronts, 0.08), (places, 0.15)):
        labels = said(verbalise.directions, tracks)
        for word in ("Front", "Behind", "Left", "Right", "Above", "Below"):
            assert sum(share for label, share in labels.items() if word in label.split("|")) > least, word


def test_times_are_whole_milliseconds_that_differ_when_rounded_to_tenths(many: list[Scene]) -> None:
    for scene in many:
        assert scene.times[0] == 0
        assert np.allclose(1000 * scene.times, np.round(1000 * scene.times), atol=1e-9)
        assert len(set(np.round(scene.times, 1))) == len(scene.times)
        assert 3.9 < scene.times[-1] <= 10


def test_the_config_is_obeyed() -> None:
    asked = SceneConfig(
        frames=8, seconds=(2.0, 2.1), size=(140, 84), objects=(3, 3), still_share=1.0, camera_moves=("pan",)
    )
    for scene in (sample_scene(seed, asked) for seed in range(12)):
        assert len(scene.times) == 8
        assert 1.99 < scene.times[-1] <= 2.1
        assert len(scene.bodies) == 3
        assert scene.camera_move == "pan"
        assert scene.intrinsics[:2, 2].tolist() == [70, 42]
        assert sum(steps(body).max() > 0 for body in scene.bodies) <= 2  # the first moves, one in ten agents too


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": (112, 100)}, "size"),
        ({"objects": (1, 3)}, "objects"),
        ({"objects": (4, 3)}, "objects"),
        ({"seconds": (2.0, 4.0)}, "frames is 32 in 2.0 s"),
        ({"still_share": 1.5}, "still_share"),
        ({"camera_moves": ("fly",)}, "camera_moves"),
        ({"field_of_view": (50.0, 120.0)}, "field_of_view"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(SceneConfig(), **change)  # type: ignore[arg-type]


def test_a_stage_without_room_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"no room for 5 objects on a stage of 0\.5 m"):
        sample_scene(0, SceneConfig(stage=0.5, objects=(5, 5)))


def test_seeds_for_training_and_for_evaluation_never_meet() -> None:
    assert Seeds.train(7) == 7
    assert Seeds.train(Seeds.COUNT - 1) < Seeds.held_out(0)
    assert Seeds.held_out(3) != Seeds.held_out(4)
    for wrong in (-1, Seeds.COUNT):
        with pytest.raises(ValueError, match=str(wrong)):
            Seeds.train(wrong)
