"""`dsr upload`, `dsr videos` and `dsr health`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .._client import Client
from ._progress import shown
from ._tables import video_table

__all__ = ["health", "upload", "videos"]


def upload(arguments: argparse.Namespace) -> int:
    path = Path(arguments.video)
    with Client(arguments.url, timeout=arguments.timeout) as client, shown(path.name) as progress:
        video = client.upload(path, progress=progress)
    print(json.dumps(video.raw) if arguments.json else video_table([video]))
    return 0


def videos(arguments: argparse.Namespace) -> int:
    if (arguments.action == "delete") != bool(arguments.ids):
        raise ValueError("videos: write `dsr videos list`, or `dsr videos delete ID …`")
    with Client(arguments.url, timeout=arguments.timeout) as client:
        for video in arguments.ids:
            client.videos.delete(video)
            print(json.dumps({"deleted": video}) if arguments.json else f"deleted {video}")
        if arguments.action == "delete":
            return 0
        held = client.videos.list()
        if arguments.json:
            for one in held:
                print(json.dumps(one.raw))
        else:
            print(video_table(list(held)))
    return 0


def health(arguments: argparse.Namespace) -> int:
    with Client(arguments.url, timeout=arguments.timeout) as client:
        state = client.health()
    if arguments.json:
        print(json.dumps(dict(state.raw)))
    elif state.ready:
        print(f"ready: {state.model or 'a model'} with {', '.join(state.stages) or 'its stages'} at {client.url}")
    else:
        print(f"not ready: {state.detail or 'the service does not say why'}")
    return 0 if state.ready else 1
