"""Which types to ask of a video, by the noise that its own paths show and what such noise does to answers.

The table is measured on rendered scenes by `python -m training.cues.noise`, which keeps `noise.json` beside this file.
Noise that drifts slowly is not seen in a path; the share of answers that differ is a lower bound then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from training.cues.aggregate import PathNoise
from training.questions.templates import TYPES

TABLE = Path(__file__).with_name("noise.json")


@dataclass(frozen=True)
class Curve:
    """For one source of noise: `shown` [L], what the paths show of it, rising; `changed`: type -> [L] shares."""

    shown: tuple[float, ...]
    changed: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, name: str, rows: Sequence[Mapping[str, Any]]) -> Self:
        shown = tuple(float(row["shown"]) for row in rows)
        if list(shown) != sorted(shown):
            raise ValueError(f"the curve of {name} does not rise: {shown}")
        known = [type_ for type_ in TYPES if all(type_ in row["changed"] for row in rows)]
        return cls(shown, {type_: tuple(float(row["changed"][type_]) for row in rows) for type_ in known})

    def at(self, shown: float, type_: str) -> float:
        """Between two levels on the line between them; beyond the last one the last share; 1 for an unknown type."""
        if type_ not in self.changed:
            return 1.0
        return float(np.interp(shown, self.shown, self.changed[type_]))


@dataclass(frozen=True)
class Table:
    """`curves`: by the field of `PathNoise` that shows it (turn, move, centre, front)."""

    curves: Mapping[str, Curve]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """ValueError when it is no table of `training.cues.noise`. It need not know every type: see `expected`."""
        try:
            return cls({name: Curve.of(name, rows) for name, rows in data["curves"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no table of training.cues.noise ({type(error).__name__}: {error})") from None

    @classmethod
    def load(cls, path: Path = TABLE) -> Self:
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def expected(self, noise: PathNoise, type_: str) -> float:
        """The share of answers that differ. The sources are independent, and an answer that one changed stays so.

        1 for a type that was not measured: it is asked of no real video until it was.
        """
        same = [1 - curve.at(getattr(noise, name), type_) for name, curve in self.curves.items()]
        return 1 - float(np.prod(same))

    def kept(self, noise: PathNoise, most_changed: float, types: Sequence[str] = TYPES) -> tuple[str, ...]:
        return tuple(type_ for type_ in types if self.expected(noise, type_) <= most_changed)
