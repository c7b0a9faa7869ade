"""A scripted server, and a factory of clients of both kinds that are closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dsr_client import Client, Retries

from tests.clients.either import blocking
from tests.clients.wire import Wire, listening

Connect = Callable[..., Client]
QUICK = Retries(count=2, first_pause=0.01, longest_pause=0.02, longest_retry_after=0.1)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSR_URL", "DSR_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with listening() as wire:
        yield wire


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(kind: str) -> Iterator[Connect]:
    made: list[Client] = []

    def connect(url: str | None = None, **settings: Any) -> Client:
        new = Client if kind == "sync" else blocking
        made.append(new(url, **{"retries": QUICK, "timeout": 10, **settings}))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect, wire: Wire) -> Client:
    return connect(wire.url)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file. What is in it does not matter to a client."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    return path
