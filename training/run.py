"""`python -m training.run NAME [field=value …]`: trains what `training.runs` names.

A nested field is written with a dot: `loop.steps=500`. `NAME --help` lists the fields, `--list` the runs. Ctrl-C,
SIGTERM or a file `stop` in the run's directory end it after a saved step, and the same command goes on from there.
`--workers N` trains on N GPUs (or CPU processes), `--launcher ray` on a cluster.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import shlex
import sys
import types
import typing
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from training.loop.loop import Interrupted, NotFinite, as_facts, train
from training.loop.workers import LAUNCHERS, World, launch
from training.runs import RUNS, Run

Config = TypeVar("Config")


def overridden(config: Config, changes: Sequence[str]) -> Config:
    """`config` with every `field=value` of `changes` put in.

    Raises:
        ValueError: no such field (the nearest is named), one given twice, or a value that is not of its type.
    """
    seen: set[str] = set()
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r} is no field=value")
        names = list(fields(config))
        if name not in names:
            near = "".join(f", did you mean {one}" for one in difflib.get_close_matches(name, names, 1, 0.3))
            raise ValueError(f"{name}: there is no such field{near}; fields: {', '.join(names)}")
        if name in seen:
            raise ValueError(f"{name} is given twice")
        seen.add(name)
        config = _replaced(config, name.split("."), value, name)
    return config


def fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field that can be overridden, with its value: `loop.steps` and the like."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        found |= fields(value, f"{prefix}{field.name}.") if nested else {prefix + field.name: value}
    return found


def _replaced(config: Any, path: list[str], value: str, whole: str) -> Any:
    name, *rest = path
    if rest:
        new = _replaced(getattr(config, name), rest, value, whole)
    else:
        new = parsed(value, typing.get_type_hints(type(config))[name], whole)
    return dataclasses.replace(config, **{name: new})


def parsed(text: str, kind: Any, name: str) -> Any:
    """`text` as a value of the annotated type `kind`; a tuple is written with commas. ValueError names the field."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in inner:
            return None
        return parsed(text, next(part for part in inner if part is not type(None)), name)
    if origin is tuple:
        parts = [part for part in text.split(",") if part]
        kinds = [inner[0]] * len(parts) if inner[1:] == (...,) else list(inner)
        if len(parts) != len(kinds):
            raise ValueError(f"{name}: {text!r} has {len(parts)} values, expected {len(kinds)} with commas between")
        return tuple(parsed(part, one, name) for part, one in zip(parts, kinds, strict=True))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}: {text!r} is neither true nor false")
        return text.lower() == "true"
    try:
        value = kind(text)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {text!r} is no {getattr(kind, '__name__', kind)}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name}: {text!r} is not finite")
    return value


def work(world: World, name: str, config: Any, command: str) -> None:
    """What every worker of a run does."""
    torch.manual_seed(config.loop.seed)
    if world.device.type == "cuda":
        # What is left for the CPU is small, and its threads wait for each other where other processes make scenes: a
        # step of `tiny-look` took 0.3 s beside them and 0.1 on idle cores.
        torch.set_num_threads(1)
    task = RUNS[name].task(config, world.device)
    train(task, config.loop, world, as_facts(name, command, config))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )  # fmt: skip
    parser.add_argument("name", nargs="?", choices=sorted(RUNS), metavar="NAME")
    parser.add_argument("changes", nargs="*", metavar="field=value")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser.parse_args(given)
    if chosen.name is None or chosen.list:
        print(parser.format_help() + "\nruns:\n" + "\n".join(f"  {name:<12}{run.what}" for name, run in RUNS.items()))
        return 0 if chosen.list or chosen.help else 2
    run: Run = RUNS[chosen.name]
    if chosen.help:
        print(f"{chosen.name}: {run.what}\n")
        print("\n".join(f"  {name} = {value}" for name, value in fields(run.config).items()))
        return 0
    try:
        config = overridden(run.config, chosen.changes)
        command = shlex.join(["python", "-m", "training.run", *given])
        each = partial(work, name=chosen.name, config=config, command=command)
        launch(each, chosen.workers, chosen.launcher, Path(config.loop.out))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on from the last state that was saved", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, NotFinite) as error:
        print(f"{chosen.name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
