"""The service against the model in one process: same answers, what a cold and a warm answer cost, and the overhead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from models.video import read
from models.vlm import VisionLanguageModel
from serve.local import read_settings, running, wait_until_ready
from serve.settings import DType, Settings
from tests.bench.record import Record, median
from tests.bench.reference import OPTIONS, question, references
from tests.typed import typed

COLD_RUNS = 7
WARM_RUNS = 50


def laptop(checkpoint: str, store: str, dtype: DType, **changes: Any) -> Settings:
    """The laptop's settings, with every stage that has weights in this type."""
    return typed(
        read_settings(Path("deploy/serve-local.yaml"), checkpoint=checkpoint, store={"url": store}, **changes), dtype
    )


def measure(checkpoint: str, clip: Path, port: int, store: str, dtype: DType = "float32") -> Iterator[Record]:
    """Cold and warm answers about one clip, one request at a time, from a service on loopback whose stages compute in
    `dtype`, against the model in process in float32 and, if that is another, in the same type."""
    plain = list(references(checkpoint, dtype))
    model = plain[0].model
    video = clip.read_bytes()
    settings = laptop(checkpoint, store, dtype)
    with running(settings, port) as url, httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(url)
        _timed(client, {"video": ("clip.mp4", unseen(video, 0))}, None, question(0))  # every stage's first call is slow
        cold = [
            _timed(client, {"video": ("clip.mp4", unseen(video, number))}, None, question(0))
            for number in range(1, COLD_RUNS + 1)
        ]
        warm, floors = [], []
        for number in range(1, WARM_RUNS + 1):  # in turn, so that both see the same load
            floors.append(_floors(client))
            warm.append(_timed(client, None, cold[0][1]["video"]["id"], question(number)))
    yield median("largest_difference_of_a_probability", [_difference(model, video, cold[0][1])], "1", "models.vlm")
    overheads = [wall - sum(answer["timings"].values()) for wall, answer in warm]
    name = model.config.name
    yield median("service_overhead", [1000 * value for value in overheads], "ms", f"sum of stage times, {name}, warm")
    for floor, values in zip(("livez", "refused_question"), zip(*floors, strict=True), strict=True):
        yield median(f"service_floor_{floor}", [1000 * value for value in values], "ms", "absolute")
    yield median("warm_answer", [1000 * wall for wall, _ in warm], "ms", "absolute")
    for reference in plain:
        seconds, suffix = reference.seconds(video), reference.suffix
        yield median(f"warm_speedup{suffix}", [seconds / wall for wall, _ in warm], "x", reference.baseline)
        yield median(f"cold_over_reference{suffix}", [wall / seconds for wall, _ in cold], "x", reference.baseline)
    for stage in cold[0][1]["timings"]:
        yield median(f"cold_{stage}", [1000 * answer["timings"][stage] for _, answer in cold], "ms", "absolute")


def unseen(video: bytes, number: int) -> bytes:
    """The same video under another key: an MP4 file may end with a box that readers skip."""
    return video + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")


def _timed(
    client: httpx.Client, files: dict[str, Any] | None, video: str | None, asked: str
) -> tuple[float, dict[str, Any]]:
    body = {"question": asked, "options": OPTIONS}
    start = time.perf_counter()
    if files:
        response = client.post("/v1/answers", data=body, files=files)
    else:
        response = client.post("/v1/answers", json={**body, "video": {"id": video}})
    wall = time.perf_counter() - start
    response.raise_for_status()
    return wall, response.json()


def _floors(client: httpx.Client) -> tuple[float, float]:
    """Seconds that a request takes which reaches no stage: without a body, and with one that is refused."""
    start = time.perf_counter()
    client.get("/livez").raise_for_status()
    middle = time.perf_counter()
    assert client.post("/v1/answers", json={}).status_code == 400
    return middle - start, time.perf_counter() - middle


def _difference(model: VisionLanguageModel, video: bytes, answer: dict[str, Any]) -> float:
    expected = model.answer(read(video, model.sampling), question(0), OPTIONS).probabilities or {}
    return max(abs(expected[letter] - answer["probabilities"][letter]) for letter in expected)
