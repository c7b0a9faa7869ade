"""One record per video: `NAME.npz` with all arrays, and `NAME.json` with where they come from and what they are worth.

The JSON file is written last and both appear under their names at once: a record is complete when it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.layout import sha256
from training.cues.aggregate import Aggregated, PathNoise
from training.cues.measure import Measured
from training.questions.cues import Cues, Track
from training.whole import replacing

CONFIG, ERRORS, QUESTIONS, AUDIT, FREE = "config.json", "errors.json", "questions.json", "audit.json", "free.json"
TAKEN = frozenset(Path(name).stem for name in (CONFIG, ERRORS, QUESTIONS, AUDIT, FREE))
"""Names that no video may have: files of these names lie beside the records."""
VERSION = 1  # of the files


@dataclass(frozen=True)
class CuesRecord:
    """`reasons`: why the video is not used, empty when it is. `noise`: what its paths show; `facts`: the JSON."""

    cues: Cues
    reasons: tuple[str, ...]
    noise: PathNoise
    facts: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        return not self.reasons


def complete(out: Path, name: str) -> bool:
    return (out / f"{name}.json").is_file()


def write(
    out: Path, measured: Measured, aggregated: Aggregated, reasons: list[str], provenance: Mapping[str, Any]
) -> None:
    """Replaces what was there."""
    cues = aggregated.cues
    arrays: dict[str, NDArray[Any]] = {f"measured.{name}": array for name, array in measured.arrays().items()}
    arrays["times"], arrays["camera_to_world"] = cues.times, cues.camera_to_world
    for number, track in enumerate(cues.tracks):
        own = {name: getattr(track, name) for name in ("centres", "boxes", "visible", "confidence", "forward")}
        arrays |= {f"tracks.{number}.{name}": array for name, array in own.items() if array is not None}
    data, text = out / f"{cues.video}.npz", out / f"{cues.video}.json"
    with replacing(data) as unfinished:
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        digest = sha256(unfinished)
    facts = {
        "version": VERSION,
        "video": cues.video,
        "usable": not reasons,
        "reasons": reasons,
        "size": list(cues.size),
        "frames": len(cues.times),
        "tracks": [_told(track) for track in cues.tracks],
        **aggregated.facts(),
        "valid": round(float(measured.valid.mean()), 4),
        "arrays_sha256": digest,
        "provenance": dict(provenance),
    }
    with replacing(text) as unfinished:
        unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> CuesRecord:
    """From its JSON file. ValueError when it is none, or when its arrays are not those that it was written with."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise ValueError(f"{path.name} is no record of version {VERSION}")
    data = path.with_suffix(".npz")
    found = sha256(data)
    if found != facts["arrays_sha256"]:
        raise ValueError(f"{data.name} is damaged: its sha256 is {found}, {path.name} states {facts['arrays_sha256']}")
    with np.load(data, allow_pickle=False) as arrays:
        tracks = []
        for number, track in enumerate(facts["tracks"]):
            own = {name: arrays[f"tracks.{number}.{name}"] for name in ("centres", "boxes", "visible", "confidence")}
            forward = arrays[f"tracks.{number}.forward"] if track["agent"] else None
            tracks.append(Track(track["name"], **own, forward=forward))
        width, height = facts["size"]
        cues = Cues(facts["video"], arrays["times"], arrays["camera_to_world"], (width, height), tuple(tracks))
    return CuesRecord(cues, tuple(facts["reasons"]), PathNoise(**facts["noise"]), facts)


def read_all(out: Path) -> Iterator[CuesRecord]:
    """In the order of their names."""
    for path in sorted(out.glob("*.json")):
        if path.with_suffix(".npz").is_file():
            yield read(path)


def keep_config(out: Path, config: Mapping[str, Any]) -> None:
    """The folder is of one config. ValueError when it has records of another."""
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    path = out / CONFIG
    if not path.is_file():
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{out} has records of other settings or estimators: see {path.name}; take another --out")


def check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """ValueError when the folder has records of other settings, whether or not there is anything left to make."""
    path = out / CONFIG
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] != json.loads(json.dumps(settings)):
        raise ValueError(f"{out} has records of other settings: see {path.name}; take another --out")


def keep_errors(out: Path, errors: Mapping[str, str]) -> None:
    """Of this run; no file when there are none."""
    path = out / ERRORS
    if errors:
        path.write_text(json.dumps(dict(errors), indent=1) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _told(track: Track) -> dict[str, Any]:
    """What a person wants to know of it without the arrays."""
    return {
        "name": track.name,
        "agent": track.is_agent,
        "visible_frames": int(track.visible.sum()),
        "confidence": round(float(track.confidence.mean()), 4),
    }
