"""From a rendered scene to the cues that questions are made of.

Legend: F frames, H, W sides of a frame in pixels, O objects.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.questions.cues import BoolArray, Cues, FloatArray, Track
from training.scenes.rendering import Rendered
from training.scenes.scene import Scene, project

LEAST_AREA = 0.001  # of the frame: what is seen of an object must be larger, to ask about it
LEAST_SEEN = 0.3  # of the pixels that an object would have alone, within the frame


def cues_of(scene: Scene, rendered: Rendered) -> Cues:
    """Exact tracks, in the order of their names.

    A box is that of the pixels that are seen, NaN where none is; centres and forward axes are known in every frame.
    """
    seen, boxes = _boxes(rendered.masks, len(scene.bodies))
    visible = _visible(scene, seen, rendered.whole.cpu().numpy())
    certain = np.ones(len(scene.times))
    tracks = [
        Track(
            name=body.name,
            centres=body.centres,
            boxes=boxes[index],
            visible=visible[index],
            confidence=certain,
            forward=body.axes[:, :, 0] if body.is_agent else None,
        )
        for index, body in enumerate(scene.bodies)
    ]
    return Cues.of(scene.video, scene.times, scene.camera_to_world, scene.config.size, *tracks)


def _boxes(masks: Tensor, objects: int) -> tuple[np.ndarray, FloatArray]:
    """[O, F] numbers of pixels, and [O, F, 4] left, top, right, bottom, the last two exclusive."""
    numbers = torch.arange(1, objects + 1, dtype=torch.uint8, device=masks.device)[:, None, None, None]
    own = masks == numbers
    lengths = own.sum(dim=3, dtype=torch.int32).cpu().numpy()
    seen, columns, rows = lengths.sum(axis=2), own.any(dim=2).cpu().numpy(), lengths > 0
    first = [along.argmax(axis=-1) for along in (columns, rows)]
    last = [along.shape[-1] - along[..., ::-1].argmax(axis=-1) for along in (columns, rows)]
    boxes = np.stack([*first, *last], axis=-1).astype(np.float64)
    boxes[seen == 0] = np.nan
    return seen, boxes


def _visible(scene: Scene, seen: np.ndarray, whole: np.ndarray) -> BoolArray:
    """[O, F] from pixels seen [O, F] and pixels of the object alone [F, O].

    It is visible when enough of it is seen and its middle is inside the frame.
    """
    width, height = scene.config.size
    column, row, _ = np.moveaxis(project(scene, np.stack([body.centres for body in scene.bodies])), -1, 0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return inside & (seen > LEAST_AREA * width * height) & (seen >= LEAST_SEEN * whole.T)
