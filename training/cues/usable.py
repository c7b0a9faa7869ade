"""Which videos can be asked about, from their own geometry: no cut, something that moves, points to trust."""

from __future__ import annotations

import numpy as np

from training.cues.aggregate import Aggregated
from training.cues.measure import Measured
from training.cues.settings import Settings


def reasons(measured: Measured, aggregated: Aggregated, settings: Settings) -> list[str]:
    """Why a video is left out, with the value and the limit; empty when it is usable."""
    found: list[str] = []
    if len(measured.times) < settings.least_frames:
        found.append(f"{len(measured.times)} frames; at least {settings.least_frames} are needed")
        return found
    valid = float(measured.valid.mean())
    if valid < settings.least_valid:
        found.append(f"{valid:.1%} of the points are valid; at least {settings.least_valid:.1%} are needed")
    at, usual = int(measured.change.argmax()), settings.cut_ratio * float(np.median(measured.change))
    if measured.change[at] > max(settings.cut_histogram, usual):
        found.append(
            f"a cut after frame {at}: colours differ by {measured.change[at]:.2f}, over {settings.cut_histogram}"
        )
    at = int(measured.overlap.argmin())
    if measured.overlap[at] < settings.least_overlap:
        found.append(
            f"a cut after frame {at}: {measured.overlap[at]:.1%} of its points are seen next, "
            f"under {settings.least_overlap:.1%}"
        )
    found += _still(aggregated, settings)
    return found


def _still(aggregated: Aggregated, settings: Settings) -> list[str]:
    if not len(aggregated.travel):
        return ["nothing was found to ask about"]
    far = (aggregated.travel >= settings.least_motion) & (
        aggregated.travel >= settings.motion_noise * aggregated.noises
    )
    if far.any():
        return []
    most = float(aggregated.travel.max())
    return [f"nothing moves: {most:.2f} units at most, {settings.least_motion} and its noise are needed"]
