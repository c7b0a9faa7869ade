"""Questions and cues as the page shows them: plain JSON, numbers rounded, nothing that a browser has to work out twice.

Legend: F frames.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from training.questions.cues import Cues, FloatArray, Track
from training.questions.records import Record, as_json

BOX = re.compile(r"([^\[\]]*)\[(-?\d+), (-?\d+), (-?\d+), (-?\d+)\]")  # "the red car [12, 40, 88, 120]"
NEAR = 1.5  # pixels between a side as it is printed and as it was measured


def id_of(record: Record) -> str:
    """What a decision is about: 16 hexadecimal digits of the public fields. The same question has the same one."""
    text = json.dumps(as_json(record, extras=False), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def items(records: Iterable[Record], cues: Mapping[str, Cues]) -> list[dict[str, Any]]:
    """Each question once. `named` are the tracks that it speaks of, by their places in `clip`.

    Raises:
        ValueError: a question is about a frame that the cues of its video do not have: they are of another sampling.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        known = cues.get(record.videoID)
        item = as_json(record) | {
            "id": id_of(record),
            "answer": record.right,
            "named": _named(record, known) if known else [],
            "boxes": [[int(side) for side in sides] for _, *sides in BOX.findall(record.question)],
        }
        found.setdefault(item["id"], item)
    return list(found.values())


def clip(file: str, cues: Cues | None) -> dict[str, Any]:
    """`file` is the address of the video, beside the page. Places are seen from above: [x, y] of the world."""
    if cues is None:
        return {"file": file, "cues": None}
    poses = cues.camera_to_world
    return {
        "file": file,
        "cues": {
            "size": cues.size,
            "times": _rounded(cues.times, 1),
            "camera": {"path": _rounded(poses[:, :2, 3], 3), "forward": _rounded(poses[:, :2, 2], 3)},
            "tracks": [_track(track) for track in cues.tracks],
        },
    }


def _track(track: Track) -> dict[str, Any]:
    boxes = [box if track.visible[frame] else None for frame, box in enumerate(_rounded(track.boxes, 1))]
    forward = None if track.forward is None else _rounded(track.forward[:, :2], 3)
    return {"name": track.name, "path": _rounded(track.centres[:, :2], 3), "boxes": boxes, "forward": forward}


def _rounded(values: FloatArray, decimals: int) -> list[Any]:
    """Rows with something unknown in them are None, as JSON has no NaN."""
    rows = np.round(values, decimals).tolist()
    return [row if np.isfinite(value).all() else None for row, value in zip(rows, values, strict=True)]


def _named(record: Record, cues: Cues) -> list[int]:
    """The track with the name and, where the frame is known, with the box that stand in the question."""
    frame = record.extras.frames[0] if record.extras else None
    if frame is not None and frame >= len(cues.times):
        raise ValueError(f"{record.videoID}: a question is about frame {frame}, its cues have {len(cues.times)} frames")
    named: list[int] = []
    for words, *sides in BOX.findall(record.question):
        box = np.array([float(side) for side in sides])
        for place, track in enumerate(cues.tracks):
            called = words.strip().lower().endswith(track.name.lower())
            if called and (frame is None or np.abs(track.boxes[frame] - box).max() < NEAR) and place not in named:
                named.append(place)
                break
    return named
