"""Cues of rendered scenes: exact, and in agreement with what is seen."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.scenes.stages import agent, ball, stage
from training.questions.cues import Cues
from training.scenes import Body, Rendered, Scene, cues_of, project, render


@pytest.fixture(scope="module")
def cues(scenes: list[Scene], rendered: list[Rendered]) -> list[Cues]:
    return [cues_of(scene, seen) for scene, seen in zip(scenes, rendered, strict=True)]


def body_of(scene: Scene, name: str) -> tuple[int, Body]:
    return next((number, body) for number, body in enumerate(scene.bodies, 1) if body.name == name)


def test_cues_are_those_of_the_scene(scenes: list[Scene], cues: list[Cues]) -> None:
    for scene, cue in zip(scenes, cues, strict=True):
        assert cue.video == scene.video
        assert cue.size == scene.config.size
        assert np.array_equal(cue.times, np.round(scene.times, 1))
        assert np.array_equal(cue.camera_to_world, scene.camera_to_world)
        assert [track.name for track in cue.tracks] == sorted(body.name for body in scene.bodies)
        for track in cue.tracks:
            _, body = body_of(scene, track.name)
            assert np.array_equal(track.centres, body.centres)
            assert track.is_agent == body.is_agent
            assert track.forward is None or np.array_equal(track.forward, body.axes[:, :, 0])
            assert (track.confidence == 1).all()


def test_a_box_holds_exactly_the_pixels_that_are_seen(
    scenes: list[Scene], rendered: list[Rendered], cues: list[Cues]
) -> None:
    for scene, seen, cue in zip(scenes, rendered, cues, strict=True):
        for track in cue.tracks:
            number, _ = body_of(scene, track.name)
            for frame in (0, 13, 31):
                rows, columns = np.nonzero(seen.masks[frame].numpy() == number)
                if not len(rows):
                    assert np.isnan(track.boxes[frame]).all()
                    assert not track.visible[frame]
                    continue
                edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert track.boxes[frame].tolist() == edges


def test_the_middle_of_a_visible_object_is_inside_its_box(
    scenes: list[Scene], rendered: list[Rendered], cues: list[Cues]
) -> None:
    checked = on_it = 0
    for scene, seen, cue in zip(scenes, rendered, cues, strict=True):
        for track in cue.tracks:
            number, body = body_of(scene, track.name)
            pixels = (seen.masks == number).sum(dim=(1, 2)).numpy()
            column, row, _ = project(scene, body.centres).T
            assert ((column[track.visible] >= 0) & (column[track.visible] < 112)).all()
            # Where something is before it, what is seen of it may end beside its middle.
            clear = track.visible & (pixels == seen.whole[:, number - 1].numpy())
            left, top, right, bottom = track.boxes[clear].T
            assert ((column[clear] >= left) & (column[clear] <= right)).all()
            assert ((row[clear] >= top) & (row[clear] <= bottom)).all()
            frames = np.flatnonzero(clear)
            masks = seen.masks.numpy()[frames, row[clear].astype(int), column[clear].astype(int)]
            checked, on_it = checked + len(frames), on_it + int((masks == number).sum())
    assert checked > 300
    assert on_it > 0.9 * checked  # between the legs, or under the body of a small bird, there is nothing


def test_what_is_hidden_far_outside_or_tiny_is_not_visible() -> None:
    tall, hidden = ball((-3, 0, 2), 1.2), ball((3, 2.2, 2), 0.8)  # of the second, a sixth is seen beside the first
    tiny, aside, clear = ball((20, 4, 2), 0.1), ball((0, 5.5, 2), 1.5), ball((-3, -2.2, 1.5), 0.5)
    named = [
        Body("ball", colour, False, one.parts, one.centres, one.axes, ())
        for colour, one in zip(
            ("red", "blue", "pink", "green", "white"), (tall, hidden, tiny, aside, clear), strict=True
        )
    ]
    scene = stage(named)
    pictures = render(scene)
    assert 10 < (pictures.masks[0] == 2).sum() < 0.3 * pictures.whole[0, 1]
    seen = {track.name: track.visible[0] for track in cues_of(scene, pictures).tracks}
    assert seen == {
        "red ball": True,
        "blue ball": False,
        "pink ball": False,
        "green ball": False,
        "white ball": True,
    }


def test_the_forward_axis_is_the_side_with_the_lamps() -> None:
    scene = stage([agent("car", "blue", [0.0, np.pi / 2])], eye=(0, -6, 1.5), target=(0, 0, 0.6))
    seen = render(scene)
    forward = cues_of(scene, seen).tracks[0].forward
    assert forward is not None
    np.testing.assert_allclose(forward, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    # Seen from its right side, a car that drives along x has its front on the right.
    bright = (seen.frames[0] > 200).all(dim=-1) & (seen.masks[0] == 1)
    assert (bright.nonzero()[:, 1] > 56).all()
