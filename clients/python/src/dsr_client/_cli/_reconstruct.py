"""`dsr reconstruct`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .._client import Client
from .._reconstruction import Reconstruction, writer_of
from .._source import source_of
from ._progress import shown

__all__ = ["reconstruct"]


def reconstruct(arguments: argparse.Namespace) -> int:
    if not arguments.out and not arguments.json:
        raise ValueError("reconstruct: say where to: --out scene.ply or --out scene.glb, or --json for all of it")
    if arguments.out:
        writer_of(Path(arguments.out))  # before the work rather than after it
    source = source_of(arguments.video)
    with Client(arguments.url, timeout=arguments.timeout) as client:
        if isinstance(source, Path):
            with shown(source.name) as progress:
                client.upload(source, progress=progress)
        scene = client.reconstruct(arguments.video, points=arguments.points, frames=arguments.frames)
    if arguments.out:
        scene.save(arguments.out)
    print(json.dumps(scene.raw) if arguments.json else _said(scene, arguments.out))
    return 0


def _said(scene: Reconstruction, out: str) -> str:
    first, last = scene.cameras[0], scene.cameras[-1]
    sure = sum(camera.confidence for camera in scene.cameras) / len(scene.cameras)
    took = ", ".join(f"{stage} {seconds:.3f} s ({scene.cache.get(stage)})" for stage, seconds in scene.timings.items())
    return (
        f"{out}: {len(scene.points)} of {scene.points.available} points, {len(scene.cameras)} cameras from "
        f"{first.time:.1f} to {last.time:.1f} s, mean confidence {sure:.0%}\n{took}; {scene.id}"
    )
