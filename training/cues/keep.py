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

from training.cues.aggregate import Noise
from training.questions.templates import TYPES

TABLE = Path(__file__).with_name("noise.json")


@dataclass(frozen=True)
class Curve:
    """For one source of noise: `shown` [L], what the paths show of it, rising; `changed`: type -> [L] shares."""

    shown: tuple[float, ...]
    changed: Mapping[str, tuple[float, ...]]

    def at(self, shown: float, type_: str) -> float:
        """Between two levels on the line between them; beyond the last one the last share."""
        return float(np.interp(shown, self.shown, self.changed[type_]))


@dataclass(frozen=True)
class Table:
    """`curves`: by the field of `Noise` that shows it (turn, move, centre, front)."""

    curves: Mapping[str, Curve]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """KeyError or ValueError when it is no table of `training.cues.noise`."""
        curves = {}
        for name, rows in data["curves"].items():
            shown = tuple(float(row["shown"]) for row in rows)
            if list(shown) != sorted(shown):
                raise ValueError(f"the curve of {name} does not rise: {shown}")
            curves[name] = Curve(shown, {type_: tuple(row["changed"][type_] for row in rows) for type_ in TYPES})
        return cls(curves)

    @classmethod
    def load(cls, path: Path = TABLE) -> Self:
        return cls.of(json.loads(path.read_text(encoding="utf-8")))

    def expected(self, noise: Noise, type_: str) -> float:
        """The share of answers that differ. The sources are independent, and an answer that one changed stays so."""
        same = [1 - curve.at(getattr(noise, name), type_) for name, curve in self.curves.items()]
        return 1 - float(np.prod(same))

    def kept(self, noise: Noise, most_changed: float, types: Sequence[str] = TYPES) -> tuple[str, ...]:
        return tuple(type_ for type_ in types if self.expected(noise, type_) <= most_changed)
