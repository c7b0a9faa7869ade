"""From scenes to pictures with exact depth and masks, many frames at once, on a processor or a GPU.

The way of a chunk of frames: the ground's depth and its shadows; the nearest part at every pixel's centre; the ground's
and the sky's colours; the objects' colours, with four samples in the pixels where two parts meet.

Legend: S scenes, F frames of a scene, B frames of a chunk, H, W sides of a frame, O objects of a scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from training.questions.cues import FloatArray
from training.scenes import batch
from training.scenes.batch import Instances, Views
from training.scenes.casting import Raster
from training.scenes.drawing import Drawn, draw
from training.scenes.scene import Scene
from training.scenes.shading import Looks

CPU_PIXELS, GPU_PIXELS = 400_000, 16_000_000  # of a chunk: what a cache and what a device's memory like


@dataclass(frozen=True)
class Rendered:
    """One scene. `frames` uint8 [F, H, W, 3] with a gamma of 2; `depth` float32 [F, H, W], metres along the camera's z
    axis, infinite for the sky; `masks` uint8 [F, H, W], 0 or 1 + the index of the object in `Scene.bodies`.

    `whole` int64 [F, O]: how many pixels an object would have if it stood alone. `camera_to_world` [F, 4, 4] and
    `intrinsics` [3, 3] float32.
    """

    frames: Tensor
    depth: Tensor
    masks: Tensor
    whole: Tensor
    camera_to_world: Tensor
    intrinsics: Tensor


@dataclass(frozen=True)
class Tables:
    """All that is drawn of S scenes with F frames each, as tensors: made by one process, drawn by another.

    `size` (width, height) in pixels.
    """

    parts: Instances
    views: Views
    looks: Looks
    size: tuple[int, int]

    @classmethod
    def of(cls, scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Tables:
        """ValueError when the scenes have not all the same number of frames and the same size, or a camera rolls."""
        shapes = {(len(scene.times), scene.config.size) for scene in scenes}
        if len(shapes) != 1:
            raise ValueError(f"scenes to render together have (frames, size) {sorted(shapes)}; they must have the same")
        ((_, size),) = shapes
        return cls(batch.instances(scenes, device), batch.views(scenes, device), Looks.of(scenes, device), size)

    def to(self, device: torch.device | str) -> Tables:
        return Tables(_moved(self.parts, device), _moved(self.views, device), _moved(self.looks, device), self.size)


@dataclass(frozen=True)
class Points:
    """`camera` and `world` float32 [F, H, W, 3], metres, zero where `valid` [F, H, W] is False: in the sky."""

    camera: Tensor
    world: Tensor
    valid: Tensor


def render(scene: Scene, device: torch.device | str = "cpu") -> Rendered:
    return render_many([scene], device)[0]


@torch.no_grad()
def render_many(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> list[Rendered]:
    """The results stay on `device`, and are the same whatever a scene is rendered with.

    ValueError when the scenes have not all the same number of frames and the same size, or when a camera rolls.
    """
    drawn = draw_all(Tables.of(scenes, device))
    return [
        _rendered(scene, drawn.pictures[own], drawn.depth[own], drawn.masks[own], drawn.whole[own])
        for scene, own in zip(scenes, _slices(len(scenes), len(scenes[0].times)), strict=True)
    ]


@torch.no_grad()
def draw_all(tables: Tables) -> Drawn:
    """Every frame of every scene, B = S * F, on the device of the tables."""
    width, height = tables.size
    on_cpu = tables.views.eye.device.type == "cpu"
    most = max(1, (CPU_PIXELS if on_cpu else GPU_PIXELS) // (width * height))
    chunks = [
        draw(part, view, tables.looks[view.scene], Raster(len(view.eye), width, height))
        for part, view in _chunks(tables.parts, tables.views, most)
    ]
    return Drawn(*(torch.cat([getattr(chunk, field.name) for chunk in chunks]) for field in fields(Drawn)))


def points(rendered: Rendered) -> Points:
    """The point that every pixel's centre sees, in the axes of its own camera (OpenCV) and of the world."""
    height, width = rendered.depth.shape[1:]
    valid = torch.isfinite(rendered.depth)
    z = torch.where(valid, rendered.depth, 0)
    row, column = (torch.arange(side, device=z.device, dtype=z.dtype) + 0.5 for side in (height, width))
    (fx, _, cx), (_, fy, cy), _ = rendered.intrinsics.unbind(0)
    camera = torch.stack([(column - cx) / fx * z, (row[:, None] - cy) / fy * z, z], dim=-1)
    rotation, eye = rendered.camera_to_world[:, None, :3, :3], rendered.camera_to_world[:, None, None, :3, 3]
    world = camera @ rotation.mT + eye
    return Points(camera, torch.where(valid[..., None], world, 0), valid)


Table = TypeVar("Table", Instances, Views, Looks)


def _moved(table: Table, device: torch.device | str) -> Table:
    return type(table)(*(getattr(table, field.name).to(device, non_blocking=True) for field in fields(table)))


def _chunks(parts: Instances, views: Views, most: int) -> Iterator[tuple[Instances, Views]]:
    """At most `most` frames each."""
    total = len(views.eye)
    for start in range(0, total, most):
        end = min(start + most, total)
        yield parts.of_frames(start, end), views[start:end]


def _slices(count: int, length: int) -> list[slice]:
    return [slice(start, start + length) for start in range(0, count * length, length)]


def _rendered(scene: Scene, pictures: Tensor, depth: Tensor, masks: Tensor, whole: Tensor) -> Rendered:
    def floats(values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=depth.device)

    own = whole[:, 1 : 1 + len(scene.bodies)]
    return Rendered(pictures, depth, masks, own, floats(scene.camera_to_world), floats(scene.intrinsics))
