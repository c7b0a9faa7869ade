"""`python -m training.probe [--checkpoint models/tiny]`: what do features tell of where things are and how they move?

A small network reads off one merged cell (2 frames x 2 x 2 patches) of the frozen encoder where the thing that stands
in it is in either frame, in the camera's axes, and how far it went between them. What it does not find in scenes that
it has not seen, no selector can hand on: it is the ceiling of everything behind the encoder.

Legend: N samples, C numbers of a cell.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from models.checkpoint import load_encoder, open_layout
from models.encoder import ImageEncoder
from training.data.scenes import SceneStore, unpacked
from training.lessons.spots import CELL, NEAREST
from training.questions.cues import Cues, FloatArray, Track
from training.scenes.config import SceneConfig

NAMES = ("x/z", "y/z", "log z", "right", "down", "ahead", "log step")
LEAST_STEP = 0.03  # metres
HELD_OUT = 0.15  # of the chunks of 64 scenes, the last ones


def samples(encoder: ImageEncoder, chunk: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cells [N, C] with a thing in them and what there is to know of it [N, 7], in the order of `NAMES`."""
    cells, truths = [], []
    for frames, packed in zip(chunk["frames"], chunk["cues"], strict=True):
        cues = unpacked(packed)
        with torch.inference_mode():
            features = encoder(frames)
        rows, columns = cues.size[1] // CELL, cues.size[0] // CELL
        merged = rearrange(features, "(t s) (r a c b) d -> t r c (s a b d)", s=2, a=2, b=2, r=rows, c=columns)
        for track in cues.tracks:
            for time, row, column, truth in _seen(cues, track, rows, columns):
                cells.append(merged[time, row, column])
                truths.append(truth)
    return torch.stack(cells), torch.from_numpy(np.stack(truths)).float()


def _seen(cues: Cues, track: Track, rows: int, columns: int) -> list[tuple[int, int, int, FloatArray]]:
    """Where the middle of a thing's box is while it is seen in both frames of a moment, and what is true then."""
    rotation, eye = cues.camera_to_world[:, :3, :3], cues.camera_to_world[:, :3, 3]
    middle = np.einsum("fji,fj->fi", rotation, track.centres - eye)
    found = []
    for first in range(0, len(middle) - 1, 2):
        boxes = track.boxes[first : first + 2]
        if not np.isfinite(boxes).all():
            continue
        across, down = boxes.mean(axis=0).reshape(2, 2).mean(axis=0)
        row, column = (min(most - 1, max(0, int(at // CELL))) for at, most in ((down, rows), (across, columns)))
        depth, step = max(float(middle[first, 2]), NEAREST), middle[first + 1] - middle[first]
        length = max(float(np.linalg.norm(step)), LEAST_STEP)
        place = [*middle[first, :2] / depth, np.log(depth)]
        truth = np.array([*place, *step, np.log(length)])
        found.append((first // 2, row, column, truth))
    return found


def explained(cells: Sequence[Tensor], truths: Sequence[Tensor], steps: int) -> dict[str, dict[str, float]]:
    """R² of each number, in scenes that the reader has seen and in scenes that it has not. One tensor per chunk."""
    border = min(len(cells) - 1, round(len(cells) * (1 - HELD_OUT)))
    seen, known = torch.cat(list(cells[:border])), torch.cat(list(truths[:border]))
    mean, spread = known.mean(0), known.std(0)
    torch.manual_seed(0)
    reader = nn.Sequential(nn.Linear(seen.shape[1], 384), nn.GELU(), nn.Linear(384, len(NAMES)))
    optim = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.05)
    for step in range(steps):
        optim.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        chosen = torch.randint(len(seen), (256,))
        loss = (reader(seen[chosen]) - (known[chosen] - mean) / spread).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()

    def r2(inputs: Tensor, truth: Tensor) -> dict[str, float]:
        with torch.inference_mode():
            found = reader(inputs) * spread + mean
        rest = (found - truth).square().mean(0) / truth.var(0)
        return {name: round(1 - float(value), 3) for name, value in zip(NAMES, rest, strict=True)}

    return {"seen": r2(seen, known), "new": r2(torch.cat(list(cells[border:])), torch.cat(list(truths[border:])))}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.probe", description=__doc__)
    parser.add_argument("--checkpoint", default="models/tiny", help="any layout with an encoder")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where rendered scenes are kept")
    parser.add_argument("--chunks", type=int, default=24, help="of 64 scenes, at least 2")
    parser.add_argument("--steps", type=int, default=3000, help="of the reader's training")
    chosen = parser.parse_args(arguments)
    if chosen.chunks < 2:
        parser.error(f"--chunks is {chosen.chunks}; at least 2, as some are held out")
    encoder, store = load_encoder(open_layout(chosen.checkpoint)), SceneStore(chosen.cache, SceneConfig())
    cells, truths = [], []
    for number in range(chosen.chunks):
        found = samples(encoder, store.chunk(number))
        cells.append(found[0])
        truths.append(found[1])
        sys.stderr.write(f"\rfeatures: {number + 1} of {chosen.chunks} chunks" + "\n" * (number + 1 == chosen.chunks))
    result = {"samples": sum(map(len, cells)), **explained(cells, truths, chosen.steps)}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
