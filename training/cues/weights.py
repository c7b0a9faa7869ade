"""Published weights through transformers: strict, and told by their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.checkpoint import locate
from models.layout import sha256
from models.strict import pretrained

SUFFIXES = (".safetensors", ".bin", ".pt")


def load_strict(kind: Any, location: str | Path, device: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A model of transformers' class `kind` from a directory or hub id, and its facts.

    CheckpointError names what is missing, left over or of another shape.
    """
    path = locate(location)
    model = pretrained(kind, path, dtype, f"{path}: {kind.__name__}")
    return model.to(device).eval().requires_grad_(False), facts_of(location, path)


def facts_of(location: str | Path, path: Path) -> dict[str, Any]:
    """Where weights come from, and the sha256 of each of their files."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    return {"weights": str(location), "sha256": {file.name: sha256(file) for file in files}}
