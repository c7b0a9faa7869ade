"""Frames of reference: who looks, from where, and where things are for them. All axes end as x forward, y left, z up.

An absolute viewpoint stands still where the viewer was at one frame; a relative one goes with the viewer.

Legend: F frames of the video, N frames of an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.questions.cues import Cues, FloatArray, Track

SURE = 0.6  # least confidence of an orientation
CAMERA = "the camera"
# A forward axis this close to the vertical has no left side.
UPRIGHT = 0.999


@dataclass(frozen=True)
class Body:
    """The camera or a track: what a question can look from or ask about.

    `origin` [F, 3] world. `axes` [F, 3, 3]: its forward, left and up axis as rows, in world axes; NaN in a frame where
    the orientation is unknown or below `SURE`; None for what has no front. `track` is None for the camera.
    """

    origin: FloatArray
    axes: FloatArray | None
    track: Track | None = None

    @property
    def kind(self) -> str:
        if self.track is None:
            return "camera"
        return "agent" if self.track.is_agent else "thing"

    @property
    def name(self) -> str:
        """`the red car`: what a question calls it, but for its box."""
        return CAMERA if self.track is None else f"the {self.track.name}"

    def seen(self, frame: int) -> bool:
        return self.track is None or bool(self.track.visible[frame])


def bodies(cues: Cues) -> tuple[Body, ...]:
    """The camera first, then the tracks in their order."""
    camera = Body(cues.camera_to_world[:, :3, 3], camera_axes(cues.camera_to_world))
    return (camera, *(Body(track.centres, agent_axes(track), track) for track in cues.tracks))


def camera_axes(camera_to_world: FloatArray) -> FloatArray:
    """[F, 4, 4] poses with OpenCV axes -> [F, 3, 3] rows forward, left, up: (x, y, z) of a camera is (z, -x, -y)."""
    right, down, forward = (camera_to_world[:, :3, column] for column in range(3))
    return np.stack([forward, -right, -down], axis=1)


def agent_axes(track: Track) -> FloatArray | None:
    """[F, 3, 3] rows forward, left, up of an agent that does not lean to a side; None for what has no front."""
    if track.forward is None:
        return None
    forward = track.forward / np.linalg.norm(track.forward, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        known = (track.confidence >= SURE) & (np.abs(forward[:, 2]) < UPRIGHT)
    left = np.stack([-forward[:, 1], forward[:, 0], np.zeros(len(forward))], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left /= np.linalg.norm(left, axis=1, keepdims=True)
    axes = np.stack([forward, left, np.cross(forward, left)], axis=1)
    return np.where(known[:, None, None], axes, np.nan)


@dataclass(frozen=True)
class View:
    """A frame of reference for every frame of an interval.

    `origin` [N, 3] and `axes` [N, 3, 3] (rows forward, left, up) in world axes. N is 1 for an absolute viewpoint.
    """

    origin: FloatArray
    axes: FloatArray

    @classmethod
    def fixed(cls, viewer: Body, frame: int) -> View:
        """Where `viewer` stands at `frame`. NaN where its orientation is unknown there."""
        return cls.moving(viewer, slice(frame, frame + 1))

    @classmethod
    def moving(cls, viewer: Body, frames: slice) -> View:
        if viewer.axes is None:
            raise ValueError("what has no front cannot be a viewer")
        return cls(viewer.origin[frames], viewer.axes[frames])

    def points(self, world: FloatArray) -> FloatArray:
        """[N, 3] world positions -> [N, 3] (forward, left, up) of the viewer."""
        return self.vectors(world - self.origin)

    def vectors(self, world: FloatArray) -> FloatArray:
        """[N, 3] world directions -> [N, 3] in the viewer's axes."""
        return (self.axes @ world[:, :, None])[:, :, 0]
