"""Runs a file through a pool as the frames stage does, and says what is wrong with what came of it."""

from __future__ import annotations

import os
import re

import numpy as np

from models.errors import InputError
from models.video import Clip, Limits, Sampling
from serve.sandbox.pool import Pool
from tests.hostile.case import CODES, Case

SAMPLING = Sampling(4)
# A path, an address, names of libraries and of Python's errors, an errno, a pointer, the log's way to write.
TELLS = re.compile(
    r"/\w+/|\w+://|ffmpeg|libav|avcodec|pyav|av\.|torch|numpy|python|Traceback|Errno|\w+Error|\w+Exception|0x[0-9a-f]{4}"
    r"|NotAVideo|Undecodable|OutOfLimits|\[\w+ @",
    re.IGNORECASE,
)


async def outcome(
    pool: Pool, data: bytes, sampling: Sampling = SAMPLING, limits: Limits = Limits()
) -> Clip | InputError:
    """The clip, or the refusal. Any other error is raised: there must be none."""
    descriptor = os.memfd_create("video")
    with os.fdopen(descriptor, "w+b") as file:
        file.write(data)
        file.flush()
        try:
            return await pool.read(file, sampling, limits)
        except InputError as error:
            return error


def complaint(case: Case, result: Clip | InputError) -> str | None:
    """What is wrong, None when nothing is."""
    if isinstance(result, InputError):
        if case.expected == "answered":
            return f"{case.name}: refused: {result.message}"
        if result.code not in (case.codes if case.expected == "refused" else CODES):
            return f"{case.name}: {result.code} in place of {sorted(case.codes)}: {result.message}"
        return told(case.name, result)
    if case.expected == "refused":
        return f"{case.name}: answered with {result.facts}"
    return nonsense(case.name, result)


def told(name: str, error: InputError) -> str | None:
    """When a refusal tells more than it may."""
    for text in (error.message, str(error.value), str(error.limit), str(error.field)):
        if TELLS.search(text) or len(text) > 200 or not text.isprintable():
            return f"{name}: tells {text!r}"
    return None


def nonsense(name: str, clip: Clip, sampling: Sampling = SAMPLING) -> str | None:
    """When a clip is none that a model could be given."""
    frames, height, width, channels = clip.frames.shape
    side = sampling.side_multiple
    good = (
        channels == 3
        and clip.frames.dtype == np.uint8
        and frames == len(clip.times)
        and 1 <= clip.sampled <= frames <= (sampling.count or frames) + sampling.temporal_patch - 1
        and height % side == width % side == 0
        and height * width <= sampling.max_pixels
        and bool(np.isfinite(clip.times).all())
        and bool((np.diff(clip.times) >= 0).all())
    )
    return None if good else f"{name}: a clip of {clip.frames.shape} at {clip.times}"
