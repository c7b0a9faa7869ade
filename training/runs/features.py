"""The frozen encoder's features of all scenes of a store, computed once."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from models.encoder import ImageEncoder
from training.data.scenes import SceneStore


class Features:
    """Kept beside the chunks, under a name that changes with the encoder's weights."""

    def __init__(self, encoder: ImageEncoder, store: SceneStore, chunks: int) -> None:
        digest = hashlib.sha256()
        for tensor in encoder.state_dict().values():
            digest.update(tensor.float().cpu().numpy().tobytes())
        self.store = store
        self.directory = store.directory / f"features-{digest.hexdigest()[:12]}"
        self.directory.mkdir(exist_ok=True)
        self.chunks: list[Tensor] = []
        self.opened: dict[int, Tensor] = {}  # mapped: only what is read is in memory
        for number in range(chunks):
            self.chunks.append(self._chunk(encoder, number))
            sys.stderr.write(f"\rfeatures: {number + 1} of {chunks} chunks" + "\n" * (number + 1 == chunks))

    def of(self, scene: tuple[int, int]) -> Tensor:
        """bfloat16 [F, P, C] of scene (chunk, place)."""
        chunk, place = scene
        return self.chunks[chunk][place]

    def frames(self, scene: tuple[int, int]) -> Tensor:
        """uint8 [F, H, W, 3]"""
        chunk, place = scene
        if chunk not in self.opened:
            self.opened[chunk] = self.store.chunk(chunk)["frames"]
        return self.opened[chunk][place]

    def _chunk(self, encoder: ImageEncoder, number: int) -> Tensor:
        path: Path = self.directory / f"{number:05d}.pt"
        if not path.exists():
            frames = self.store.chunk(number)["frames"]
            with torch.inference_mode():
                found = torch.stack([encoder(clip).to(torch.bfloat16).cpu() for clip in frames])
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            torch.save(found, unfinished)
            os.replace(unfinished, path)
        return torch.load(path, weights_only=True, mmap=True)
