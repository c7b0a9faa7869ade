"""The card of a data set: what is in it, where from, what was taken away, and what can be had without looking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data import duplicates
from training.questions import candidates, templates, verbalise, viewpoints
from training.questions.audit import Report
from training.questions.records import Record

THRESHOLDS: Mapping[str, Any] = {
    "least frames between the two times": templates.LEAST_APART,
    "hidden frames of a prediction": templates.HIDDEN,
    "most statements of an answer": candidates.MOST_STATEMENTS,
    "least share of the interval in which everything is seen": candidates.LEAST_SEEN,
    "least confidence of an orientation": viewpoints.SURE,
    "nothing moves below, in the unit of the video": verbalise.SMALL,
    "nearly the same box, pixels": duplicates.PIXELS,
    "nearly the same time, seconds": duplicates.SECONDS,
    "nearly the same words, share": duplicates.WORDS,
}


@dataclass(frozen=True)
class Card:
    """`parts`: the questions by the part's name, `audits` likewise, None where there are too few to learn from.

    `sources`: what the questions were made from. `taken`: how many questions went, by why. `facts`: more thresholds.
    """

    name: str
    license: str
    made: str
    commit: str
    command: str
    parts: Mapping[str, Sequence[Record]]
    audits: Mapping[str, Report | None]
    sources: Sequence[str]
    taken: Mapping[str, int]
    shared: int = 0
    moved: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_markdown(self) -> str:
        """With the header that model hubs read."""
        return "\n".join([
            *("---", f"license: {json.dumps(self.license)}", "task_categories:", "- video-text-to-text", "---"),
            f"# {_text(self.name)}\n",
            f"{self._size()} Made on {self.made} at commit `{self.commit}` by `{_text(self.command)}`. Licence: "
            f"{_text(self.license)}; the videos have licences of their own.\n",
            "## What is in it\n", *self._counts(), "",
            "## Where it comes from\n", *(f"* {_text(source)}" for source in self.sources), "",
            "## What was taken away\n", *self._taken(), "",
            "## Thresholds\n", *_table(("threshold", "value"), {**THRESHOLDS, **self.facts}.items()), "",
            "## Without the video\n", *self._audited(),
        ])  # fmt: skip

    def _size(self) -> str:
        told = (f"{len(records):,} in `{name}`" for name, records in self.parts.items())
        return f"Questions about how things move in videos: {', '.join(told)}."

    def _counts(self) -> Iterator[str]:
        videos = {name: {record.videoID for record in records} for name, records in self.parts.items()}
        rows: list[tuple[str, Counter[str]]] = [("videos", Counter({name: len(own) for name, own in videos.items()}))]
        for label, keys in (("type", _type), ("letter", _letter), ("viewpoint", _viewpoint)):
            counted = {name: Counter(map(keys, records)) for name, records in self.parts.items()}
            there = sorted(set().union(*counted.values()))
            rows += [(f"{label} {key}", Counter({name: own[key] for name, own in counted.items()})) for key in there]
        yield from _table(("", *self.parts), ((label, *(own[name] for name in self.parts)) for label, own in rows))
        yield ""
        yield f"No video is in two parts; {self.shared} groups of options are. {self._broken()} groups are not whole."

    def _broken(self) -> int:
        """Groups with fewer questions in a part than they have options: which option is never right would tell."""
        grouped = (
            Counter((record.extras.group, len(record.options)) for record in part if record.extras)
            for part in self.parts.values()
        )
        return sum(count < options for own in grouped for (_, options), count in own.items())

    def _taken(self) -> Iterator[str]:
        yield from (f"* {count:,} questions: {why}" for why, count in self.taken.items())
        yield f"* {self.moved:,} questions have their options in another order, for each letter to be right as often."

    def _audited(self) -> Iterator[str]:
        for name, report in self.audits.items():
            yield f"### {name}\n"
            yield report.as_markdown() if report else "Not audited: all questions are about one video.\n"


def _type(record: Record) -> str:
    return record.type


def _letter(record: Record) -> str:
    return record.answer


def _viewpoint(record: Record) -> str:
    scope = {"abs": "absolute", "rel": "relative"}.get(record.type.partition("_")[0], "none")
    if record.extras is None:
        return scope
    return f"{scope}, the camera's" if record.extras.viewer == viewpoints.CAMERA else f"{scope}, an agent's"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(_text(cell) for cell in cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _text(value: Any) -> str:
    """In one line, and no end of a cell or of code."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
