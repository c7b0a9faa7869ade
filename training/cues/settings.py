"""Every threshold of the pipeline, by name. Lengths are in the unit of the cues: see `median_depth`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from models.pi3 import MAX_PIXELS


@dataclass(frozen=True)
class Settings:
    """Those marked (spec) are given by the method; the others are ours, with what they were chosen by."""

    frames: int = 32
    """(spec) Frames of a video, uniform in time."""
    max_pixels: int = MAX_PIXELS
    """Pixels of a frame as the estimators see it: what π³ was trained with. Boxes are in the video's own pixels."""

    valid_confidence: float = 0.1
    """(spec) Least probability that a point is good: sigmoid of π³'s logit."""
    edge: float = 0.03
    """(spec) A pixel is on a depth edge when max - min of z over 3 x 3 pixels is more than this share of its z."""
    least_points: int = 8
    """Valid pixels for a mean: below it the middle one of all good points is taken, edges too. Under it a mean follows
    single pixels; small things consist of edges."""

    box_threshold: float = 0.35
    """(spec) Least score of a detected box, in [0, 1]."""
    nms: float = 0.6
    """(spec) Of two boxes that overlap by more than this (IoU) the one with the lower score goes."""
    detect_frames: tuple[int, ...] = (0, 10, 20)
    """Frames in which things are looked for. (spec) is the first alone, which misses all that comes later."""
    same_box: float = 0.5
    """IoU with the box of a thing that is followed already, from which on a detection is that thing again."""
    most_objects: int = 8
    """Things of one video, the surest first: memory and time of the masks grow with them."""

    least_present: float = 0.5
    """Least probability that a followed thing is there: SAM 2's own border, logit 0."""
    least_area: float = 0.001
    """Least share of the frame's pixels, to ask about a thing: as for rendered scenes (`scenes.tracks.LEAST_AREA`)."""

    median_depth: float = 6.3
    """π³ has no unit of length, the words of answers have one ("both under 0.1"). So lengths are scaled until the
    median depth of all valid points is this: the median of 24 rendered scenes (4.2 to 9.3), in metres."""
    gap: int = 2
    """Frames without a centre that are filled between two that have one. Over three frames a thing can stop and go."""
    spike: float = 4.0
    """A frame is an outlier when it lies this many standard errors away from what either side foretells."""
    least_spike: float = 0.3
    """And at least this far: three times the length that the words call nothing."""
    bandwidths: tuple[float, ...] = (1.5, 2.5, 4.0)
    """Frames: standard deviations of the Gaussian window of a local parabola. The one with the least estimated error
    is taken. 4 frames is 1/8 of the video: a wider window would swallow a stop."""
    least_noise: float = 0.01
    """Estimated noise of a thing's path (standard deviation along an axis) below which it stays as it is. Paths of
    rendered scenes, which have none, are estimated at 0.003 and less. With 0.003 here 1.8 % of the answers
    without noise changed, with 0.01 0.5 %."""
    least_turn: float = 1.0
    """The same for the fronts of things, in degrees."""
    least_camera_move: float = 0.003
    """The same for where cameras are: everything in the world moves with them."""
    least_camera_turn: float = 0.01
    """The same for where they look, in degrees. Cameras must be smoothed before centres are: what jitters with its
    camera would be smoothed alone otherwise, and jitter for the camera. With 0.3 here and a noise of 0.25 degrees 69 %
    of the answers about relative speed changed, more than with 2 degrees."""
    camera_spike: float = 5.0
    """Degrees from what its neighbours foretell, at least, of a camera that is an outlier."""

    least_frames: int = 8
    """Of a video with fewer, no interval can be asked about."""
    least_valid: float = 0.2
    """Least share of pixels above `valid_confidence`, mean over frames: below it the scene is sky, water or fog to π³.
    Depth edges do not count: in small pictures all ground at a grazing angle is one, up to 96 % of a rendered scene."""
    cut_histogram: float = 0.5
    """A cut: total variation between the colour histograms of neighbouring frames, in [0, 1], above this. In 24
    rendered scenes it is 0.14 at most; between two of them it is above 0.5 for 22 of 23."""
    cut_ratio: float = 3.0
    """And above this many times the video's own median: a camera that pans in one frame a second changes its colours
    as much (0.3 to 0.7 in one such clip), but all the time."""
    least_overlap: float = 0.1
    """A cut too: least share of a frame's points that the next frame sees."""
    least_motion: float = 0.5
    """Something must get this far from where it starts, or there is nothing to ask."""
    motion_noise: float = 3.0
    """And that many times as far as its own noise."""

    most_changed: float = 0.25
    """A type is asked of a video when at most this share of its answers is expected to differ, by the noise that the
    video's own paths show and the measured table (`training.cues.noise`). Wrong answers teach wrong things."""

    def __post_init__(self) -> None:
        shares = ("valid_confidence", "edge", "box_threshold", "nms", "same_box", "least_present", "least_area",
                  "least_valid", "cut_histogram", "least_overlap", "most_changed")  # fmt: skip
        for name in shares:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; it must be in [0, 1]")
        positive = ("frames", "max_pixels", "least_points", "most_objects", "median_depth", "spike", "least_frames")
        for name in positive:
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        if not self.bandwidths or min(self.bandwidths) < 1:
            raise ValueError(f"bandwidths is {self.bandwidths}; each must be at least 1 frame")
        if not self.detect_frames or not all(0 <= frame < self.frames for frame in self.detect_frames):
            raise ValueError(f"detect_frames is {self.detect_frames}; each must be in [0, {self.frames})")

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """The defaults, but for the texts in `given`. ValueError names a field that is not there or no number."""
        fields = {field.name: getattr(cls(), field.name) for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name not in fields:
                raise ValueError(f"{name} is no setting; there are {', '.join(fields)}")
            values[name] = _read(name, text, fields[name])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _read(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, tuple):
            return tuple(type(default[0])(part) for part in text.split(","))
        return type(default)(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected {type(default).__name__} as {default!r}") from None
