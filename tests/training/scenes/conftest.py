from __future__ import annotations

import pytest

from training.scenes import Rendered, Scene, render_many, sample_scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return [sample_scene(seed) for seed in range(10)]


@pytest.fixture(scope="session")
def rendered(scenes: list[Scene]) -> list[Rendered]:
    return render_many(scenes)
