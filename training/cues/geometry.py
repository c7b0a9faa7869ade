"""Camera poses and points by π³ (`models.pi3`).

Legend: F frames, H, W sides of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from models.checkpoint import load_pi3, locate
from models.pi3 import Pi3
from training.cues.estimators import Facts, Footage, Geometry
from training.cues.weights import facts_of


@dataclass(frozen=True)
class Pi3Geometer:
    """All frames of a video at once: π³ sees them as one scene. Lengths have a free unit, the vertical is unknown."""

    model: Pi3
    facts: Facts

    @classmethod
    def load(cls, location: str | Path, device: str, dtype: torch.dtype) -> Pi3Geometer:
        """CheckpointError when the directory or hub id is no π³."""
        path = locate(location)
        stated: dict[str, Any] = {"kind": "pi3", "dtype": str(dtype), **facts_of(location, path)}
        return cls(load_pi3(path, device, dtype), stated)

    @torch.inference_mode()
    def __call__(self, footage: Footage) -> Geometry:
        """The points are those of each camera: the world's follow from the poses, which are smoothed later."""
        frames = torch.from_numpy(footage.frames).to(self.model.image_mean.device)
        images = rearrange(frames, "f h w c -> 1 f c h w").float() / 255
        found = self.model(images)
        return Geometry(
            poses=found.camera_poses[0].double().cpu().numpy(),
            points=found.local_points[0].float().cpu().numpy().astype(np.float32),
            confidence=found.confidence[0].float().sigmoid().cpu().numpy().astype(np.float32),
        )
