"""A GPU draws scenes as a run goes on; a CPU keeps them in files. Both see the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange

from training.data.glimpses import Growing, Kept
from training.data.scenes import CHUNK, PICKED, SceneStore
from training.scenes.config import SceneConfig

CPU = torch.device("cpu")
CONFIG = SceneConfig(size=(28, 28), frames=9)  # small: nothing here depends on it


@pytest.fixture(scope="module")
def growing() -> Growing:
    return Growing(CONFIG, first=10, more=30, most=2 * CHUNK, device=CPU, processes=1)


def test_scenes_come_with_the_steps(growing: Growing) -> None:
    assert growing.there(0) == 10
    assert growing.count == CHUNK
    assert growing.there(2) == 70
    assert growing.count == 2 * CHUNK
    assert growing.there(1) == 40, "what there is depends on the step alone"
    assert growing.there(100) == 2 * CHUNK


def test_drawn_or_kept_they_are_the_same(growing: Growing, tmp_path: Path) -> None:
    growing.there(2)
    kept = Kept(SceneStore(tmp_path, CONFIG, glimpses=True), 2, CPU)
    scenes = [3, CHUNK + 5]
    drawn, read = growing.observed(scenes), kept.observed(scenes)
    assert drawn[0].shape == (2, PICKED, 28, 28, 3)
    for one, other in zip((drawn[0], *drawn[2:]), (read[0], *read[2:]), strict=True):
        torch.testing.assert_close(one, other)
    assert vars(drawn[1]).keys() == vars(read[1]).keys()
    for name, value in vars(drawn[1]).items():
        torch.testing.assert_close(value, getattr(read[1], name))


def test_light_is_a_direction_in_the_cameras_axes(growing: Growing) -> None:
    growing.there(0)
    _, objects, _, _, poses = growing.observed([0, 1])
    torch.testing.assert_close(objects.light.norm(dim=-1), torch.ones(2 * PICKED))
    light = rearrange(objects.light, "(b k) a -> b k a", b=2)
    back = torch.einsum("bkij,bkj->bki", poses[..., :3, :3], light)
    torch.testing.assert_close(back, back[:, :1].expand_as(back), msg="in the world it stands still")
