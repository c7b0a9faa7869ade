"""The rows of an evaluation that somebody must answer: the questions as they are, blind ones, and with a part away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.data.seen import Files, View
from training.data.sets import Sample

ANSWERS = "answers"


@dataclass(frozen=True)
class Job:
    """For a row of the report: ask the question of a sample about a view, with the geometry of it or another or none.

    `geometry` None: off.
    """

    row: str
    id: str
    question: str
    options: tuple[str, ...]
    view: View
    geometry: View | None


@dataclass(frozen=True)
class Scope:
    """What the rows are made from: every sample with what may be seen of its video, and of another one."""

    samples: Sequence[Sample]
    views: Mapping[str, View]
    files: Files

    def other(self, sample: Sample) -> View:
        """As many frames of the next video."""
        return self.files.first(self._next[sample.path], self.views[sample.id].frames)

    @cached_property
    def videos(self) -> list[Path]:
        return list(dict.fromkeys(sample.path for sample in self.samples))

    @cached_property
    def _next(self) -> dict[Path, Path]:
        return dict(zip(self.videos, [*self.videos[1:], *self.videos[:1]], strict=True))


@dataclass(frozen=True)
class Kind:
    """`group`: where a row stands in the report. `looks` (at what, whose geometry) for a sample."""

    name: str
    group: str
    looks: Callable[[Scope, Sample], tuple[View, View | None]]
    over_http: bool = True
    needs_geometry: bool = False
    needs_two_videos: bool = False

    def unavailable(self, over_http: bool, geometry: bool, videos: int) -> str | None:
        """Why this row cannot be measured here; None when it can."""
        if over_http and not self.over_http:
            return "a service takes no other clip's geometry"
        if self.needs_geometry and not geometry:
            return "the model has no geometry"
        return "there is only one video" if self.needs_two_videos and videos < 2 else None

    def jobs(self, scope: Scope) -> list[Job]:
        return [
            Job(self.name, sample.id, sample.record.question, sample.record.options, *self.looks(scope, sample))
            for sample in scope.samples
        ]


def _plain(scope: Scope, sample: Sample) -> tuple[View, View | None]:
    return scope.views[sample.id], scope.views[sample.id]


def _off(scope: Scope, sample: Sample) -> tuple[View, View | None]:
    return scope.views[sample.id], None


def _other_geometry(scope: Scope, sample: Sample) -> tuple[View, View | None]:
    return scope.views[sample.id], scope.other(sample)


def _other_video(scope: Scope, sample: Sample) -> tuple[View, View | None]:
    return scope.other(sample), scope.other(sample)


def _grey(scope: Scope, sample: Sample) -> tuple[View, View | None]:
    grey = scope.files.grey(scope.views[sample.id])
    return grey, grey


KINDS = (
    Kind(ANSWERS, "accuracy", _plain),
    Kind("other video", "blind", _other_video, needs_two_videos=True),
    Kind("grey video", "blind", _grey),
    Kind("geometry off", "ablations", _off, needs_geometry=True),
    Kind(
        "geometry of another clip", "ablations", _other_geometry,
        over_http=False, needs_geometry=True, needs_two_videos=True,
    ),
)  # fmt: skip
