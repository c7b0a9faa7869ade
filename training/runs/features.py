"""The frozen encoder's features of all scenes of a store, computed once: in files, or on the GPU that trains."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from models.encoder import ImageEncoder
from training.data.scenes import CHUNK, SceneStore
from training.loop.workers import has_bf16
from training.whole import replacing

TOGETHER = 8  # clips that are encoded at once


class Features:
    """In files beside the chunks, under a name that changes with the encoder's weights; on a GPU in its memory, 0.8 MB
    a clip of the tiny sizes.

    The encoder is rounded to bfloat16 first, in which a checkpoint keeps it: these are the features that are served. A
    CPU with instructions for bfloat16 also computes in it, in 0.6 of the time: that moves a feature by 0.2 %, as much
    as keeping it in bfloat16 does.
    """

    def __init__(self, encoder: ImageEncoder, store: SceneStore, chunks: int) -> None:
        self.encoder, self.store = encoder.to(torch.bfloat16).float(), store
        self.bf16 = encoder.device.type == "cpu" and has_bf16(encoder.device)
        digest = hashlib.sha256()
        for tensor in encoder.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        self.directory = store.directory / f"features-{digest.hexdigest()[:12]}"
        self.directory.mkdir(exist_ok=True)
        self.chunks: list[Tensor] = []
        self.opened: dict[int, Tensor] = {}  # mapped: only what is read is in memory
        for number in range(chunks):
            self.chunks.append(self._chunk(number))
            sys.stderr.write(f"\rfeatures: {number + 1} of {chunks} chunks" + "\n" * (number + 1 == chunks))
        self.table = None if self.encoder.device.type == "cpu" else torch.cat(self.chunks)

    def of(self, scenes: Sequence[int]) -> Tensor:
        """bfloat16 [S, F, P, C] of scenes, 64 * chunk + place each."""
        if self.table is not None:
            return self.table[torch.tensor(scenes, device=self.table.device)]
        return torch.stack([self.chunks[scene // CHUNK][scene % CHUNK] for scene in scenes])

    def frames(self, scenes: Sequence[int]) -> Tensor:
        """uint8 [S, F, H, W, 3]"""
        return torch.stack([self._opened(scene // CHUNK)[scene % CHUNK] for scene in scenes])

    def _opened(self, chunk: int) -> Tensor:
        if chunk not in self.opened:
            self.opened[chunk] = self.store.chunk(chunk)["frames"]
        return self.opened[chunk]

    def _chunk(self, number: int) -> Tensor:
        if self.encoder.device.type != "cpu":
            return self._encoded(number)
        path: Path = self.directory / f"{number:05d}.pt"
        if not path.exists():
            encoded = self._encoded(number)
            with replacing(path) as unfinished:
                torch.save(encoded, unfinished)
        return torch.load(path, weights_only=True, mmap=True)

    def _encoded(self, number: int) -> Tensor:
        parts = []
        for clips in torch.split(self._opened(number), TOGETHER):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                found = self.encoder(rearrange(clips, "s f h w c -> (s f) h w c"))
            parts.append(rearrange(found.to(torch.bfloat16), "(s f) p c -> s f p c", s=len(clips)))
        return torch.cat(parts)
