"""What a command has printed and written, to numbers by name.

Three forms are read: lines of `tests.bench.record` (by their `name`), JSON documents of several lines or one a line,
and plain text. What is inside of a document has a path for its name, as `rows/geometry off/accuracy`; `X/count` is the
length of the list or the object at X.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean
from typing import Any

from tests.evidence.figures import Figure

OUTPUT = "output"  # the standard output
FIGURES = "figures.jsonl"  # where tests that print prose hand over their figures
COUNT = "count"
TAKE: Mapping[str, Callable[[list[float]], float]] = {"max": max, "min": min, "sum": sum, "mean": mean}

Numbers = Mapping[str, float]


def numbers(folder: Path) -> dict[str, float]:
    """All that a command has left in its folder. Of two of one name the last counts."""
    found: dict[str, float] = {}
    for path in (folder / OUTPUT, folder / FIGURES, *sorted(folder.glob("*.json"))):
        if path.exists():
            for document in _documents(path.read_text(encoding="utf-8", errors="replace")):
                found.update(flat(document))
    return found


def flat(document: Any) -> dict[str, float]:
    """A record by its name; of anything else every number by its path."""
    if isinstance(document, dict) and {"name", "value", "unit"} <= document.keys():
        name = str(document["name"])
        return {name: float(document["value"]), **dict(_flat(document.get("spread", []), f"{name}/spread"))}
    return dict(_flat(document, ""))


def value(figure: Figure, found: Numbers, output: str) -> float | None:
    """What was measured, in the figure's unit; None when the command does not say it."""
    if figure.line:
        match = re.search(figure.line, output, re.M)
        return figure.scale * float(match[1].replace(",", "")) if match else None
    matching = [each for name, each in found.items() if _matches(name, figure.key)]
    return figure.scale * TAKE[figure.take](matching) if matching else None


def _matches(name: str, key: str) -> bool:
    """`*` stands for one part of a path that is no `count`."""
    parts, wanted = name.split("/"), key.split("/")
    if (parts[-1] == COUNT) != (wanted[-1] == COUNT):
        return False
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _documents(text: str) -> Iterator[Any]:
    """One document, or those of the lines that are one; other lines are prose."""
    try:
        yield json.loads(text)
        return
    except json.JSONDecodeError:
        pass
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _flat(node: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(node, dict | list):
        inside = node.items() if isinstance(node, dict) else enumerate(node)
        yield f"{path}/{COUNT}".lstrip("/"), float(len(node))
        for key, each in inside:
            yield from _flat(each, f"{path}/{key}".lstrip("/"))
    elif isinstance(node, int | float):
        yield path, float(node)
