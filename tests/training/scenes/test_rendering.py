"""The renderer: depth and masks as geometry demands, pictures that do not flicker and are always the same."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.scenes.stages import FOCAL, agent, ball, body, stage
from training.scenes import Rendered, Scene, points, render, render_many, rendering, sample_scene
from training.scenes.backdrop import FAR
from training.scenes.cameras import look_at
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.parts import Part, Shape

AGENTS = [kind.name for kind in KINDS if kind.is_agent]


def same(one: Rendered, other: Rendered) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("frames", "depth", "masks", "whole"))


def differing(one: Tensor, other: Tensor) -> Tensor:
    """[H, W] the largest difference of a channel."""
    return (one.int() - other.int()).abs().amax(dim=-1)


def test_depth_of_the_ground_is_that_of_a_plane_and_the_sky_has_none() -> None:
    seen = render(stage([ball((0, 50, 1), 1.0)])).depth
    rows = torch.arange(84) + 0.5
    expected = torch.where(rows > 42, 2.0 * FOCAL / (rows - 42), torch.inf)
    expected[expected > FAR] = torch.inf
    torch.testing.assert_close(seen[0], expected[:, None].expand(84, 112), rtol=1e-5, atol=0)


def test_depth_of_a_sphere_is_the_analytic_one() -> None:
    centre, radius = torch.tensor([1.0, 0.7, 2.4]), 0.9
    seen = render(stage([ball(centre.tolist(), radius)]))
    surface = points(seen).world[seen.masks == 1]
    # float32 at 10 m: the last digit is a micrometre, and several operations add up.
    torch.testing.assert_close((surface - centre).norm(dim=1), torch.full((len(surface),), radius), atol=2e-5, rtol=0)
    # The four rays half a pixel beside the axis: |t * ray - 8 ahead| = 0.9, solved for the depth t.
    middle = render(stage([ball((0, 0, 2), 0.9)], size=(84, 84))).depth[0, 41:43, 41:43]
    squared = 1 + 2 * (0.5 / FOCAL) ** 2
    depth = (8 - math.sqrt(8**2 - squared * (8**2 - 0.9**2))) / squared
    torch.testing.assert_close(middle, torch.full((2, 2), depth), atol=5e-6, rtol=0)


def test_a_sphere_covers_the_area_that_perspective_demands() -> None:
    seen = render(stage([ball((0, 0, 2), 1.2)]))
    radius = FOCAL * 1.2 / math.sqrt(8**2 - 1.2**2)  # the tangent of its angular radius, on the axis
    assert (seen.masks[0] == 1).sum().item() == pytest.approx(math.pi * radius**2, rel=0.02)  # pixels at the rim


def test_a_turned_box_shows_each_face_at_its_own_plane() -> None:
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    part = Part(Shape.BOX, (0, 0, 0), (1.0, 0.6, 0.8), COLOURS["red"])
    seen = render(stage([body(part, (0, 0, 2), axes=turn)]))
    own = (points(seen).world[seen.masks == 1] - torch.tensor([0, 0, 2.0])) @ torch.tensor(turn, dtype=torch.float32)
    largest = (own.abs() / torch.tensor([1.0, 0.6, 0.8])).amax(dim=1)
    torch.testing.assert_close(largest, torch.ones_like(largest), atol=2e-5, rtol=0)


def test_a_cone_stands_on_its_wide_end_and_a_lying_one_points_forward() -> None:
    upright = Part(Shape.FRUSTUM, (0, 0, 0), (0.8, 0.8, 1.0), COLOURS["red"], taper=0.0)
    lying = replace(upright, half=(1.0, 0.8, 0.8), axis=0)
    to_the_left = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    high = render(stage([body(upright, (0, 0, 2))])).masks[0] == 1
    wide = render(stage([body(lying, (0, 0, 2), axes=to_the_left)])).masks[0] == 1
    assert high[:42].sum() < 0.5 * high[42:].sum()
    assert wide[:, :56].sum() < 0.5 * wide[:, 56:].sum()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_object_hides_the_farther_in_any_order(order: tuple[int, int]) -> None:
    two = [ball((-2, 0, 2), 0.5), ball((1, 0, 2), 1.2)]
    seen = render(stage([two[index] for index in order]))
    assert seen.masks[0, 42, 56] == 1 + order.index(0)
    assert seen.whole[0, order.index(1)] > (seen.masks[0] == 1 + order.index(1)).sum()


def test_every_pixel_shows_the_nearest_of_what_the_objects_show_alone(
    scenes: list[Scene], rendered: list[Rendered]
) -> None:
    for scene, together in zip(scenes[:4], rendered[:4], strict=True):
        alone = render_many([replace(scene, bodies=(one,)) for one in scene.bodies])
        depth = torch.stack([torch.where(one.masks == 1, one.depth, torch.inf) for one in alone])
        nearest, which = depth.min(dim=0)
        assert torch.equal(together.masks, torch.where(torch.isfinite(nearest), which + 1, 0).to(torch.uint8))
        met = together.masks > 0
        assert torch.equal(together.depth[met], nearest[met])
        assert torch.equal(together.whole, torch.stack([(one.masks == 1).sum(dim=(1, 2)) for one in alone], dim=1))


def test_points_of_a_still_scene_are_where_a_moving_camera_sees_them_later() -> None:
    scene = next(s for s in map(sample_scene, range(100)) if s.camera_move == "orbit" and len(s.bodies) > 2)
    frozen = tuple(replace(one, centres=one.centres[[0] * 32], axes=one.axes[[0] * 32]) for one in scene.bodies)
    seen = render(replace(scene, bodies=frozen))
    cloud = points(seen)
    first = cloud.world[0][cloud.valid[0]]
    for frame in (5, 15, 31):
        pose = seen.camera_to_world[frame]
        local = (first - pose[:3, 3]) @ pose[:3, :3]
        column, row, _ = ((local / local[:, 2:]) @ seen.intrinsics.T).unbind(1)
        ahead = (local[:, 2] > 0) & (local[:, 2] < FAR - 1)
        inside = ahead & (column > 0) & (column < 112) & (row > 0) & (row < 112)
        assert inside.sum() > 500
        expected, place = local[inside, 2], (row[inside].long(), column[inside].long())
        # The point lies between the centres of pixels, so its depth must lie between the depths around it.
        around = F.max_pool2d(torch.stack([seen.depth[frame], -seen.depth[frame]]), 3, 1, 1)
        farthest, nearest = around[0][place], -around[1][place]
        agree = (expected > 0.995 * nearest) & (expected < 1.005 * farthest)
        assert agree.float().mean() > 0.8  # the rest has gone behind something
        # A surface that was seen can be hidden later, but never be gone; parts thinner than a pixel may be missed.
        assert (expected < 0.995 * nearest).float().mean() < 0.002


def test_ground_has_no_height_and_points_agree_in_both_frames_of_reference(
    scenes: list[Scene], rendered: list[Rendered]
) -> None:
    for seen in rendered:
        cloud = points(seen)
        ground = cloud.valid & (seen.masks == 0)
        # 60 m away, the last digit of float32 is 4 micrometres in the depth.
        assert cloud.world[ground][:, 2].abs().max() < 1e-3
        back = cloud.camera @ seen.camera_to_world[:, None, :3, :3].mT + seen.camera_to_world[:, None, None, :3, 3]
        torch.testing.assert_close(back[cloud.valid], cloud.world[cloud.valid], atol=1e-4, rtol=0)
        assert torch.equal(cloud.camera[..., 2][cloud.valid], seen.depth[cloud.valid])
        assert (cloud.world[~cloud.valid] == 0).all()


def test_nothing_flickers_when_nothing_moves() -> None:
    seen = render(stage([agent("dog", "blue", [0.4] * 4)], eye=(-6, 1, 2.5), target=(0, 0, 0.5)))
    assert all(torch.equal(seen.frames[0], frame) for frame in seen.frames)


def test_a_shift_of_the_camera_by_less_than_a_pixel_changes_the_picture_little() -> None:
    scene = stage([agent("car", "red", [0.5, 0.5])], eye=(-7, 1, 2.5), target=(0, 0, 0.5))
    moved = scene.camera_to_world.copy()
    moved[1, :3, 3] += 0.01 * moved[1, :3, 0]  # a centimetre to the right: 0.14 pixels at the car
    seen = render(replace(scene, camera_to_world=moved))
    change = differing(seen.frames[0], seen.frames[1]).float()
    assert 0 < change.mean() < 3
    # Without smoothed edges a pixel in three on a silhouette would jump by the whole contrast or not at all.
    assert (change > 100).float().mean() < 0.003


def test_edges_are_mixtures_of_what_meets_there() -> None:
    white = Part(Shape.SPHERE, (0, 0, 0), (1, 1, 1), (1, 1, 1))
    look, black = stage([]).look, (0.0, 0.0, 0.0)
    look = replace(look, skylight=(1.0, 1.0, 1.0), sunlight=black, dark=black, light=black)
    look = replace(look, hills=black, zenith=black, horizon=black)
    seen = render(stage([body(white, (0, 0, 1))], target=(0, 0, 1), eye=(-6, 0, 1), look=look)).frames[0, :, :, 0]
    between = (seen > 40) & (seen < 175)  # the sphere itself is at least 180: the square root of 0.5
    rim = 2 * math.pi * FOCAL / 6
    assert (seen == 0).sum() > 5000
    assert between.sum() > 0.3 * rim  # one in three rim pixels, when edges are hard: none


def test_an_object_shades_the_ground_where_the_sun_says() -> None:
    high = np.array([0.0, 0.5, 2.5])
    with_it = stage([ball(high.tolist(), 0.5)], eye=(-8, 0, 4), target=(0, 0, 0.5))
    sun = with_it.look.sun
    foot = high - sun * (high[2] / sun[2])
    pose = with_it.camera_to_world[0]
    local = pose[:3, :3].T @ (foot - pose[:3, 3])
    column, row = (int(at) for at in (with_it.intrinsics @ (local / local[2]))[:2])
    lit, shaded = render(replace(with_it, bodies=(ball((0, 90, 1), 0.5),))), render(with_it)
    assert shaded.masks[0, row, column] == 0
    assert shaded.frames[0, row, column].max() < 0.85 * lit.frames[0, row, column].max()
    changed = differing(lit.frames[0], shaded.frames[0]) > 0
    assert 0.005 < changed.float().mean() < 0.12  # the ball and its shadow, and nothing else


@pytest.mark.parametrize("colour", list(COLOURS))
@pytest.mark.parametrize("kind", AGENTS)
def test_the_front_of_an_agent_looks_unlike_its_back(kind: str, colour: str) -> None:
    look = replace(stage([]).look, sun=np.array([0.0, 0.0, 1.0]))  # lights front and back alike
    seen = render(stage([agent(kind, colour, [np.pi, 0.0])], eye=(-6, 0, 1.6), target=(0, 0, 0.8), look=look))
    front, back = seen.frames[0], seen.frames[1].flip(1)
    area = (seen.masks[0] > 0) & (seen.masks[1].flip(1) > 0)
    unlike = (differing(front, back) > 50) & area
    assert unlike.sum() > 0.06 * area.sum()
    assert unlike.sum() > 20


def test_the_same_scene_gives_the_same_pictures_whatever_it_is_rendered_with(
    scenes: list[Scene], rendered: list[Rendered], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(render(scenes[3]), rendered[3])
    monkeypatch.setattr(rendering, "CPU_PIXELS", 7 * 112 * 112)  # chunks end in the middle of scenes
    for one, other in zip(render_many(scenes[2:4]), rendered[2:4], strict=True):
        assert same(one, other)


def test_other_seeds_give_other_pictures(rendered: list[Rendered]) -> None:
    for one, other in pairwise(rendered):
        assert (differing(one.frames, other.frames) > 8).float().mean() > 0.3


def test_pictures_and_tables_have_the_promised_shapes_and_types() -> None:
    scene = sample_scene(3, replace(sample_scene(0).config, size=(140, 84), frames=6, seconds=(1.0, 2.0)))
    seen, objects = render(scene), len(scene.bodies)
    assert (seen.frames.shape, seen.frames.dtype) == ((6, 84, 140, 3), torch.uint8)
    assert (seen.depth.shape, seen.depth.dtype) == ((6, 84, 140), torch.float32)
    assert (seen.masks.shape, seen.masks.dtype) == ((6, 84, 140), torch.uint8)
    assert seen.whole.shape == (6, objects)
    assert int(seen.masks.max()) <= objects
    torch.testing.assert_close(seen.camera_to_world.double(), torch.tensor(scene.camera_to_world))
    assert seen.intrinsics[:2, 2].tolist() == [70, 42]
    assert not seen.frames.is_inference()  # may be an input of what is trained


def test_scenes_of_different_sizes_and_cameras_that_roll_are_refused(scenes: list[Scene]) -> None:
    with pytest.raises(ValueError, match=r"\(32, \(112, 112\)\).*\(32, \(140, 84\)\)"):
        render_many([scenes[0], sample_scene(0, replace(scenes[0].config, size=(140, 84)))])
    tilted = scenes[0].camera_to_world.copy()
    tilted[:, :3, :2] = tilted[:, :3, :2] @ np.array([[0.8, -0.6], [0.6, 0.8]])
    with pytest.raises(ValueError, match="rolls"):
        render(replace(scenes[0], camera_to_world=tilted))


def test_an_object_across_the_plane_of_the_eye_is_drawn_where_it_is_ahead() -> None:
    long = Part(Shape.BOX, (0, 0, 0), (6, 0.2, 0.2), COLOURS["blue"])
    seen = render(stage([body(long, (-8, 0, 1.2)), ball((-14, 0, 2), 1.0)]))
    rows, columns = torch.nonzero(seen.masks[0] == 1, as_tuple=True)
    assert rows.max() == 83
    assert rows.min() > 42
    assert 54 < columns.float().mean() < 57
    assert not (seen.masks == 2).any()  # that one is behind


def test_look_at_gives_opencv_axes() -> None:
    pose = look_at(np.array([[0, 0, 1.0]]), np.array([[5, 0, 1.0]]))[0]
    np.testing.assert_allclose(pose[:3, :3], np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), atol=1e-12)


@pytest.mark.gpu
def test_a_gpu_draws_what_the_processor_draws(scenes: list[Scene], rendered: list[Rendered]) -> None:
    for on_gpu, on_cpu in zip(render_many(scenes, "cuda"), rendered, strict=True):
        # Rays that graze an edge may fall on either side.
        assert (on_gpu.masks.cpu() == on_cpu.masks).float().mean() > 0.9995
        assert differing(on_gpu.frames.cpu(), on_cpu.frames).float().mean() < 0.5
        same_part = (on_gpu.masks.cpu() == on_cpu.masks) & torch.isfinite(on_cpu.depth)
        off = (on_gpu.depth.cpu() - on_cpu.depth).abs() / on_cpu.depth
        assert (off[same_part] < 1e-4).float().mean() > 0.999
