"""Scenes made by hand: what stands where, seen by a camera that the test places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.questions.cues import FloatArray
from training.scenes import Body, Look, Scene, SceneConfig
from training.scenes.cameras import look_at
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.looks import sample_look
from training.scenes.parts import Part, Shape

FOCAL = 100.0


def body(part: Part, centre: Sequence[float], frames: int = 2, axes: FloatArray | None = None) -> Body:
    """One part, in a body that has no front. `axes` [3, 3] columns forward, left, up."""
    centres, turned = np.tile(np.array(centre, float), (frames, 1)), np.eye(3) if axes is None else axes
    return Body("thing", "red", False, (part,), centres, np.tile(turned, (frames, 1, 1)), ())


def ball(centre: Sequence[float], radius: float, frames: int = 2) -> Body:
    return body(Part(Shape.SPHERE, (0, 0, 0), (radius, radius, radius), (0.7, 0.0, 0.0)), centre, frames)


def agent(kind: str, colour: str, yaws: Sequence[float]) -> Body:
    """Stands at the world's origin, turned to the left by each of `yaws`, in radians."""
    (found,) = (one for one in KINDS if one.name == kind)
    turned = np.array([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in yaws])
    centres = np.tile([0, 0, found.height / 2], (len(yaws), 1))
    return Body(kind, colour, True, found.parts(COLOURS[colour], 1.0), centres, turned, ())


def stage(
    bodies: Sequence[Body],
    eye: Sequence[float] = (-8, 0, 2),
    target: Sequence[float] = (0, 0, 2),
    size: tuple[int, int] = (112, 84),
    look: Look | None = None,
) -> Scene:
    """A camera that stands at `eye` and looks at `target`; two frames, or as many as the bodies have."""
    frames = len(bodies[0].centres) if bodies else 2
    config = replace(SceneConfig(), frames=frames, size=size)
    poses = look_at(np.tile(np.array(eye, float), (frames, 1)), np.tile(np.array(target, float), (frames, 1)))
    light = look or sample_look(np.random.default_rng(0))
    return Scene(0, config, np.linspace(0, 0.1 * (frames - 1), frames), poses, FOCAL, tuple(bodies), light, "static")
