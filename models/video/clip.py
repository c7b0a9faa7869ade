"""Chooses frames by time, decodes and resizes them: the clip that a model sees.

Legend: F frames of a clip, H, W sides of a frame in pixels; a tick is the stream's unit of time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from einops import rearrange

from models.config import FramesConfig
from models.errors import InvalidQuestion, OutOfLimits
from models.video.container import Limits, Source, VideoSource, check_size, checked, opened
from models.video.pictures import Orientation, Picture, pictures
from models.video.timeline import Timeline, scan

MAX_ASPECT = 200  # Qwen2-VL's own bound
DECODER_THREADS = 2  # each holds a frame more; beyond two, a clip of a few seconds gains little
SLOWEST, FASTEST = 1e-4, 1e4  # frames per second that may be asked for: one in three hours, a high-speed camera
_KEY = re.compile(r"(?:n(\d{1,9})|f([0-9.e+-]{1,24}))_p(\d{1,9})-(\d{1,9})_m(\d{1,4})_t(\d{1,3})")


@dataclass(frozen=True)
class VideoFacts:
    """What a viewer sees: the size is that after rotation, with square pixels.

    `duration` seconds, to the end of the last frame; `fps` the mean rate; `rotation` degrees clockwise, applied.
    """

    duration: float
    fps: float
    width: int
    height: int
    frames: int
    codec: str
    container: str
    rotation: int


@dataclass(frozen=True)
class Sampling:
    """How frames are chosen: `count` of them over the whole video, or `fps` of them per second; the other is None.

    A frame becomes `min_pixels` to `max_pixels` large, its sides multiples of `side_multiple`; F is made a multiple of
    `temporal_patch`.
    """

    count: int | None = 32
    fps: float | None = None
    min_pixels: int = 3_136
    max_pixels: int = 230_400
    side_multiple: int = 28
    temporal_patch: int = 2

    def __post_init__(self) -> None:
        if (self.count is None) == (self.fps is None):
            raise InvalidQuestion(f"exactly one of count ({self.count}) and fps ({self.fps}) is needed", field="count")
        if self.count is not None and self.count < 1:
            raise InvalidQuestion(f"count is {self.count}; at least 1 frame", field="count", value=self.count, limit=1)
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise InvalidQuestion(
                f"fps is {self.fps}; it must be a number above 0", field="fps", value=self.fps, limit=0
            )
        smallest = max(self.side_multiple**2, self.min_pixels)
        if min(self.side_multiple, self.temporal_patch, self.min_pixels) < 1 or smallest > self.max_pixels:
            raise InvalidQuestion(f"sizes of the frames make no sense: {self.key()}", field="max_pixels")

    @classmethod
    def of(cls, config: FramesConfig, count: int | None = None, fps: float | None = None) -> Self:
        """A model's sampling, with the number of frames of the config when the caller asks for none."""
        return cls(
            config.count if count is None and fps is None else count,
            fps,
            config.min_pixels,
            config.max_pixels,
            config.side_multiple,
            config.temporal_patch,
        )

    @classmethod
    def parse(cls, key: str) -> Self:
        """The inverse of `key()`. InvalidQuestion when it is no such text."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise InvalidQuestion(f"{key!r} is no sampling", field="sampling", value=key)
        count, fps, *sizes = match.groups()
        try:
            return cls(int(count) if count else None, float(fps) if fps else None, *map(int, sizes))
        except ValueError:
            raise InvalidQuestion(f"{key!r} is no sampling", field="sampling", value=key) from None

    def key(self) -> str:
        """Canonical text of letters, digits and `._+-`: equal samplings, and only those, have equal keys."""
        which = f"f{float(self.fps)!r}" if self.fps is not None else f"n{self.count}"
        return f"{which}_p{self.min_pixels}-{self.max_pixels}_m{self.side_multiple}_t{self.temporal_patch}"


@dataclass(frozen=True)
class Clip:
    """`frames` uint8 [F, H, W, 3] RGB; `times` float64 [F], seconds from the video's first frame to each of them.

    The first `sampled` frames are of the video; the others repeat the last one, at times that go on evenly.
    """

    frames: np.ndarray
    times: np.ndarray
    facts: VideoFacts
    sampled: int
    sampling: Sampling = Sampling()

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        """The grid of merged tokens: (F / temporal_patch, H / side_multiple, W / side_multiple), as in `rope.Grid`."""
        frames, height, width, _ = self.frames.shape
        side = self.sampling.side_multiple
        return frames // self.sampling.temporal_patch, height // side, width // side

    @property
    def seconds_per_time(self) -> float:
        """Seconds from one grid time to the next, by the mean interval of the frames that were sampled."""
        return self.sampling.temporal_patch * _interval(self.times[: self.sampled], self.facts)


Allocate = Callable[[tuple[int, int, int, int]], np.ndarray]
"""From a shape to a uint8 array of it, whose content does not matter: where the frames of a clip shall lie."""


def _in_memory(shape: tuple[int, int, int, int]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def probe(source: VideoSource, limits: Limits = Limits()) -> VideoFacts:
    """Facts of a video. Decodes one frame, after every limit has been checked.

    NotAVideo: no container that we open, or no video in it. OutOfLimits: beyond `limits`. Undecodable: another codec,
    a file that is cut off, or a first frame that does not decode. OSError: `source` is a path that cannot be opened.
    """
    with checked(source, limits) as file:
        timeline, codec = _examine(file, limits)
        first = next(pictures(file, timeline, [int(timeline.times[0])], limits, threads=1))
        return _facts(file, timeline, codec, first, Orientation.of(first.frame), limits)


def read(
    source: VideoSource,
    sampling: Sampling = Sampling(),
    limits: Limits = Limits(),
    *,
    threads: int = DECODER_THREADS,
    allocate: Allocate = _in_memory,
) -> Clip:
    """Decodes and resizes the frames that `sampling` asks for; raises what `probe` raises. `allocate` is called once.

    A damaged frame on the way to a wanted one is Undecodable with its time: an answer about frames that a decoder made
    up would be worse than none. Memory: the clip, and a few frames of the source.
    """
    if sampling.count is not None:
        _check_frames(sampling.count, limits)
    with checked(source, limits) as file:
        timeline, codec = _examine(file, limits)
        chosen, uses = np.unique(choose(timeline, sampling, limits), return_inverse=True)
        wanted: list[int] = timeline.times[chosen].tolist()
        shown = np.zeros(len(wanted))
        for place, picture in enumerate(pictures(file, timeline, wanted, limits, threads)):
            if place == 0:
                orientation = Orientation.of(picture.frame)
                facts = _facts(file, timeline, codec, picture, orientation, limits)
                width, height = fit(facts.width, facts.height, sampling)
                padded = len(uses) + -len(uses) % sampling.temporal_patch
                frames = allocate((padded, height, width, 3))
            frames[np.flatnonzero(uses == place)] = resized(orientation.upright(picture.pixels()), width, height)
            shown[place] = timeline.seconds(picture.pts)
    sampled = len(uses)
    frames[sampled:] = frames[sampled - 1]
    times = shown[uses]
    after = times[-1] + _interval(times, facts) * np.arange(1, padded - sampled + 1)
    return Clip(frames, np.concatenate([times, after]), facts, sampled, sampling)


def choose(timeline: Timeline, sampling: Sampling, limits: Limits = Limits()) -> np.ndarray:
    """int64 [F] indices into `timeline.times`: for every evenly spaced target the frame nearest to it.

    A frame that stays on screen over several targets is taken several times, so that the clip stays evenly spaced in
    time. When there are no more frames than targets, each is taken once.
    """
    ticks = (timeline.times - timeline.times[0]).astype(np.float64)
    if sampling.fps is None:
        targets = np.linspace(0.0, ticks[-1], min(sampling.count or 0, timeline.frames))
    else:
        step = 1 / (sampling.fps * float(timeline.tick))
        steps = min(math.floor(ticks[-1] / step + 1e-6) + 1, timeline.frames)
        _check_frames(steps, limits)
        targets = step * np.arange(steps)
    if len(targets) == timeline.frames:
        return np.arange(timeline.frames)
    # Within an interval the fractional index grows evenly with time, so rounding it finds the nearer end.
    return np.rint(np.interp(targets, ticks, np.arange(timeline.frames))).astype(np.int64)


def fit(width: int, height: int, sampling: Sampling) -> tuple[int, int]:
    """(width, height), multiples of `side_multiple` with `min_pixels` to `max_pixels` pixels, the aspect nearly kept.

    Qwen2-VL's "smart resize" (arXiv 2409.12191), except where that would leave the bounds: with a side of a single
    multiple, the other is cut to what `max_pixels` allows. OutOfLimits when the aspect ratio is beyond 200.
    """
    _check_aspect(width, height)
    side = sampling.side_multiple
    fitted = round(width / side) * side, round(height / side) * side
    if fitted[0] * fitted[1] > sampling.max_pixels:
        scale = math.sqrt(sampling.max_pixels / (width * height))
        longest = sampling.max_pixels // side**2 * side
        across, down = (max(side, math.floor(length * scale / side) * side) for length in (width, height))
        return max(side, min(across, longest)), max(side, min(down, longest))
    if fitted[0] * fitted[1] < sampling.min_pixels:
        scale = math.sqrt(sampling.min_pixels / (width * height))
        return math.ceil(width * scale / side) * side, math.ceil(height * scale / side) * side
    return fitted


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bicubic with antialias on uint8, as Qwen's processor does it; pixels that fit already stay as they are."""
    if pixels.shape[:2] == (height, width):
        return pixels
    import torch
    from torch.nn import functional as F

    image = rearrange(torch.from_numpy(pixels), "h w c -> 1 c h w")
    small = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
    return rearrange(small, "1 c h w -> h w c").numpy()


