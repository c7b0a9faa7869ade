"""The real service on loopback, once for all tests of it: Ray Serve, every stage with the embedded checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.vlm import VisionLanguageModel
from serve.settings import ReconstructorStage, Traces
from tests.collector import Collector, collecting
from tests.fresh import free_port
from tests.serve.service.asking import PI3, ROUGH, TINY
from tests.typed import typed


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="package")
def service(store: Path, collector: Collector) -> Iterator[httpx.Client]:
    """The laptop's settings, but in float32, with two selectors, a reconstructor of random weights, a store of its own,
    a small body limit, and traces."""
    pytest.importorskip("ray")
    from serve.local import read_settings, running, wait_until_ready

    stored = {"url": str(store), "max_bytes": 50_000_000}
    settings = typed(read_settings(Path("deploy/serve-local.yaml"), store=stored))
    settings = settings.model_copy(
        update={
            "selector": settings.selector.model_copy(update={"replicas": 2}),
            "reconstructor": ReconstructorStage(checkpoint=PI3, cpus=0.1, threads=1, max_step=ROUGH),
            "ingress": settings.ingress.model_copy(
                update={"max_body_bytes": 3_000_000, "traces": Traces(endpoint=collector.endpoint)}
            ),
        }
    )
    with running(settings, free_port()) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(url)
        yield client


@pytest.fixture(scope="package")
def model() -> VisionLanguageModel:
    return VisionLanguageModel.load(TINY)
