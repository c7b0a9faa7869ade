"""Scenes on disk: for each an mp4 with its frames at their exact times, and a JSON file with its cues beside it.

A clip is complete when its JSON file is there: it is written last, and both appear under their names at once.

Legend: F frames, H, W sides of a frame in pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from training.questions.cues import Cues, FloatArray, Track
from training.scenes.config import SceneConfig
from training.scenes.rendering import Rendered, render_many
from training.scenes.sampling import sample_scene
from training.scenes.scene import Scene
from training.scenes.tracks import cues_of

CLOCK = Fraction(1, 1000)  # seconds; the interval between frames is a whole number of these
# The bytes are the same every time: with one thread, and without the "macroblock tree", with which x264 165 encodes the
# same small frames differently from run to run.
QUALITY = {"crf": "16", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
DECIMALS = 6  # of the numbers in a JSON file
TOGETHER = 8  # scenes that are rendered at a time
CONFIG = "config.json"


def write_clips(
    directory: Path, seeds: Sequence[int], config: SceneConfig, device: torch.device | str = "cpu"
) -> Iterator[int]:
    """Writes the clips of `seeds` that are not there yet; yields how many are there, from the start on.

    The directory is made if need be, and keeps the config. ValueError when it has clips of another config.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _keep(directory / CONFIG, config)
    left = [seed for seed in seeds if not (directory / f"{Scene.name_of(seed)}.json").exists()]
    done = len(seeds) - len(left)
    yield done
    for start in range(0, len(left), TOGETHER):
        scenes = [sample_scene(seed, config) for seed in left[start : start + TOGETHER]]
        for scene, rendered in zip(scenes, render_many(scenes, device), strict=True):
            write_clip(directory, scene, rendered)
            done += 1
            yield done


def write_clip(directory: Path, scene: Scene, rendered: Rendered) -> None:
    """Writes `<video>.mp4`, H.264, and `<video>.json`; replaces what was there."""
    video, record = (directory / f"{scene.video}.{suffix}" for suffix in ("mp4", "json"))
    encode(_unfinished(video), rendered.frames.cpu().numpy(), scene.times)
    os.replace(_unfinished(video), video)
    _unfinished(record).write_text(json.dumps(_as_json(scene, cues_of(scene, rendered))) + "\n", encoding="utf-8")
    os.replace(_unfinished(record), record)


def read_cues(path: Path) -> Cues:
    """The cues in a clip's JSON file. KeyError or ValueError when it is none."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    tracks = [
        Track(
            name=track["name"],
            centres=np.array(track["centres"]),
            boxes=np.array([box or [np.nan] * 4 for box in track["boxes"]], np.float64),
            visible=np.array(track["visible"], bool),
            confidence=np.array(track["confidence"], np.float64),
            forward=None if track["forward"] is None else np.array(track["forward"]),
        )
        for track in fields["tracks"]
    ]
    width, height = fields["size"]
    poses = np.array(fields["camera_to_world"])
    return Cues.of(fields["video"], np.array(fields["times"]), poses, (width, height), *tracks)


def encode(path: Path, frames: np.ndarray, times: FloatArray) -> None:
    """Writes uint8 [F, H, W, 3] as H.264 in an mp4, each frame at its time: seconds, whole multiples of `CLOCK`."""
    ticks = np.rint(times / float(CLOCK)).astype(int).tolist()
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=1 / (CLOCK * (ticks[1] - ticks[0])), options=QUALITY)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", CLOCK
        for image, tick in zip(frames, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _keep(path: Path, config: SceneConfig) -> None:
    text = json.dumps(asdict(config), indent=2) + "\n"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{path.parent} has clips of another config: {path} differs from the one that is asked for")


def _as_json(scene: Scene, cues: Cues) -> dict[str, Any]:
    return {
        "video": cues.video,
        "seed": scene.seed,
        "size": scene.config.size,
        "focal": round(scene.focal, DECIMALS),
        "times": np.round(scene.times, DECIMALS).tolist(),
        "camera_to_world": _rounded(cues.camera_to_world),
        "camera_move": scene.camera_move,
        "tracks": [_track(track) for track in cues.tracks],
    }


def _track(track: Track) -> dict[str, Any]:
    return {
        "name": track.name,
        "centres": _rounded(track.centres),
        "boxes": [None if np.isnan(box).any() else box.tolist() for box in track.boxes],
        "visible": track.visible.tolist(),
        "confidence": track.confidence.tolist(),
        "forward": None if track.forward is None else _rounded(track.forward),
    }


def _rounded(values: FloatArray) -> list[Any]:
    return np.round(values, DECIMALS).tolist()
