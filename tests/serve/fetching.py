"""A `Fetcher` whose resolver and rule a test writes, and what became of a fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.errors import ExplainedError
from serve.media.addresses import Rule, is_public
from serve.media.fetch import Fetcher
from serve.settings import MediaUrls
from serve.store import VideoStore
from tests.serve.media_server import HOST, Answer, authority, serving

SECRET = "X-Signature=hush0hush"
HOSTS = (HOST, "other.example.org", ".cdn.example.net")


class Names:
    """A resolver: the n-th look-up gets the n-th list of addresses, and every later one the last."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def only(*addresses: str) -> Rule:
    """The rule that allows these."""
    return lambda address: str(address) in addresses


class Connections:
    """Stands in for `asyncio.open_connection`, and refuses: where would have been connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        monkeypatch.setattr(asyncio, "open_connection", self._open)

    async def _open(self, address: str, *_: Any, **__: Any) -> None:
        self.addresses.append(address)
        raise ConnectionRefusedError


def fetcher(
    root: Path, port: int = 443, names: Names | None = None, rule: Rule | None = None, **settings: Any
) -> Fetcher:
    """By default it finds every host at 127.0.0.1, and may go there."""
    allowed = {"enabled": True, "hosts": HOSTS, "ports": (port,), "seconds": 20, **settings}
    return Fetcher(
        MediaUrls(**allowed),
        VideoStore(str(root), 100_000_000, 3600),
        tls=authority().trusting(),
        lookup=names or Names(["127.0.0.1"]),
        may_connect=rule or only("127.0.0.1"),
    )


def strict(root: Path, names: Names, **settings: Any) -> Fetcher:
    """One with the rule of the service itself."""
    return fetcher(root, names=names, rule=is_public, **settings)


def files(root: Path) -> list[Path]:
    """All that a store holds, uploads under way included."""
    return [path for path in root.rglob("*") if path.is_file()]


async def failure(fetching: Fetcher, url: str, root: Path) -> ExplainedError:
    """The error of a fetch, which must leave nothing in the store at `root`."""
    with pytest.raises(ExplainedError) as caught:
        await fetching.keep(url, "video.url")
    assert files(root) == []
    assert caught.value.field == "video.url"
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


async def fetched(fetching: Fetcher, url: str, root: Path) -> bytes:
    video = await fetching.keep(url, "video.url")
    return (root / video).read_bytes()


def failing(root: Path, answer: Answer, **settings: Any) -> ExplainedError:
    """What a fetch of `answer` fails with."""

    async def go() -> ExplainedError:
        async with serving({f"/clip.mp4?{SECRET}": answer}) as server:
            return await failure(fetcher(root, server.port, **settings), server.url(f"/clip.mp4?{SECRET}"), root)

    return asyncio.run(go())
