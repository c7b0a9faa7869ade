"""The rows of an evaluation that somebody must answer: the questions as they are, blind ones, and with a part away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.data.benchmarks import recipe
from training.data.formats import Numeric
from training.data.seen import Files, View
from training.data.sets import Sample
from training.evaluate.answers import Answered, first_letter, only_letter, strict
from training.questions.records import Record

ANSWERS = "answers"
FIRST_LETTER, ONLY_LETTER = "text, first letter", "text, only a letter"

Points = Callable[[Record, Answered], float]


@dataclass(frozen=True)
class Job:
    """For a row of the report: ask the question of a sample about a view, with the geometry of it or another or none.

    `geometry` None: off. Without `options` a text is asked for.
    """

    row: str
    id: str
    question: str
    options: tuple[str, ...]
    view: View
    geometry: View | None


@dataclass(frozen=True)
class Scope:
    """What the rows are made from: every sample with what may be seen of its video, and of another one.

    `prompt`: how a letter is asked for where it is written as text.
    """

    samples: Sequence[Sample]
    views: Mapping[str, View]
    files: Files
    prompt: Callable[[Record], str] = recipe

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
    """`group`: where a row stands in the report. `looks` (at what, whose geometry) for a sample.

    `written`: the answer is written as text, and has rules of its own by which it counts, each a row by its name; else
    the options' probabilities are asked for. A number is always written.
    """

    name: str
    group: str
    looks: Callable[[Scope, Sample], tuple[View, View | None]]
    written: Mapping[str, Points] | None = None
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

    @property
    def rows(self) -> Mapping[str, Points]:
        """By the name of a row, what an answer earns in it."""
        return self.written or {self.name: strict}

    def jobs(self, scope: Scope) -> list[Job]:
        if not self.written:
            return [self._job(scope, sample, sample.record.question, sample.record.options) for sample in scope.samples]
        lettered = (sample for sample in scope.samples if not isinstance(sample.record, Numeric))
        return [self._job(scope, sample, scope.prompt(sample.record), ()) for sample in lettered]

    def _job(self, scope: Scope, sample: Sample, question: str, options: tuple[str, ...]) -> Job:
        return Job(self.name, sample.id, question, options, *self.looks(scope, sample))


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
    Kind(FIRST_LETTER, "accuracy", _plain, written={FIRST_LETTER: first_letter, ONLY_LETTER: only_letter}),
    Kind("other video", "blind", _other_video, needs_two_videos=True),
    Kind("grey video", "blind", _grey),
    Kind("geometry off", "ablations", _off, needs_geometry=True),
    Kind(
        "geometry of another clip", "ablations", _other_geometry,
        over_http=False, needs_geometry=True, needs_two_videos=True,
    ),
)  # fmt: skip
