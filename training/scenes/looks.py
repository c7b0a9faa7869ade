"""What a scene looks like besides its objects: sun, sky and ground."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from training.scenes.parts import Triple
from training.scenes.scene import Look

# (dark, light) of the ground: paving, sand, grass, asphalt, earth, pale tiles, blue-grey slabs. None is vivid.
GROUNDS: tuple[tuple[Triple, Triple], ...] = (
    ((0.14, 0.135, 0.125), (0.37, 0.36, 0.34)),
    ((0.29, 0.24, 0.16), (0.57, 0.50, 0.37)),
    ((0.08, 0.12, 0.05), (0.23, 0.30, 0.15)),
    ((0.05, 0.05, 0.055), (0.19, 0.19, 0.195)),
    ((0.11, 0.08, 0.055), (0.30, 0.23, 0.17)),
    ((0.35, 0.34, 0.32), (0.72, 0.71, 0.68)),
    ((0.11, 0.14, 0.18), (0.31, 0.36, 0.42)),
)
# (zenith, horizon): clear, pale, evening, overcast.
SKIES: tuple[tuple[Triple, Triple], ...] = (
    ((0.10, 0.26, 0.62), (0.55, 0.70, 0.85)),
    ((0.30, 0.46, 0.68), (0.72, 0.78, 0.84)),
    ((0.20, 0.20, 0.44), (0.85, 0.58, 0.42)),
    ((0.42, 0.46, 0.50), (0.62, 0.64, 0.66)),
)
TABLE = 64  # tiles until the ground repeats


def sample_look(rng: Generator) -> Look:
    """Any light between a dull and a glaring day; the sun is at least 38 degrees high, so shadows stay short."""
    azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(38, 75))
    sun = np.array([np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)])
    level, hard, warm = rng.uniform(0.65, 1.15), rng.uniform(0.55, 0.8), rng.uniform(-0.08, 0.12)
    dark, light = GROUNDS[rng.integers(len(GROUNDS))]
    zenith, horizon = SKIES[rng.integers(len(SKIES))]
    return Look(
        sun=sun,
        sunlight=_tinted(1.25 * level * hard, warm),
        skylight=_tinted(1.05 * level * (1 - hard) + 0.12, -warm),
        dark=dark,
        light=light,
        tile=float(rng.uniform(0.7, 1.5)),
        checker=float(rng.choice([0.0, rng.uniform(0.3, 0.8)])),
        soft=float(rng.choice([0.0, 0.0, 1.0])),
        shades=rng.random((TABLE, TABLE), np.float32),
        zenith=_dimmed(zenith, level),
        horizon=_dimmed(horizon, level),
        hills=_dimmed(((0.10, 0.16, 0.14), (0.17, 0.20, 0.27), (0.20, 0.15, 0.12))[rng.integers(3)], level),
        waves=rng.uniform(0, 2 * np.pi, 4),
    )


def _tinted(level: float, warm: float) -> Triple:
    return float(level * (1 + warm)), float(level), float(level * (1 - warm))


def _dimmed(colour: Triple, level: float) -> Triple:
    red, green, blue = colour
    return float(red * level), float(green * level), float(blue * level)
