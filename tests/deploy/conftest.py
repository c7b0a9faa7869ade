"""The image, built once for all tests that run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.containers import Buildah, Image


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """With IMAGE_STORAGE=FOLDER what was built is kept there, and only what changed is built the next time."""
    kept = os.environ.get("IMAGE_STORAGE")
    folder = Path(kept or tmp_path_factory.mktemp("storage"))
    folder.mkdir(parents=True, exist_ok=True)
    buildah = Buildah(folder, keeps=kept is not None)
    buildah.base()
    buildah.build()
    with buildah.files() as files:
        yield Image(files, buildah.facts())
