"""What a scene is: everything that is drawn, at every frame, and nothing that depends on a device.

World axes: right-handed, z up, metres; the ground is z = 0. Camera axes: OpenCV, x right, y down, z forward.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.questions.cues import FloatArray
from training.scenes.config import SceneConfig
from training.scenes.parts import Part, Triple


@dataclass(frozen=True, eq=False)
class Body:
    """An object. `centres` [F, 3] world, the middle of its height. The columns of `axes` [F, 3, 3] are its own axes.

    `kind` is a name of the catalogue, `colour` one of its colours. `moves` tells how its path was made.
    """

    kind: str
    colour: str
    is_agent: bool
    parts: tuple[Part, ...]
    centres: FloatArray
    axes: FloatArray
    moves: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, eq=False)
class Look:
    """Light, ground and sky; colours are linear. `sun` [3] is a unit vector towards it.

    The ground is made of square tiles of `tile` metres whose shade lies between `dark` and `light`: a checkerboard by
    `checker`, the rest drawn for each tile from `shades` [64, 64] in [0, 1], which repeats. `soft` in [0, 1] blurs
    tiles into blotches. `waves` [4] are the phases of the hills on the horizon.
    """

    sun: FloatArray
    sunlight: Triple
    skylight: Triple
    dark: Triple
    light: Triple
    tile: float
    checker: float
    soft: float
    shades: NDArray[np.float32]
    zenith: Triple
    horizon: Triple
    hills: Triple
    waves: FloatArray


@dataclass(frozen=True, eq=False)
class Scene:
    """`times` [F] seconds, the first is 0; `camera_to_world` [F, 4, 4]; `focal` in pixels; see `SceneConfig`.

    The principal point is the middle of the frame; the centre of the first pixel is (0.5, 0.5).
    """

    seed: int
    config: SceneConfig
    times: FloatArray
    camera_to_world: FloatArray
    focal: float
    bodies: tuple[Body, ...]
    look: Look
    camera_move: str

    def at(self, frames: NDArray[np.int64]) -> Scene:
        """The same scene at some of its frames alone, which can then be rendered without the others."""
        bodies = tuple(replace(body, centres=body.centres[frames], axes=body.axes[frames]) for body in self.bodies)
        poses = self.camera_to_world[frames]
        return replace(self, times=self.times[frames], camera_to_world=poses, bodies=bodies)

    @property
    def video(self) -> str:
        """The name of its clip."""
        return self.name_of(self.seed)

    @staticmethod
    def name_of(seed: int) -> str:
        return f"scene-{seed:013d}"

    @property
    def intrinsics(self) -> FloatArray:
        """[3, 3]"""
        width, height = self.config.size
        return np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1]])


def project(scene: Scene, points: FloatArray) -> FloatArray:
    """[..., F, 3] world points, each seen at its frame -> [..., F, 3]: column, row in pixels, and depth in metres."""
    rotation, eye = scene.camera_to_world[:, :3, :3], scene.camera_to_world[:, :3, 3]
    seen = np.einsum("fji,...fj->...fi", rotation, points - eye) @ scene.intrinsics.T
    return np.concatenate([seen[..., :2] / seen[..., 2:], seen[..., 2:]], axis=-1)
