"""The only input of the question engine: what moved where, exact from a rendered scene or estimated from a real one.

World axes are right-handed with +z up; the camera has OpenCV axes (x right, y down, z forward). Lengths have one unit
per video: metres in a rendered scene, an arbitrary one where π³ estimated them.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Track:
    """One object over the video. What is unknown in a frame is NaN there.

    `name` is how a question calls it ("red car"), without the box. `centres` [F, 3] world. `boxes` [F, 4] native pixels
    (left, top, right, bottom). `visible` [F]: enough of it is seen to ask about it. `confidence` [F] in [0, 1], 1 where
    exact. `forward` [F, 3]: unit vectors in world axes, for agents only (people, animals, vehicles: what has a front).
    """

    name: str
    centres: FloatArray
    boxes: FloatArray
    visible: BoolArray
    confidence: FloatArray
    forward: FloatArray | None = None

    @property
    def is_agent(self) -> bool:
        return self.forward is not None


@dataclass(frozen=True)
class Cues:
    """`times` [F] seconds, rounded to 0.1 as questions print them; `camera_to_world` [F, 4, 4]; `size` (width, height).

    Frames are the model's frames: uniformly sampled, 32 by default.
    """

    video: str
    times: FloatArray
    camera_to_world: FloatArray
    size: tuple[int, int]
    tracks: tuple[Track, ...]

    def __post_init__(self) -> None:
        frames = len(self.times)
        shapes: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "camera_to_world": (self.camera_to_world, (frames, 4, 4))
        }
        for track in self.tracks:
            shapes |= {
                f"{track.name}.centres": (track.centres, (frames, 3)),
                f"{track.name}.boxes": (track.boxes, (frames, 4)),
                f"{track.name}.visible": (track.visible, (frames,)),
                f"{track.name}.confidence": (track.confidence, (frames,)),
            }
            if track.forward is not None:
                shapes[f"{track.name}.forward"] = (track.forward, (frames, 3))
        for what, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{what} is {array.shape}, expected {shape}")

    @classmethod
    def of(
        cls, video: str, times: FloatArray, camera_to_world: FloatArray, size: tuple[int, int], *tracks: Track
    ) -> Self:
        """The same, with the times rounded and the tracks in the order of their names."""
        return cls(video, np.round(times, 1), camera_to_world, size, tuple(sorted(tracks, key=lambda t: t.name)))
