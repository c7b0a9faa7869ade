"""Services of the kind that the tests here need: several replicas of everything, or nothing cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fresh import free_port
from tests.typed import typed

STAGES = ("frames", "encoder", "selector", "decoder", "ingress")
Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the service on loopback with changed settings, as `start(decoder={"replicas": 2})`; gives its URL."""
    pytest.importorskip("ray")
    from serve.local import read_settings, running, wait_until_ready

    with ExitStack() as stack:

        def begin(checkpoint: str | None = None, **changes: dict[str, Any]) -> str:
            store = {"url": str(tmp_path / "store"), "max_bytes": 500_000_000}
            settings = typed(read_settings(Path("deploy/serve-local.yaml"), store=store, checkpoint=checkpoint))
            update = {
                name: getattr(settings, name).model_validate({**getattr(settings, name).model_dump(), **change})
                for name, change in changes.items()
            }
            url = stack.enter_context(running(settings.model_copy(update=update), free_port()))
            wait_until_ready(url, 300)
            return url

        yield begin
