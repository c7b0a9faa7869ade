"""Weights into modules, all of them and no others: whatever is missing, left over or of another shape is named.

transformers alone would draw missing tensors at random and go on, and a wrong answer would be the first that tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.errors import CheckpointError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
NAMED = 5  # keys of an error's text


def filled(
    make: Callable[[], ModuleT], tensors: Mapping[str, Tensor], where: str, device: str, dtype: torch.dtype
) -> ModuleT:
    """A module of the right shape with exactly these tensors; nothing is allocated for weights that are replaced.

    CheckpointError, which begins with `where`.
    """
    with torch.device("meta"):
        module = make()
    assign(module, tensors, where)
    return module.to(device=device, dtype=dtype).eval().requires_grad_(False)


def assign(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """The module takes these tensors as they are. CheckpointError, which begins with `where`."""
    wanted = module.state_dict()
    _refuse(where, missing=wanted.keys() - tensors.keys(), unexpected=tensors.keys() - wanted.keys())
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise _misshapen(where, key, tensor.shape, wanted[key].shape)
    module.load_state_dict(tensors, assign=True)


def pretrained(
    kind: Any, path: Path, dtype: torch.dtype, where: str, others: Callable[[str], bool] = lambda _: False
) -> Any:
    """A model of transformers' class `kind` from a directory. `others` says which keys belong to another stage.

    CheckpointError, which begins with `where`.
    """
    try:
        with _quiet_transformers():
            model, report = kind.from_pretrained(
                path,
                dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are in the report
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{where} cannot be loaded: {error}") from error
    unexpected = [key for key in report["unexpected_keys"] if not others(key)]
    _refuse(where, missing=report["missing_keys"], unexpected=unexpected)
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise _misshapen(where, key, found, wanted)
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No table of unexpected keys in the log: `pretrained` judges the same report and raises."""
    reporter = logging.getLogger("transformers")
    level = reporter.level
    reporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reporter.setLevel(level)


def _misshapen(where: str, key: str, found: Iterable[int], wanted: Iterable[int]) -> CheckpointError:
    return CheckpointError(f"{where} has {key} of shape {tuple(found)}, expected {tuple(wanted)}")


def _refuse(where: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for what, keys in (("lacks", sorted(missing)), ("has unexpected", sorted(unexpected))):
        if keys:
            more = "…" if len(keys) > NAMED else ""
            raise CheckpointError(f"{where} {what} {len(keys)} tensors: {', '.join(keys[:NAMED])}{more}")
