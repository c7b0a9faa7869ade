"""Videos in, records out: what is there is not made again, and a video that fails stops no other.

Legend: V videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training.cues import record
from training.cues.aggregate import aggregate
from training.cues.estimators import Estimators, Footage
from training.cues.measure import measure
from training.cues.settings import Settings
from training.cues.usable import reasons
from training.data.sets import SUFFIXES


@dataclass(frozen=True)
class Done:
    """A video that has a record now, or the error it ended with."""

    name: str
    error: str | None = None


def videos(folder: Path) -> list[Path]:
    """By name. ValueError when there are none, when two have one name but for the suffix, or when one has a name that
    is taken: records are by name."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    names = [path.stem for path in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not found:
        raise ValueError(f"{folder} has no videos")
    if twice:
        raise ValueError(f"{folder} has two videos of one name: {twice[0]}")
    if taken := sorted(record.TAKEN & set(names)):
        raise ValueError(f"{folder} has a video of the name {taken[0]}, which a file beside the records has")
    return found


def extract(path: Path, out: Path, estimators: Estimators, settings: Settings) -> None:
    """One video. Raises what the reader and the estimators raise."""
    footage = Footage.open(path, settings)
    measured = measure(footage, estimators, settings)
    aggregated = aggregate(footage.name, measured, settings)
    provenance = {"estimators": estimators.facts, "settings": settings.as_json()}
    record.write(out, measured, aggregated, reasons(measured, aggregated, settings), provenance)


def attempt(path: Path, out: Path, estimators: Estimators, settings: Settings) -> Done:
    """The error as text: whatever one of thousands of videos does to an estimator, the others go on."""
    try:
        extract(path, out, estimators, settings)
    except Exception as error:
        return Done(path.stem, f"{type(error).__name__}: {error}")
    return Done(path.stem)


Make = Callable[[], Estimators]
"""Loads the estimators; with workers, once in each."""


def extract_all(paths: Sequence[Path], out: Path, make: Make, settings: Settings, workers: int = 1) -> Iterator[Done]:
    """Yields every video of `paths` once, those that are complete already first.

    With one worker all is done in this process; with more, by as many tasks of Ray. The folder is made, and belongs to
    these settings and estimators: ValueError when it has others' records.
    """
    out.mkdir(parents=True, exist_ok=True)
    record.check_settings(out, settings.as_json())
    left = [path for path in paths if not record.complete(out, path.stem)]
    ready = {path.stem for path in paths} - {path.stem for path in left}
    yield from (Done(name) for name in sorted(ready))
    if left:
        yield from (
            _in_process(left, out, make, settings) if workers == 1 else _on_ray(left, out, make, settings, workers)
        )


def _in_process(paths: Sequence[Path], out: Path, make: Make, settings: Settings) -> Iterator[Done]:
    estimators = make()
    record.keep_config(out, config_of(estimators, settings))
    yield from map(partial(attempt, out=out, estimators=estimators, settings=settings), paths)


def _on_ray(paths: Sequence[Path], out: Path, make: Make, settings: Settings, workers: int) -> Iterable[Done]:
    from training.cues.on_ray import spread

    return spread(paths, out, make, settings, workers)


def config_of(estimators: Estimators, settings: Settings) -> dict[str, Any]:
    return {"estimators": {name: dict(facts) for name, facts in estimators.facts.items()}} | {
        "settings": settings.as_json()
    }
