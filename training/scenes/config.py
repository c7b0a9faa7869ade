"""What is drawn when a scene is drawn: sizes, ranges and shares; and which seeds are for training."""

from __future__ import annotations

from dataclasses import dataclass

SIDE_MULTIPLE = 28  # of the sides of a frame, in pixels: what the model's tokens need
LEAST_INTERVAL = 0.1  # seconds between frames: questions state times to 0.1 s, and two frames must not share one
CAMERA_MOVES = ("static", "pan", "orbit", "dolly", "track", "crane")


@dataclass(frozen=True)
class SceneConfig:
    """Ranges are (least, most) and both ends may occur. ValueError names the field that makes no sense.

    `seconds` from the first frame to the last. `size` (width, height) in pixels. `steps` metres that a moving object
    covers from a frame to the next: what questions about speed compare. `stage` metres: objects stay that near to the
    world's origin. `field_of_view` degrees across the longer side of a frame.
    """

    frames: int = 32
    seconds: tuple[float, float] = (4.0, 10.0)
    size: tuple[int, int] = (112, 112)
    objects: tuple[int, int] = (2, 5)
    steps: tuple[float, float] = (0.12, 0.7)
    still_share: float = 0.2
    stage: float = 5.0
    field_of_view: tuple[float, float] = (48.0, 62.0)
    camera_moves: tuple[str, ...] = CAMERA_MOVES

    def __post_init__(self) -> None:
        for name in ("seconds", "objects", "steps", "field_of_view"):
            least, most = getattr(self, name)
            if not 0 < least <= most:
                raise ValueError(f"{name} is ({least}, {most}); it must be a rising range above 0")
        if self.frames < 2 or self.seconds[0] / (self.frames - 1) < LEAST_INTERVAL:
            raise ValueError(f"frames is {self.frames} in {self.seconds[0]} s; at least 2, {LEAST_INTERVAL} s apart")
        if min(self.size) < SIDE_MULTIPLE or any(side % SIDE_MULTIPLE for side in self.size):
            raise ValueError(f"size is {self.size}; both sides must be multiples of {SIDE_MULTIPLE}")
        if self.objects[0] < 2 or self.objects[1] > 5:
            raise ValueError(f"objects is {self.objects}; 2 to 5 fit on the stage")
        if not 0 <= self.still_share <= 1:
            raise ValueError(f"still_share is {self.still_share}; it must be in [0, 1]")
        if self.field_of_view[1] > 100:
            raise ValueError(f"field_of_view is {self.field_of_view}; at most 100 degrees")
        if not self.camera_moves or set(self.camera_moves) - set(CAMERA_MOVES):
            raise ValueError(f"camera_moves is {self.camera_moves}; some of {CAMERA_MOVES}")


class Seeds:
    """Seeds of scenes for training and of scenes that training never sees; the two never meet."""

    COUNT = 2**40

    @classmethod
    def train(cls, index: int) -> int:
        return cls._checked(index)

    @classmethod
    def held_out(cls, index: int) -> int:
        return cls.COUNT + cls._checked(index)

    @classmethod
    def _checked(cls, index: int) -> int:
        if not 0 <= index < cls.COUNT:
            raise ValueError(f"index is {index}; it must be in [0, {cls.COUNT})")
        return index
