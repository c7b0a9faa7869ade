"""A figure that was measured again beside the stated one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.evidence.figures import NEEDS, Command, Figure

REPRODUCED, BETTER, WORSE = "reproduced", "better", "worse"
FAILED = "not measured: the command failed"
MUTE = "not measured: the command did not say it"
ELSEWHERE = "not compared: another machine"
FIRST = "measured for the first time"
NEVER = "never"
BAD = (WORSE, FAILED, MUTE)


@dataclass(frozen=True)
class Known:
    """The last measurement of a figure before this run."""

    value: float | None
    date: str
    hardware: str


@dataclass(frozen=True)
class Finding:
    """A line of the report. `now`: None where nothing was measured; `last` is then what is known."""

    figure: Figure
    now: float | None
    verdict: str
    last: Known

    @property
    def is_bad(self) -> bool:
        return self.verdict in BAD


def known(figure: Figure, command: Command, kept: Known | None) -> Known:
    """The later one of what is stated and what was kept of the last report."""
    if kept is not None and (command.measured == NEVER or kept.date >= command.measured):
        return kept
    return Known(None if command.measured == NEVER else figure.stated, command.measured, command.hardware)


def compared(figure: Figure, now: float, same_machine: bool) -> str:
    """Better and worse begin where the figure's margin ends; what must stay the same can only get worse."""
    if not math.isfinite(now):
        return WORSE
    if figure.stated is None:
        return FIRST
    if figure.absolute and not same_machine:
        return ELSEWHERE
    gain = now - figure.stated if figure.better == "higher" else figure.stated - now
    if figure.better == "same":
        gain = -abs(gain)
    margin = figure.margin * (1 + 1e-9)  # 0.3 - 0.2 is a little less than 0.1
    if gain < -margin:
        return WORSE
    return BETTER if gain > margin else REPRODUCED


def not_run(why: str, last: Known) -> str:
    """`why`: what the command needs and is not here, or what else kept it from being run; empty: nobody asked."""
    reason = f"needs {NEEDS[why]}" if why in NEEDS else f"not run{why and f': {why}'}"
    return f"{reason}; {'never measured' if last.value is None else f'last value of {last.date}'}"
