"""Picked frames of many scenes, for lessons about single pictures: kept in files, or made on a GPU while it trains.

    seeds ─► scenes, as tables (processes) ─► drawn on the device ─► rows of tensors that stay there

A GPU draws a scene in the time in which a processor finds room for its objects, and holds 100,000 of them. So a run
starts with the first few and gets more with every step: which ones there are depends on the step alone.

Legend: N scenes, K picked frames.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from training.data.processes import process_pool
from training.data.scenes import CHUNK, PICKED, SceneStore, glimpsed, observed, tensors_of
from training.lessons.patches import Objects
from training.scenes import Scene
from training.scenes.config import SceneConfig
from training.scenes.rendering import Tables, draw_all

Observed = tuple[Tensor, Objects, Tensor, Tensor, Tensor]


class Glimpses(Protocol):
    """Scenes by their numbers; the first `CHUNK` are for measuring."""

    def there(self, step: int) -> int:
        """How many scenes may be drawn from at this step; makes what is missing."""
        ...

    def observed(self, scenes: Sequence[int]) -> Observed:
        """As `training.data.scenes.observed`, on the run's device."""
        ...


class Kept:
    """All scenes are in the files of a store, which maps them into memory."""

    def __init__(self, store: SceneStore, chunks: int, device: torch.device) -> None:
        self.chunks, self.device = [store.chunk(number) for number in range(chunks)], device

    def there(self, step: int) -> int:
        return len(self.chunks) * CHUNK

    def observed(self, scenes: Sequence[int]) -> Observed:
        parts = [observed(self.chunks[scene // CHUNK], torch.tensor([scene % CHUNK])) for scene in scenes]
        frames, objects, depth, focal, poses = zip(*parts, strict=True)
        tensors = [torch.cat(one).to(self.device) for one in (frames, depth, focal, poses)]
        return tensors[0], Objects.joined(objects).to(self.device), tensors[1], tensors[2], tensors[3]


class Growing:
    """`first` scenes before the first step and `more` with each, up to `most`; 0.6 MB of the device's memory each."""

    def __init__(
        self, config: SceneConfig, first: int, more: int, most: int, device: torch.device, processes: int
    ) -> None:
        self.first, self.more, self.device = first, more, device
        self.most = -(-most // CHUNK) * CHUNK
        self.table: dict[str, Tensor] = {}
        self.count = 0
        self.coming = self._made(config, processes)

    def there(self, step: int) -> int:
        wanted = min(self.first + self.more * step, self.most)
        while self.count < wanted:
            self._add(next(self.coming))
        return wanted

    def observed(self, scenes: Sequence[int]) -> Observed:
        return observed(self.table, torch.tensor(scenes, device=self.device))

    def _made(self, config: SceneConfig, processes: int) -> Iterator[bytes]:
        with process_pool(processes) as pool:
            chunks = range(self.most // CHUNK)
            yield from pool.map(_packed, chunks, [config] * len(chunks))

    def _add(self, packed: bytes) -> None:
        tables, known = pickle.loads(packed)
        drawn = draw_all(tables.to(self.device))
        rows = slice(self.count, self.count + CHUNK)
        for name, value in (known | _pictures(drawn, CHUNK)).items():
            if name not in self.table:
                self.table[name] = torch.empty((self.most, *value.shape[1:]), dtype=value.dtype, device=self.device)
            self.table[name][rows] = value.to(self.device)
        self.count += CHUNK


def _pictures(drawn: Any, scenes: int) -> dict[str, Tensor]:
    named = {"frames": drawn.pictures, "depth": drawn.depth.half(), "masks": drawn.masks}
    return {name: value.unflatten(0, (scenes, PICKED)) for name, value in named.items()}


def _packed(number: int, config: SceneConfig) -> bytes:
    """Pickled here: the pool would hand tensors over by open files, of which there are only so many."""
    scenes: list[Scene] = glimpsed(number, config)
    rows = [tensors_of(scene, torch.arange(PICKED)) for scene in scenes]
    known = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return pickle.dumps((Tables.of(scenes), known))
