"""The rows of an evaluation: the answers, the blind ways to answer, and what is left when a part is taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.video import Sampling, read
from training.data.sets import Sample, videos_of
from training.evaluate.answerers import Job
from training.scenes.clips import encode

Maker = Callable[[Sequence[Sample], Path], list[Job]]


@dataclass(frozen=True)
class Kind:
    """`group`: where a row stands in the report. `over_http`: a service can be asked for it."""

    name: str
    group: str
    jobs: Maker
    over_http: bool = True


def _plain(samples: Sequence[Sample], _: Path) -> list[Job]:
    return [_job(sample) for sample in samples]


def _off(samples: Sequence[Sample], _: Path) -> list[Job]:
    return [_job(sample, geometry="off") for sample in samples]


def _other_geometry(samples: Sequence[Sample], _: Path) -> list[Job]:
    others = other_videos(samples)
    return [_job(sample, geometry_path=others[sample.path]) for sample in samples]


def _other_video(samples: Sequence[Sample], _: Path) -> list[Job]:
    others = other_videos(samples)
    return [_job(sample, path=others[sample.path]) for sample in samples]


def _grey(samples: Sequence[Sample], folder: Path) -> list[Job]:
    greys = {path: grey(path, folder) for path in videos_of(samples)}
    return [_job(sample, path=greys[sample.path]) for sample in samples]


KINDS = (
    Kind("answers", "accuracy", _plain),
    Kind("other video", "blind", _other_video),
    Kind("grey video", "blind", _grey),
    Kind("geometry off", "ablations", _off),
    Kind("geometry of another clip", "ablations", _other_geometry, over_http=False),
)


def other_videos(samples: Sequence[Sample]) -> dict[Path, Path]:
    """For each video another one that is asked about as many frames of, so that nothing but its content differs."""
    by_frames: dict[int, list[Path]] = {}
    for sample in samples:
        paths = by_frames.setdefault(sample.frames, [])
        if sample.path not in paths:
            paths.append(sample.path)
    everything = videos_of(samples)
    others: dict[Path, Path] = {}
    for paths in by_frames.values():
        for place, path in enumerate(paths):
            following = paths[(place + 1) % len(paths)]
            # A shortened clip of the same scene is no other video.
            stem = path.stem.split("-first-")[0]
            if following.stem.split("-first-")[0] == stem:
                following = next((p for p in everything if p.stem.split("-first-")[0] != stem), following)
            others[path] = following
    return others


def grey(path: Path, folder: Path) -> Path:
    """A file as long and as large as `path`, all of whose pictures are grey."""
    target = folder / f"{path.stem}-grey.mp4"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        clip = read(path, Sampling(count=32))
        interval = round(1000 * float(np.diff(clip.times[: clip.sampled]).mean())) / 1000 if clip.sampled > 1 else 0.1
        pictures = np.full_like(clip.frames[: clip.sampled], 128)
        unfinished = target.with_suffix(".part.mp4")
        encode(unfinished, pictures, np.arange(clip.sampled).astype(np.float64) * interval)
        unfinished.replace(target)
    return target


def _job(sample: Sample, path: Path | None = None, geometry: str = "gsm", geometry_path: Path | None = None) -> Job:
    record = sample.record
    return Job(sample.id, path or sample.path, sample.frames, record.question, record.options, geometry, geometry_path)
