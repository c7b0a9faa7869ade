"""Frames of reference: axes, fixed and moving viewpoints, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.questions.motions import looking, scenes
from training.questions.cues import Cues, FloatArray, Track
from training.questions.templates import Ask, quantity
from training.questions.verbalise import directions
from training.questions.viewpoints import Body, View, agent_axes, bodies, camera_axes

F = 8


def still(place: tuple[float, float, float]) -> FloatArray:
    return np.tile(np.array(place, float), (F, 1))


def track(name: str, centres: FloatArray, forward: FloatArray | None = None, confidence: float = 1.0) -> Track:
    boxes = np.tile([10.0, 10, 20, 20], (F, 1))
    return Track(name, centres, boxes, np.ones(F, bool), np.full(F, confidence), forward)


def cues(*tracks: Track, poses: FloatArray | None = None) -> Cues:
    poses = looking(still((0, 0, 1)), still((1, 0, 1))) if poses is None else poses
    return Cues("clip", np.arange(F) / 5, poses, (640, 360), tracks)


def test_camera_axes_are_forward_left_up() -> None:
    """x right, y down, z forward of the camera become (z, -x, -y)."""
    poses = np.tile(np.eye(4), (F, 1, 1))
    view = View(np.zeros((F, 3)), camera_axes(poses))
    assert np.allclose(view.points(np.tile([1.0, 2, 3], (F, 1))), [3, -1, -2])


def test_agent_looks_along_its_forward_axis_with_left_on_its_left() -> None:
    """It looks along the world's y: the world's -x is on its left."""
    agent = Body(still((5, 5, 0)), agent_axes(track("cat", still((5, 5, 0)), still((0, 2, 0)))))
    seen = View.fixed(agent, 0).points(np.array([[4.0, 5, 0], [5, 7, 0], [5, 5, 1]]))
    assert np.allclose(seen, [(0, 1, 0), (2, 0, 0), (0, 0, 1)])


@pytest.mark.parametrize(("forward", "confidence"), [((1, 0, 0), 0.59), ((0, 0, 1), 1.0), ((np.nan, 0, 0), 1.0)])
def test_unsure_orientation_is_unknown(forward: tuple[float, float, float], confidence: float) -> None:
    axes = agent_axes(track("cat", still((0, 0, 0)), still(forward), confidence))
    assert axes is not None
    assert np.isnan(axes).all()


def test_things_have_no_view() -> None:
    with pytest.raises(ValueError, match="no front"):
        View.fixed(Body(still((0, 0, 0)), None), 0)


def test_absolute_viewpoint_stands_still_and_relative_one_follows() -> None:
    """The camera drives a metre per frame, past a stone that moves for it and does not move for who stands still."""
    drive = np.stack([np.linspace(0, 7, F), np.zeros(F), np.zeros(F)], axis=1)
    poses = looking(drive, drive + np.array([1, 0, 0]))
    around = bodies(cues(track("stone", still((3.5, 1, 0))), poses=poses))
    passed = directions(quantity(around, Ask("dir", 0, (1, 0), 0, 7)))
    assert passed == ("Front", "Front|Left", "Behind|Left", "Behind")
    assert np.allclose(quantity(around, Ask("spd", 0, (1,), 0, 7)), 1)
    assert np.allclose(quantity(around, Ask("spd", 0, (1,), 0, 7, 3)), 0)
    assert np.allclose(quantity(around, Ask("spd", 0, (0,), 0, 7, 3)), 1)


def test_axes_of_an_absolute_viewpoint_are_those_of_its_frame_even_outside_the_interval() -> None:
    """The camera turns left by a right angle; what is in front of it at first is on its right in the end."""
    angle = np.linspace(0, np.pi / 2, F)
    poses = looking(still((0, 0, 0)), np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1))
    around = bodies(cues(track("stone", still((9, 0, 0))), poses=poses))
    assert directions(quantity(around, Ask("dir", 0, (1, 0), 0, 4, 0))) == ("Front",)
    assert directions(quantity(around, Ask("dir", 0, (1, 0), 0, 4, 7))) == ("Right",)
    assert directions(quantity(around, Ask("dir", 0, (1, 0), 0, 7))) == ("Front", "Front|Right", "Right")


def test_relative_viewpoint_of_a_viewer_that_stands_still_equals_the_absolute_one() -> None:
    for scene in scenes(6, seed=4):
        stopped = np.tile(scene.camera_to_world[:1], (len(scene.times), 1, 1))
        around = bodies(Cues(scene.video, scene.times, stopped, scene.size, scene.tracks))
        for kind, targets in (("dis", (1, 2)), ("dir", (1, 2)), ("dir", (1, 0)), ("spd", (1,)), ("spd_comp", (1, 2))):
            for at in (0, 13, 29):
                fixed, moving = Ask(kind, 0, targets, 3, 25, at), Ask(kind, 0, targets, 3, 25)
                assert np.allclose(quantity(around, fixed), quantity(around, moving), atol=1e-12)
        assert np.allclose(
            quantity(around, Ask("dir_pred", 0, (1,), 3, 25, 7)), quantity(around, Ask("dir_pred", 0, (1,), 3, 25))
        )
