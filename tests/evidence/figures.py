"""`figures.toml`: which figures the READMEs state, and the commands that measure them.

A statement is a text of a README with holes, as "largest deviation {parity} of a tensor": the value that stands in a
hole is the stated one, so that it is written down once, where people read it. `{}` is a number that nothing measures.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("figures.toml")
GROUPS = ("parity", "evaluation", "bench", "capacity", "hostile", "soak", "gpu")
TAKES = ("max", "min", "sum", "mean")
NEEDS = {"gpu": "a GPU", "root": "root and `ip`"}
BETTER = ("higher", "lower", "same")
NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|none|not measured)"
HOLE = re.compile(r"\{(\w*)\}")


class BadTable(ValueError):
    """A figure, a command or a text that is not as it should be; the message names it."""


@dataclass(frozen=True)
class Command:
    """`run`: as in a shell; `{out}` is a folder of its own, `{port}` a free port. `minutes`: about, on two cores.

    `measured` and `hardware`: when (a date, or "never") and where the stated values come from.
    """

    name: str
    group: str
    run: str
    minutes: float
    measured: str
    hardware: str
    needs: str = ""


@dataclass(frozen=True)
class Figure:
    """`stated`: None where the README says "not measured".

    Read off a command's output by `key` (`reading.py`; where it has a `*`, `take` of what matches) or by `line`, a
    pattern with one group; times `scale`. `within`: a number, or a share of the stated value as "10 %". `absolute`:
    says something about one machine only.
    """

    name: str
    command: str
    file: str
    text: str
    stated: float | None
    unit: str = ""
    key: str = ""
    line: str = ""
    take: str = "max"
    scale: float = 1.0
    better: str = "same"
    within: float | str = 0.0
    absolute: bool = False

    @property
    def margin(self) -> float:
        """How far off a value may be, in the figure's unit."""
        if isinstance(self.within, str):
            return abs(self.stated or 0.0) * float(self.within.removesuffix("%")) / 100
        return self.within


@dataclass(frozen=True)
class Statement:
    """A text of a README. `kept`: why no command measures its numbers again."""

    file: str
    text: str
    command: str = ""
    kept: str = ""
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measured: str = ""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = HOLE.split(plain(self.text))
        return re.compile("".join(NUMBER if place % 2 else re.escape(part) for place, part in enumerate(parts)))

    def values(self, readme: str) -> dict[str, float | None]:
        """What stands in the holes that have a name.

        Raises:
            BadTable: the text is not in the README exactly once.
        """
        found = list(self.pattern.finditer(plain(readme)))
        if len(found) != 1:
            raise BadTable(f"{self.file} has {len(found)} times, and must have once, the text: {self.text}")
        holes = zip(HOLE.findall(self.text), found[0].groups(), strict=True)
        return {name: number(value) for name, value in holes if name}


@dataclass(frozen=True)
class Table:
    processor: str
    cores: int
    commands: Mapping[str, Command]
    statements: tuple[Statement, ...]

    def figures(self, root: Path = ROOT) -> Iterator[Figure]:
        """All that a command measures, with their stated values from the READMEs below `root`."""
        for statement in self.statements:
            values = statement.values((root / statement.file).read_text(encoding="utf-8"))
            if unknown := sorted(values.keys() - statement.figures.keys()):
                raise BadTable(f"{statement.file}: the hole {{{unknown[0]}}} has no line of its own")
            for name, fields in statement.figures.items():
                if name not in values and "stated" not in fields:
                    raise BadTable(f"{statement.file}: {name} has neither a hole in its text nor a value `stated`")
                given = {**fields, "stated": float(fields["stated"]) if "stated" in fields else values[name]}
                yield Figure(name=name, command=statement.command, file=statement.file, text=statement.text, **given)

    def is_the_machine(self, hardware: str) -> bool:
        """Whether absolute figures of a machine can be compared with the stated ones."""
        return self.processor in hardware and f", {self.cores} cores" in hardware


def plain(text: str) -> str:
    """Lines may be wrapped anywhere."""
    return " ".join(text.split())


def number(text: str) -> float | None:
    if text == "not measured":
        return None
    return 0.0 if text == "none" else float(text.replace(",", ""))


def read(path: Path = TABLE) -> Table:
    """BadTable: a field that is not known, or a value that is not one of those that there are."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    machine = document["machine"]
    commands = {
        name: Command(name, **{"hardware": machine["hardware"], **fields})
        for name, fields in document["command"].items()
    }
    statements = tuple(
        Statement(**{("command" if key == "of" else key): value for key, value in fields.items()})
        for fields in document["statement"]
    )
    table = Table(machine["processor"], machine["cores"], commands, statements)
    _check(table)
    return table


def _check(table: Table) -> None:
    for command in table.commands.values():
        _one_of(f"group of {command.name}", command.group, GROUPS)
        _one_of(f"needs of {command.name}", command.needs, ("", *NEEDS))
    seen = set[str]()
    for statement in table.statements:
        if bool(statement.command) == bool(statement.kept):
            raise BadTable(f"a statement has either a command (`of`) or a reason (`kept`): {statement.text}")
        if statement.command:
            _one_of(f"`of` in {statement.text}", statement.command, table.commands)
        for name, fields in statement.figures.items():
            if name in seen:
                raise BadTable(f"there are two figures {name}")
            seen.add(name)
            if ("key" in fields) == ("line" in fields):
                raise BadTable(f"{name} has either a key or a line")
            _one_of(f"better of {name}", fields.get("better", "same"), BETTER)
            _one_of(f"take of {name}", fields.get("take", "max"), TAKES)


def _one_of(what: str, value: str, known: Any) -> None:
    if value not in known:
        raise BadTable(f"{what} is {value!r}; there are {', '.join(map(repr, known))}")
