"""Published weights through transformers: strict, and told by their hashes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from models.checkpoint import locate, sha256
from models.errors import CheckpointError

KINDS = (".safetensors", ".bin", ".pt")


def load_strict(kind: Any, location: str | Path, device: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A model of transformers' class `kind` from a directory or hub id, and its facts.

    CheckpointError names tensors that are missing, left over or of another shape: transformers alone would draw the
    missing ones at random and go on.
    """
    path = locate(location)
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its table of keys: the same report is judged here
    try:
        model, report = kind.from_pretrained(
            path, dtype=dtype, output_loading_info=True, local_files_only=True, ignore_mismatched_sizes=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no {kind.__name__} can be loaded: {error}") from error
    finally:
        logger.setLevel(level)
    for what, keys in (("lacks", "missing_keys"), ("has unexpected", "unexpected_keys")):
        if names := sorted(report[keys]):
            raise CheckpointError(f"{path} {what} {len(names)} tensors of {kind.__name__}: {', '.join(names[:5])}")
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise CheckpointError(f"{path} has {key} of shape {tuple(found)}, expected {tuple(wanted)}")
    return model.to(device).eval().requires_grad_(False), facts_of(location, path)


def facts_of(location: str | Path, path: Path) -> dict[str, Any]:
    """Where weights come from, and the sha256 of each of their files."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in KINDS)
    return {"weights": str(location), "sha256": {file.name: sha256(file) for file in files}}
