"""Which points of a reconstruction are kept, and in whose world."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.pi3 import Reconstruction, nearest_rotation
from models.scene import Scene, from_first, is_edge, scene_of

FRAMES, HEIGHT, WIDTH = 3, 12, 16
# A rotation and a sum of three products in float32 (eps 1.2e-7), of points below 10.
FLOAT32 = 1e-5


def poses(count: int = FRAMES) -> Tensor:
    torch.manual_seed(1)
    found = torch.eye(4).repeat(count, 1, 1)
    found[:, :3, :3] = nearest_rotation(torch.randn(count, 3, 3))
    found[:, :3, 3] = torch.randn(count, 3)
    return found


def found(depth: Tensor, logits: Tensor | None = None) -> Reconstruction:
    """Depth maps [F, H, W] seen by cameras that stand anywhere; by default of points that are almost surely good."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    local = torch.stack([x * depth, y * depth, depth], dim=-1)
    cameras = poses(len(depth))
    points = torch.einsum("fij,fhwj->fhwi", cameras[:, :3, :3], local) + cameras[:, None, None, :3, 3]
    sure = torch.full_like(depth, 4.0) if logits is None else logits
    return Reconstruction(points[None], local[None], sure[None], cameras[None])


def plane() -> Tensor:
    return torch.full((FRAMES, HEIGHT, WIDTH), 2.0)


def pictures() -> Tensor:
    """Every pixel has a colour of its own: its frame, row and column."""
    places = torch.meshgrid(torch.arange(FRAMES), torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack(places, dim=-1).to(torch.uint8)


def test_the_world_is_the_first_camera_and_every_point_has_its_pixels_colour_and_frame() -> None:
    whole = found(plane())
    scene = scene_of(whole, pictures(), most=10_000)
    assert scene.good == len(scene.points) == FRAMES * HEIGHT * WIDTH
    assert torch.equal(scene.poses[0], torch.eye(4))
    frame, row, column = scene.colors.long().unbind(-1)
    assert torch.equal(frame, scene.frames)
    moved = torch.linalg.inv(whole.camera_poses[0, 0])
    expected = whole.points[0, frame, row, column] @ moved[:3, :3].T + moved[:3, 3]
    assert (scene.points - expected).abs().max() < FLOAT32
    assert (scene.poses - moved @ whole.camera_poses[0]).abs().max() < FLOAT32
    assert torch.allclose(scene.confidence, torch.full((FRAMES,), 4.0).sigmoid())


def test_points_between_two_surfaces_are_dropped() -> None:
    """A near square before a far wall: the pixels on both sides of its outline mix the two."""
    depth = plane()
    depth[1, 4:8, 5:10] = 1.0
    edges = is_edge(depth, 0.03)
    assert not edges[[0, 2]].any()
    outline = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    outline[3:9, 4:11] = True
    outline[5:7, 6:9] = False
    assert torch.equal(edges[1], outline)
    scene = scene_of(found(depth), pictures(), most=10_000)
    assert scene.good == FRAMES * HEIGHT * WIDTH - int(outline.sum())


def test_a_slope_is_no_edge_and_a_looser_limit_keeps_more() -> None:
    depth = (2 + 0.02 * torch.arange(WIDTH)).expand(FRAMES, HEIGHT, WIDTH).contiguous()
    assert not is_edge(depth, 0.03).any()
    assert is_edge(depth, 0.005).all()


def test_unsure_and_endless_points_are_dropped() -> None:
    logits = torch.full((FRAMES, HEIGHT, WIDTH), 4.0)
    logits[0, :, :8] = -4.0
    depth = plane()
    depth[2, 0, 0] = torch.inf
    scene = scene_of(found(depth, logits), pictures(), most=10_000)
    assert scene.points.isfinite().all()
    assert (scene.certainty > 0.9).all()
    unsure, beside_infinity = HEIGHT * 8, 4  # the pixel and its three neighbours, which are an edge by it
    assert scene.good == FRAMES * HEIGHT * WIDTH - unsure - beside_infinity
    assert scene_of(found(depth, logits), pictures(), most=10_000, min_confidence=0.0).good == scene.good + unsure
    assert scene.confidence[0] < scene.confidence[1]


def test_the_sample_is_even_always_the_same_and_a_prefix_of_larger_ones() -> None:
    all_of_it, some, again = (scene_of(found(plane()), pictures(), most=most) for most in (10_000, 300, 300))
    assert len(some.points) == 300
    assert torch.equal(some.colors, again.colors)
    assert torch.equal(some.colors, all_of_it.colors[:300])
    assert len({tuple(color) for color in some.colors.tolist()}) == 300, "no pixel twice"
    by_frame = torch.bincount(some.frames, minlength=FRAMES)
    assert by_frame.min() > 70, f"each of three frames has about 100, not {by_frame.tolist()}"


@pytest.mark.parametrize("most", [0, 5])
def test_a_scene_may_have_no_good_point(most: int) -> None:
    logits = torch.full((FRAMES, HEIGHT, WIDTH), -9.0)
    scene: Scene = scene_of(found(plane(), logits), pictures(), most)
    assert (scene.points.shape, scene.colors.shape, scene.good) == ((0, 3), (0, 3), 0)
    assert scene.poses.shape == (FRAMES, 4, 4)


def test_moving_to_the_first_camera_keeps_distances_between_cameras() -> None:
    before, after = poses(5), from_first(poses(5))
    for given in (before, after):
        assert torch.linalg.det(given[:, :3, :3]).allclose(torch.ones(5))
    apart = [torch.cdist(given[:, :3, 3], given[:, :3, 3]) for given in (before, after)]
    assert (apart[0] - apart[1]).abs().max() < FLOAT32
