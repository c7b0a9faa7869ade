"""Rendered scenes for training, made once and kept: pictures, what is in them, and questions about them.

    seeds ─► chunks of 64 scenes (render) ─► groups of 4 chunks (questions) ─► the runs' batches

A chunk and a group are files of plain tensors and lists; a file is there when it is complete. They depend on the
config, the seeds and this code alone, so they can be thrown away at any time.

Legend: S scenes of a chunk, F frames, K frames with depth and masks, O objects (padded to `MOST_OBJECTS`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
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
from training.scenes import render_many, sample_scene
from training.scenes.catalogue import COLOURS, KINDS
from training.scenes.config import SceneConfig, Seeds
from training.scenes.rendering import Rendered
from training.scenes.scene import Scene
from training.scenes.tracks import cues_of

CHUNK, GROUP, TOGETHER = 64, 4, 8
MOST_OBJECTS = 5
PICKED = 8  # frames of a scene whose depth and masks are kept
VERSION = 1  # of the files: another one is another folder


@dataclass(frozen=True)
class Asked:
    """A question of the training set. `scene` (chunk, place in it); `samples` [32, 5]: see `training.lessons.samples`;
    `seconds`: the length of the clip. The last five: see `training.lessons.spots`."""

    scene: tuple[int, int]
    question: str
    options: tuple[str, ...]
    right: int
    type: str
    statements: tuple[str, ...]
    visible_frames: int
    seconds: float
    samples: Tensor
    who: Tensor
    times: Tensor
    cells: Tensor
    places: Tensor
    moments: Tensor


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
        return self._cached(f"chunk-{number:05d}.pt", partial(self.make_chunk, number, self.config))

    def questions(self, group: int) -> list[Asked]:
        """Questions about the scenes of chunks `4 * group` and on; four at a time share their answers."""
        make = partial(_questions, group, self.per_scene, self.chunk)
        return [Asked(**fields) for fields in self._cached(f"questions-{group:05d}.pt", make)]

    def prepare(self, groups: int, ask: bool, processes: int, done: Callable[[int, int], None]) -> None:
        """Makes what is missing of `groups` groups, with questions or without, and reports `done(ready, all)`."""
        jobs: list[Callable[[], Any]] = []
        for group in range(groups):
            jobs += [partial(_make, self, "chunk", group * GROUP + n) for n in range(GROUP)]
        asking = [partial(_make, self, "questions", group) for group in range(groups)] if ask else []
        ready = 0
        with ProcessPoolExecutor(max(1, processes)) as pool:
            for batch in (jobs, asking):
                for _ in pool.map(_call, batch):
                    ready += 1
                    done(ready, len(jobs) + len(asking))

    def _cached(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.directory / name
        if not path.exists():
            unfinished = path.with_name(f"{name}.{os.getpid()}.part")
            torch.save(make(), unfinished)
            os.replace(unfinished, path)
        return torch.load(path, weights_only=True, mmap=True)


def observed(chunk: dict[str, Any], scenes: Sequence[int]) -> tuple[Tensor, Objects, Tensor, Tensor, Tensor]:
    """The K picked frames of some scenes of a chunk.

    Pictures uint8 [B, K, H, W, 3], the objects in them [B * K, …], depth [B, K, H, W] metres, focal lengths [B] in
    pixels and camera-to-world poses [B, K, 4, 4].
    """
    rows = torch.as_tensor(scenes)
    part = {name: value[rows] for name, value in chunk.items() if isinstance(value, Tensor)}
    picked = part["picked"]
    frames = part["frames"][torch.arange(len(rows))[:, None], picked]
    depth = part["depth"].float()
    poses = part["poses"][torch.arange(len(rows))[:, None], picked]
    back = poses[..., :3, :3].transpose(-1, -2)
    places = part["centres"][torch.arange(len(rows))[:, None], picked] - poses[..., None, :3, 3]
    facing = part["forward"][torch.arange(len(rows))[:, None], picked]
    kinds, colours = (part[name][:, None].expand(-1, PICKED, -1).flatten(0, 1) for name in ("kinds", "colours"))
    objects = Objects(
        part["masks"].flatten(0, 1),
        depth.flatten(0, 1),
        kinds,
        colours,
        torch.einsum("bkij,bkoj->bkoi", back, places).flatten(0, 1),
        torch.einsum("bkij,bkoj->bkoi", back, facing).flatten(0, 1),
    )
    return frames, objects, depth, part["focal"], poses


def _call(job: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    job()


def _make(store: SceneStore, what: str, number: int) -> None:
    getattr(store, what)(number)


def _chunk(number: int, config: SceneConfig) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for start in range(0, CHUNK, TOGETHER):
        scenes = [sample_scene(Seeds.train(number * CHUNK + start + n), config) for n in range(TOGETHER)]
        rows += [_row(scene, rendered) for scene, rendered in zip(scenes, render_many(scenes), strict=True)]
    tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "cues"}
    return {**tensors, "cues": [row["cues"] for row in rows]}


def _glimpses(number: int, config: SceneConfig) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for start in range(0, CHUNK, TOGETHER):
        whole = [sample_scene(Seeds.train(number * CHUNK + start + n), config) for n in range(TOGETHER)]
        scenes = [scene.at(_picked(scene)) for scene in whole]
        rows += [
            _tensors(scene, rendered, np.arange(PICKED))
            for scene, rendered in zip(scenes, render_many(scenes), strict=True)
        ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _picked(scene: Scene) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(scene.seed + 7).permutation(len(scene.times))[:PICKED])


def _row(scene: Scene, rendered: Rendered) -> dict[str, Any]:
    return {**_tensors(scene, rendered, _picked(scene)), "cues": _packed(cues_of(scene, rendered))}


def _tensors(scene: Scene, rendered: Rendered, picked: NDArray[np.int64]) -> dict[str, Tensor]:
    empty = MOST_OBJECTS - len(scene.bodies)
    kinds, colours = [kind.name for kind in KINDS], list(COLOURS)
    centres = np.stack([body.centres for body in scene.bodies], axis=1)
    forward = np.stack([body.axes[:, :, 0] * body.is_agent for body in scene.bodies], axis=1)
    pad = ((0, 0), (0, empty), (0, 0))
    return {
        "frames": rendered.frames,
        "picked": torch.from_numpy(picked),
        "depth": rendered.depth[picked].half(),
        "masks": rendered.masks[picked],
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


def _questions(group: int, per_scene: int, chunk: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    numbers = range(group * GROUP, (group + 1) * GROUP)
    scenes = [((n, place), unpacked(cues)) for n in numbers for place, cues in enumerate(chunk(n)["cues"])]
    places = {cues.video: where for where, cues in scenes}
    plan = Plan(per_scene=per_scene)
    return [
        _spots(candidate)
        | {
            "scene": where,
            "question": record.question,
            "options": record.options,
            "right": record.right,
            "type": record.type,
            "statements": candidate.statements,
            "visible_frames": visible_frames(candidate.ask, len(candidate.cues.times)),
            "seconds": float(candidate.cues.times[-1]),
            "samples": torch.from_numpy(samples(candidate.around, candidate.ask)).half(),
        }
        for record, candidate in asked([cues for _, cues in scenes], Random(group * GROUP), plan, Counter())
        for where in (places[candidate.cues.video],)
    ]


def _spots(candidate: Candidate) -> dict[str, Tensor]:
    found = asdict(spots(candidate.cues, candidate.around, candidate.ask))
    tensors = {name: torch.from_numpy(value) for name, value in found.items()}
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
