"""What the tests of checkpoints share: the released fixture's weights, and a place for others like them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.models.releases import Weights


@pytest.fixture
def weights(gsm: Path) -> Weights:
    """Those of the released fixture, to be changed."""
    return load_file(gsm / "model.safetensors")


@pytest.fixture
def other(gsm: Path, tmp_path: Path) -> Path:
    """A directory in the released layout that still needs weights."""
    return Path(shutil.copytree(gsm, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors")))
