"""A rendered scene as estimators: exact, or with noise of a chosen size on one of them.

With it the pipeline is tested without any published weights, and what noise does to answers is measured.

Legend: F frames, H, W sides of a frame, N things.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cues.estimators import Boxes, Estimators, Facts, Footage, Geometry, Masks, Names, Orientations
from training.cues.measure import boxes_of, iou
from training.questions.cues import BoolArray, Cues, FloatArray
from training.scenes import SceneConfig, cues_of, render, sample_scene
from training.scenes import points as points_of
from training.scenes.clips import CONFIG
from training.scenes.rendering import Rendered
from training.scenes.scene import Scene

SKY = 1000.0  # metres: a depth for what has none, with a confidence of 0


@dataclass(frozen=True)
class Noise:
    """Standard deviations, each frame (and thing) for itself. Of the cameras: `turn` degrees, about each axis, and
    `move`, a share of the median depth. `depth`: a share, for all that one mask holds, and for the rest. `front`:
    degrees.

    `grow`: pixels that every mask gets wider, or narrower below 0; `shift`: pixels in a random direction. `surface`:
    points of what is seen, as any estimator's, in place of every pixel of a thing having the thing's middle. `drift`
    in [0, 1): correlation from frame to frame.
    """

    turn: float = 0.0
    move: float = 0.0
    depth: float = 0.0
    front: float = 0.0
    grow: int = 0
    shift: int = 0
    surface: bool = False
    drift: float = 0.0

    def __post_init__(self) -> None:
        for name in ("turn", "move", "depth", "front", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.drift < 1:
            raise ValueError(f"drift is {self.drift}; it must be in [0, 1)")


@dataclass(frozen=True)
class Truth:
    """A scene, its pictures and its own cues."""

    scene: Scene
    rendered: Rendered
    cues: Cues

    @classmethod
    def of(cls, scene: Scene) -> Truth:
        rendered = render(scene)
        return cls(scene, rendered, cues_of(scene, rendered))

    @property
    def order(self) -> list[int]:
        """Of each track of the cues, which body of the scene it is."""
        names = [body.name for body in self.scene.bodies]
        return [names.index(track.name) for track in self.cues.tracks]

    def footage(self) -> Footage:
        """As if its clip had been read, without what an encoder loses."""
        path = Path(f"{self.scene.video}.mp4")
        return Footage(path, self.rendered.frames.numpy(), self.scene.times, self.scene.config.size)

    def masks(self) -> BoolArray:
        """[N, F, H, W] in the order of the tracks."""
        index = self.rendered.masks.numpy()
        return np.stack([index == body + 1 for body in self.order])


Scenes = Callable[[Footage], Truth]


def beside(footage: Footage) -> Truth:
    """The scene of a clip that `training.scenes write` wrote: drawn and rendered again from the record beside it.

    ValueError when there is no such record, or when the clip has other frames than the scene.
    """
    return _beside(footage.path.resolve(), len(footage.frames), footage.frames.shape[1:3])


@lru_cache(maxsize=2)
def _beside(path: Path, frames: int, sides: tuple[int, int]) -> Truth:
    record, config = path.with_suffix(".json"), path.parent / CONFIG
    if not (record.is_file() and config.is_file()):
        raise ValueError(f"{path.name} is no rendered clip: there is no {record.name} or no {CONFIG} beside it")
    given: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    seed = int(json.loads(record.read_text(encoding="utf-8"))["seed"])
    truth = Truth.of(sample_scene(seed, SceneConfig(**values)))
    found = (len(truth.scene.times), *truth.rendered.depth.shape[1:])
    if found != (frames, *sides):
        raise ValueError(f"{path.name} is read as {frames} frames of {sides}; the scene has {found}")
    return truth


def oracle(scenes: Scenes = beside, noise: Noise = Noise(), seed: int = 0) -> Estimators:
    """All estimators from the scene of a footage. The same seed gives every footage the same noise again."""

    def rng(footage: Footage, salt: int) -> np.random.Generator:
        return np.random.default_rng([seed, salt, *footage.name.encode()])

    stated = {field.name: getattr(noise, field.name) for field in fields(noise)}
    facts: Facts = {"kind": "oracle", "noise": stated, "seed": seed}
    return Estimators(
        namer=_Named(facts, scenes),
        geometer=_Placed(facts, scenes, noise, rng),
        detector=_Found(facts, scenes),
        tracker=_Followed(facts, scenes, noise, rng),
        orienter=_Faced(facts, scenes, noise, rng),
    )


Generators = Callable[[Footage, int], np.random.Generator]


@dataclass(frozen=True)
class _Named:
    facts: Facts
    scenes: Scenes

    def __call__(self, footage: Footage) -> Names:
        tracks = self.scenes(footage).cues.tracks
        agents = tuple(track.name for track in tracks if track.is_agent)
        return Names(agents, tuple(track.name for track in tracks if not track.is_agent))


@dataclass(frozen=True)
class _Placed:
    facts: Facts
    scenes: Scenes
    noise: Noise
    rng: Generators

    def __call__(self, footage: Footage) -> Geometry:
        truth, noise, rng = self.scenes(footage), self.noise, self.rng(footage, 1)
        seen = points_of(truth.rendered)
        valid = seen.valid.numpy()
        points = np.where(valid[..., None], seen.camera.numpy(), np.array([0, 0, SKY], np.float32))
        masks = truth.masks()
        if not noise.surface:
            for mask, track in zip(masks, truth.cues.tracks, strict=True):
                poses = truth.scene.camera_to_world
                middle = np.einsum("fji,fj->fi", poses[:, :3, :3], track.centres - poses[:, :3, 3])
                points = np.where(mask[..., None], middle[:, None, None].astype(np.float32), points)
        if noise.depth:
            factors = np.exp(noise.depth * _noise(rng, (len(points), 1 + len(masks)), noise.drift))
            whose = np.zeros(valid.shape, np.int64)
            for number, mask in enumerate(masks, 1):
                whose[mask] = number
            points = points * np.take_along_axis(factors[:, None], whose, axis=2)[..., None].astype(np.float32)
        poses = truth.scene.camera_to_world.copy()
        depth = float(np.median(truth.rendered.depth.numpy()[valid]))
        poses[:, :3, :3] = poses[:, :3, :3] @ _turns(rng, len(poses), noise.turn, noise.drift)
        poses[:, :3, 3] += noise.move * depth * _noise(rng, (len(poses), 3), noise.drift)
        return Geometry(poses, points, valid.astype(np.float32), metric=True, up=np.array([0.0, 0.0, 1.0]))


@dataclass(frozen=True)
class _Found:
    facts: Facts
    scenes: Scenes

    def __call__(self, footage: Footage, frames: Sequence[int], names: Names) -> list[Boxes]:
        truth = self.scenes(footage)
        boxes = boxes_of(truth.masks())
        found = []
        for frame in frames:
            seen = [n for n in range(len(boxes)) if np.isfinite(boxes[n, frame]).all()]
            tracks = tuple(truth.cues.tracks[n].name for n in seen)
            found.append(Boxes(boxes[seen, frame].reshape(-1, 4), np.ones(len(seen)), tracks))
        return found


@dataclass(frozen=True)
class _Followed:
    facts: Facts
    scenes: Scenes
    noise: Noise
    rng: Generators

    def __call__(self, footage: Footage, frame: int, boxes: FloatArray) -> Masks:
        truth = self.scenes(footage)
        masks = truth.masks()
        true = boxes_of(masks)[:, frame]
        whose = [int(iou(box, true).argmax()) for box in boxes]
        present = np.stack([track.visible for track in truth.cues.tracks]).astype(np.float64)
        rng = self.rng(footage, 2)
        changed = moved(grown(masks, self.noise.grow), self.noise.shift, rng)
        return Masks(changed[whose], present[whose])


@dataclass(frozen=True)
class _Faced:
    facts: Facts
    scenes: Scenes
    noise: Noise
    rng: Generators

    def __call__(self, footage: Footage, masks: BoolArray, rays: FloatArray) -> Orientations:
        """Whose front is asked for is told by the mask that it shares most with."""
        truth, rng = self.scenes(footage), self.rng(footage, 3)
        own = truth.masks()
        turns = [_turns(rng, len(own[0]), self.noise.front, self.noise.drift) for _ in own]
        back = np.swapaxes(truth.scene.camera_to_world[:, :3, :3], 1, 2)
        forward, up = np.full(rays.shape, np.nan), np.full(rays.shape, np.nan)
        for number, mask in enumerate(masks):
            whose = int((own & mask).sum(axis=(1, 2, 3)).argmax())
            body = truth.scene.bodies[truth.order[whose]]
            axes = back @ body.axes @ turns[whose]
            forward[number], up[number] = axes[..., 0], axes[..., 2]
        return Orientations(forward, up, np.ones(rays.shape[:2]))


def grown(masks: BoolArray, pixels: int) -> BoolArray:
    """[N, F, H, W], each wider by so many pixels on all sides; narrower where that is below 0."""
    if pixels < 0:
        return ~grown(~masks, -pixels)
    for _ in range(pixels):
        padded = np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :, :-2] | padded[:, :, 1:-1] | padded[:, :, 2:]
        masks = rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]
    return masks


def moved(masks: BoolArray, pixels: int, rng: np.random.Generator) -> BoolArray:
    """Each mask in each frame by so many pixels in a direction of its own; what comes in from outside is empty."""
    if not pixels:
        return masks
    out = np.zeros_like(masks)
    height, width = masks.shape[2:]
    for index in np.ndindex(masks.shape[:2]):
        angle = rng.uniform(0, 2 * np.pi)
        down, right = round(pixels * np.sin(angle)), round(pixels * np.cos(angle))
        into, of = (
            (slice(max(d * s, 0), side + min(d * s, 0)), slice(max(-d * s, 0), side + min(-d * s, 0)))
            for d, s, side in ((down, 1, height), (right, 1, width))
        )
        out[index][into[0], of[0]] = masks[index][into[1], of[1]]
    return out


def _noise(rng: np.random.Generator, shape: tuple[int, ...], drift: float) -> NDArray[np.float64]:
    """Standard normal along the first axis, each correlated with the one before by `drift`."""
    values = rng.standard_normal(shape)
    for frame in range(1, len(values)):
        values[frame] = drift * values[frame - 1] + np.sqrt(1 - drift**2) * values[frame]
    return values


def _turns(rng: np.random.Generator, count: int, degrees: float, drift: float) -> FloatArray:
    """[F, 3, 3] rotations by a vector whose coordinates have this standard deviation."""
    vectors = np.radians(degrees) * _noise(rng, (count, 3), drift)
    angles = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    x, y, z = (vectors / angles[:, None]).T
    nothing = np.zeros(count)
    skew = np.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], axis=1).reshape(count, 3, 3)
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) + sine * skew + (1 - cosine) * (skew @ skew)


def scaled(geometer: Any, factor: float) -> Any:
    """The same geometry in another unit, which nobody knows: as π³ would give it."""
    return _Scaled(geometer, factor)


@dataclass(frozen=True)
class _Scaled:
    inner: Any
    factor: float

    @property
    def facts(self) -> Facts:
        return {**self.inner.facts, "unit": self.factor}

    def __call__(self, footage: Footage) -> Geometry:
        found: Geometry = self.inner(footage)
        poses = found.poses.copy()
        poses[:, :3, 3] *= self.factor
        return replace(found, poses=poses, points=found.points * np.float32(self.factor), metric=False)