def _examine(file: Source, limits: Limits) -> tuple[Timeline, str]:
    with opened(file, limits, threads=1) as video:
        return scan(file, video, limits), video.codec


def _facts(
    file: Source, timeline: Timeline, codec: str, first: Picture, orientation: Orientation, limits: Limits
) -> VideoFacts:
    check_size(first.frame.width, first.frame.height, limits)
    square = max(1, round(first.frame.width * first.aspect))
    width, height = orientation.size(square, first.frame.height)
    check_size(width, height, limits)
    _check_aspect(width, height)
    return VideoFacts(
        duration=timeline.duration,
        fps=timeline.fps,
        width=width,
        height=height,
        frames=timeline.frames,
        codec=codec,
        container=file.kind.name,
        rotation=orientation.rotation,
    )


def _interval(times: np.ndarray, facts: VideoFacts) -> float:
    """Mean seconds between sampled frames; of a single one, how long the video shows a frame."""
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / facts.fps


def _check_frames(asked: int, limits: Limits) -> None:
    if asked > limits.max_frames:
        message = f"{asked} frames are asked for; at most {limits.max_frames} are sampled"
        raise OutOfLimits(message, field="frames", value=asked, limit=limits.max_frames)


def _check_aspect(width: int, height: int) -> None:
    ratio = max(width, height) / min(width, height)
    if ratio > MAX_ASPECT:
        message = f"frames of {width}x{height} are too narrow; one side may be {MAX_ASPECT} times the other"
        raise OutOfLimits(message, field="aspect", value=round(ratio, 1), limit=MAX_ASPECT)
