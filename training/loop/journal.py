"""What a run leaves to read: a line of JSON for every logged step, a bar while it runs, curves when it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """`log.jsonl` in the run's directory. What a resumed run will do again is cut off first, so no step is twice.

    Only the first worker may have one.
    """

    def __init__(self, directory: Path, steps: int, resumed_at: int) -> None:
        path, kept_path = directory / "log.jsonl", directory / "log.part"
        kept = [line for line in read(path) if line["step"] <= resumed_at]
        kept_path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(kept_path, path)
        self._file = path.open("a", encoding="utf-8")
        self._bar = _bar(steps, resumed_at)

    def show(self, line: Mapping[str, Any]) -> None:
        """Loss and what was measured, on the bar."""
        shown = {"loss": line["loss"], **line["metrics"]}
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
        self._bar.update(line["step"] - self._bar.n)

    def write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._bar.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none if there is no file. A last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def plot(directory: Path) -> Path | None:
    """Draws `plot.png` from the log: losses above, everything else that was measured below.

    None, and a word on stderr, where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot.png: matplotlib is not installed (pip install 'dsr-serve[train]')", file=sys.stderr)
        return None
    lines = read(directory / "log.jsonl")
    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    names = dict.fromkeys(name for line in lines for name in line.get("metrics", {}))
    _curve(above, lines, "loss", lambda line: line.get("loss"))
    for name in names:
        _curve(below, lines, name, lambda line, name=name: line.get("metrics", {}).get(name))
    above.set_ylabel("loss")
    below.set_ylabel("measured")
    below.set_xlabel("step")
    for part in (above, below):
        part.grid(alpha=0.3)
        part.legend(fontsize="small", ncols=3)
    path = directory / "plot.png"
    figure.savefig(path, dpi=110)
    return path


def _curve(axes: Any, lines: list[dict[str, Any]], name: str, value: Any) -> None:
    points = [(line["step"], value(line)) for line in lines if value(line) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)


def _bar(steps: int, done: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Lines(steps, done)
    return tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, mininterval=0.5)


class _Lines:
    """tqdm's part that we use, where it is not installed: a line every hundredth of the run."""

    def __init__(self, steps: int, done: int) -> None:
        self.steps, self.n, self._shown = steps, done, ""

    def set_postfix(self, shown: Mapping[str, str], refresh: bool) -> None:
        self._shown = " ".join(f"{name}={value}" for name, value in shown.items())

    def update(self, count: int) -> None:
        before, self.n = self.n, self.n + count
        if self.n * 100 // self.steps > before * 100 // self.steps:
            print(f"{self.n}/{self.steps} {self._shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        print(f"{self.n}/{self.steps} steps done", file=sys.stderr, flush=True)
