"""What a soak test has measured, for programs: people read what it prints."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.record import median
from tests.soak.load import Tally


def hand_over(unit: str, **values: float) -> None:
    """Appends each value under its name to the file that DSR_FIGURES names, as a line of JSON; else does nothing.

    To be called before the values are judged: what fails was measured, too.
    """
    if "DSR_FIGURES" in os.environ:
        with Path(os.environ["DSR_FIGURES"]).open("a", encoding="utf-8") as file:
            file.writelines(median(name, [value], unit, "absolute").line() + "\n" for name, value in values.items())


def hand_over_tally(test: str, tally: Tally) -> None:
    """Answers by how they ended, and the seconds within which 99 % of them came."""
    ended = {"answers": len(tally.seconds), "lost": len(tally.failed), "wrong": len(tally.wrong)}
    hand_over("answers", **{f"{test}_{how}": count for how, count in ended.items()})
    hand_over("s", **{f"{test}_p99": tally.late})
