"""Rendered scenes for training, made once and kept: pictures, what is in them, and questions about them.

    seeds ─► chunks of 64 scenes (render) ─► groups of 4 chunks (questions) ─► books (`training.data.book`)

A chunk and a group are files of plain tensors and lists; a file is there when it is complete. They depend on the
config, the seeds and this code alone, so they can be thrown away at any time.

Legend: S scenes of a chunk, F frames, K frames with depth and masks, O objects (padded to `MOST_OBJECTS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.lessons.patches import Objects
from training.lessons.samples import samples
from training.lessons.spots import spots
from training.questions.candidates import Candidate
from training.questions.cues import Cues, Track
from training.questions.engine import Plan, asked, visible_frames
from training.questions.records import Record
from training.questions.templates import TYPES
from training.scenes import render_many, sample_scene
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.config import SceneConfig, Seeds
from training.scenes.rendering import Rendered
from training.scenes.scene import Scene
from training.scenes.tracks import cues_of
from training.whole import replacing

CHUNK, GROUP, TOGETHER = 64, 4, 8
MOST_OBJECTS = 5
DRAWN, LEARNED = 60, 2000  # as `Plan` has them: less than a benchmark needs, at half the time
PICKED = 8  # frames of a scene whose depth and masks are kept
VERSION = 4  # of the files: another one is another folder


class SceneStore:
    """Chunks and groups of training scenes under `directory`, by their numbers.

    With `glimpses` a chunk has the K picked frames of its scenes and no cues: a quarter of the work and of the bytes,
    and enough for lessons about single pictures.
    """

    def __init__(self, directory: Path, config: SceneConfig, per_scene: int = 48, glimpses: bool = False) -> None:
        what = ("glimpses",) if glimpses else (per_scene,)
        key = "-".join(str(value) for value in (VERSION, config.frames, *config.size, *what))
        self.directory, self.config, self.per_scene = directory / f"scenes-{key}", config, per_scene
        self.make_chunk = _glimpses if glimpses else _chunk
        self.directory.mkdir(parents=True, exist_ok=True)

    def chunk(self, number: int) -> dict[str, Any]:
        """Pictures, depth, masks, poses and objects of scenes `64 * number` and on; rendered when it is not there."""
        return self.cached(f"chunk-{number:05d}.pt", partial(self.make_chunk, number, self.config))

    def questions(self, group: int) -> dict[str, Any]:
        """Questions about the scenes of chunks `4 * group` and on, in the order of the scenes; four share answers.

        Lists of what is said: `question`, `options`, `statements`. Tensors with a row for each: `scene` (64 * chunk +
        place), `type`, `right`, `seen` frames, `seconds` of the clip, `samples` (`training.lessons.samples`); `who`,
        `times`, `cells`, `places`, `moments` (`training.lessons.spots`).
        """
        return self.cached(f"questions-{group:05d}.pt", partial(_questions, group, self.per_scene, self.chunk))

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """What is in the file `name`; made when it is not there. Plain tensors, lists and strings alone."""
        path = self.directory / name
        if not path.exists():
            made = make()
            with replacing(path) as unfinished:
                torch.save(made, unfinished)
        return torch.load(path, weights_only=True, mmap=True)


def observed(chunk: dict[str, Any], rows: Tensor) -> tuple[Tensor, Objects, Tensor, Tensor, Tensor]:
    """The K picked frames of some scenes of a chunk.

    Pictures uint8 [B, K, H, W, 3], the objects in them [B * K, …], depth [B, K, H, W] metres, focal lengths [B] in
    pixels and camera-to-world poses [B, K, 4, 4].
    """
    part = {name: value[rows] for name, value in chunk.items() if isinstance(value, Tensor)}
    picked = part["picked"]
    every = torch.arange(len(rows), device=picked.device)[:, None]
    frames = part["frames"][every, picked]
    depth = part["depth"].float()
    poses = part["poses"][every, picked]
    back = poses[..., :3, :3].transpose(-1, -2)
    places = part["centres"][every, picked] - poses[..., None, :3, 3]
    facing = part["forward"][every, picked]
    kinds, colours = (part[name][:, None].expand(-1, PICKED, -1).flatten(0, 1) for name in ("kinds", "colours"))
    objects = Objects(
        part["masks"].flatten(0, 1),
        depth.flatten(0, 1),
        kinds,
        colours,
        torch.einsum("bkij,bkoj->bkoi", back, places).flatten(0, 1),
        torch.einsum("bkij,bkoj->bkoi", back, facing).flatten(0, 1),
        torch.einsum("bkij,bj->bki", back, part["sun"]).flatten(0, 1),
    )
    return frames, objects, depth, part["focal"], poses


def _chunk(number: int, config: SceneConfig) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for start in range(0, CHUNK, TOGETHER):
        scenes = [sample_scene(Seeds.train(number * CHUNK + start + n), config) for n in range(TOGETHER)]
        rows += [_row(scene, rendered) for scene, rendered in zip(scenes, render_many(scenes), strict=True)]
    tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "cues"}
    return {**tensors, "cues": [row["cues"] for row in rows]}


def _glimpses(number: int, config: SceneConfig) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    scenes, all_ = glimpsed(number, config), torch.arange(PICKED)
    for start in range(0, CHUNK, TOGETHER):
        some = scenes[start : start + TOGETHER]
        rows += [
            tensors_of(scene, all_) | _pictures(rendered, all_)
            for scene, rendered in zip(some, render_many(some), strict=True)
        ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def glimpsed(number: int, config: SceneConfig) -> list[Scene]:
    """The scenes of a chunk, each at its K picked frames alone."""
    scenes = (sample_scene(Seeds.train(number * CHUNK + n), config) for n in range(CHUNK))
    return [scene.at(_picked(scene)) for scene in scenes]


def _picked(scene: Scene) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(scene.seed + 7).permutation(len(scene.times))[:PICKED])


def _row(scene: Scene, rendered: Rendered) -> dict[str, Any]:
    picked = torch.from_numpy(_picked(scene))
    cues = _packed(cues_of(scene, rendered))
    return {**tensors_of(scene, picked), **_pictures(rendered, picked), "cues": cues}


def _pictures(rendered: Rendered, picked: Tensor) -> dict[str, Tensor]:
    return {"frames": rendered.frames, "depth": rendered.depth[picked].half(), "masks": rendered.masks[picked]}


def tensors_of(scene: Scene, picked: Tensor) -> dict[str, Tensor]:
    """What is known of a scene without drawing it; `sun` [3] is a unit vector towards it."""
    empty = MOST_OBJECTS - len(scene.bodies)
    kinds, colours = [kind.name for kind in KINDS], list(COLOURS)
    centres = np.stack([body.centres for body in scene.bodies], axis=1)
    forward = np.stack([body.axes[:, :, 0] * body.is_agent for body in scene.bodies], axis=1)
    pad = ((0, 0), (0, empty), (0, 0))
    return {
        "picked": picked,
        "sun": torch.from_numpy(scene.look.sun).float(),
        "poses": torch.from_numpy(scene.camera_to_world).float(),
        "focal": torch.tensor(scene.focal, dtype=torch.float32),
        "kinds": torch.tensor([kinds.index(body.kind) for body in scene.bodies] + [0] * empty),
        "colours": torch.tensor([colours.index(body.colour) for body in scene.bodies] + [0] * empty),
        "centres": torch.from_numpy(np.pad(centres, pad)).float(),
        "forward": torch.from_numpy(np.pad(forward, pad)).float(),
    }


def _packed(cues: Cues) -> dict[str, Any]:
    """Cues as plain tensors, which can be read back without running anything."""
    fields = asdict(cues)
    tensors = {name: torch.from_numpy(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
    tracks = [
        {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in track.items()}
        for track in fields["tracks"]
    ]
    return {**fields, **tensors, "tracks": tracks}


def unpacked(fields: dict[str, Any]) -> Cues:
    def arrays(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}

    tracks = tuple(Track(**arrays(track)) for track in fields["tracks"])
    return Cues(**{**arrays(fields), "tracks": tracks, "size": tuple(fields["size"])})


def _questions(group: int, per_scene: int, chunk: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    numbers = range(group * GROUP, (group + 1) * GROUP)
    scenes = [(CHUNK * n + place, unpacked(cues)) for n in numbers for place, cues in enumerate(chunk(n)["cues"])]
    places = {cues.video: where for where, cues in scenes}
    plan = Plan(per_scene=per_scene, drawn=DRAWN, learned=LEARNED)
    made = list(asked([cues for _, cues in scenes], Random(group * GROUP), plan, Counter()))
    made.sort(key=lambda one: places[one[0].videoID])
    said = ("question", "options")
    rows = [_numbers(record, candidate, places[record.videoID]) for record, candidate in made]
    return {
        **{name: [getattr(record, name) for record, _ in made] for name in said},
        "statements": [candidate.statements for _, candidate in made],
        **{name: torch.stack([row[name] for row in rows]) for name in rows[0]},
    }


def _numbers(record: Record, candidate: Candidate, scene: int) -> dict[str, Tensor]:
    cues, ask = candidate.cues, candidate.ask
    found = asdict(spots(cues, candidate.around, ask)) | {"samples": samples(candidate.around, ask)}
    tensors = {name: torch.from_numpy(value) for name, value in found.items()}
    return {
        **{name: value.half() if value.is_floating_point() else _small(value) for name, value in tensors.items()},
        "scene": torch.tensor(scene),
        "type": torch.tensor(TYPES.index(record.type), dtype=torch.int8),
        "right": torch.tensor(record.right, dtype=torch.int8),
        "seen": torch.tensor(visible_frames(ask, len(cues.times)), dtype=torch.int16),
        "seconds": torch.tensor(float(cues.times[-1])),
    }


def _small(value: Tensor) -> Tensor:
    return value if value.dtype == torch.bool else value.to(torch.int8)
