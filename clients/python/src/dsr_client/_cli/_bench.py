"""`dsr bench`: the same question many times, a few at a time."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._async_client import AsyncClient
from .._errors import DsrError
from .._models import Answer
from .._source import VideoLike, source_of
from ._ask import parameters_of
from ._tables import columns

__all__ = ["Measured", "bench", "percentile"]

PERCENTILES = (50, 90, 95, 99)


@dataclass
class Measured:
    """What came of the questions of one run."""

    seconds: float = 0.0  # of the whole run, without the upload
    latencies: list[float] = field(default_factory=list)  # seconds, of the answers alone
    answers: list[Answer] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)  # by code

    def hits(self) -> dict[str, float]:
        """The share of cache hits by stage, among the answers in which the stage took part."""
        asked, hit = Counter[str](), Counter[str]()
        for answer in self.answers:
            asked.update(answer.cache.keys())
            hit.update(stage for stage, outcome in answer.cache.items() if outcome == "hit")
        return {stage: hit[stage] / asked[stage] for stage in asked}

    def report(self) -> dict[str, Any]:
        return {
            "questions": len(self.answers) + self.failures.total(),
            "answered": len(self.answers),
            "failures": dict(self.failures),
            "seconds": self.seconds,
            "questions_per_second": len(self.answers) / self.seconds if self.seconds else 0.0,
            "latency_seconds": {f"p{q}": percentile(self.latencies, q) for q in PERCENTILES} if self.latencies else {},
            "cache_hits": self.hits(),
        }


def bench(arguments: argparse.Namespace) -> int:
    """1 when a question got no answer."""
    measured = asyncio.run(_measure(arguments))
    print(json.dumps(measured.report()) if arguments.json else _table(measured, arguments.c))
    return 1 if measured.failures else 0


async def _measure(arguments: argparse.Namespace) -> Measured:
    """Nothing is retried, so that a refusal counts as one; the upload of a file is not measured."""
    measured = Measured()
    async with AsyncClient(arguments.url, timeout=arguments.timeout, retries=0) as client:
        source = source_of(arguments.video)
        video = await client.upload(source) if isinstance(source, Path) else arguments.video
        left = iter(range(arguments.n))
        start = time.perf_counter()
        await asyncio.gather(*(_worker(client, video, arguments, left, measured) for _ in range(arguments.c)))
        measured.seconds = time.perf_counter() - start
    return measured


async def _worker(
    client: AsyncClient, video: VideoLike, arguments: argparse.Namespace, left: Iterator[int], measured: Measured
) -> None:
    for _ in left:  # shared: each question is taken by one worker
        start = time.perf_counter()
        try:
            answer = await client.ask(video, arguments.question, arguments.options, **parameters_of(arguments))
        except DsrError as error:
            measured.failures[error.code or type(error).__name__] += 1
            continue
        measured.latencies.append(time.perf_counter() - start)
        measured.answers.append(answer)


def percentile(values: Sequence[float], q: float) -> float:
    """The value at `q` percent of the sorted `values`, linear between neighbours."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _table(measured: Measured, together: int) -> str:
    report = measured.report()
    rows = [("answered", f"{report['answered']} of {report['questions']}, {together} at a time")]
    rows += [(f"failed: {code}", str(count)) for code, count in measured.failures.most_common()]
    rows.append(("questions per second", f"{report['questions_per_second']:.2f}"))
    rows += [(f"latency {name}", f"{seconds * 1000:.0f} ms") for name, seconds in report["latency_seconds"].items()]
    if measured.latencies:
        rows.append(("latency, longest", f"{max(measured.latencies) * 1000:.0f} ms"))
    rows += [(f"cache hits, {stage}", f"{share:.0%}") for stage, share in measured.hits().items()]
    return columns(rows)
