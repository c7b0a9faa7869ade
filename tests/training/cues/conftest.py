"""Rendered scenes, their own questions, and what the pipeline makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from training.cues.aggregate import Aggregated, aggregate
from training.cues.estimators import Estimators
from training.cues.measure import measure
from training.cues.oracle import Noise, Truth, oracle
from training.cues.settings import Settings
from training.scenes import SceneConfig, Seeds, sample_scene

SETTINGS = Settings()
SMALL = SceneConfig(size=(84, 56))  # a third of the pixels of the usual scenes: rendering is what takes time here

Estimate = Callable[[Truth, Estimators], Aggregated]


@pytest.fixture(scope="package")
def truths() -> list[Truth]:
    return [Truth.of(sample_scene(Seeds.train(seed), SMALL)) for seed in range(4)]


@pytest.fixture(scope="package")
def estimate() -> Estimate:
    def run(truth: Truth, estimators: Estimators) -> Aggregated:
        return aggregate(truth.scene.video, measure(truth.footage(), estimators, SETTINGS), SETTINGS)

    return run


def exact(truth: Truth, noise: Noise = Noise(), seed: int = 0) -> Estimators:
    return oracle(lambda _: truth, noise, seed)


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, which on a busy machine costs a time slice at every join."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
