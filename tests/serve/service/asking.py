"""Asking the real service, and the same model in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from models.video import read
from models.vlm import VisionLanguageModel

QUESTION = "How does the distance between the white square and the camera change?"
OPTIONS = ["Become larger.", "Become smaller.", "Keep nearly constant.", "Become smaller. Become larger."]
TINY, PI3 = "models/tiny", "tests/golden/pi3"
ROUGH = 1000.0  # random weights have no smooth surface: with the usual limit every pixel would lie at an edge


def held(store: Path) -> set[str]:
    """Every file of the store, uploads under way included."""
    return {path.name for path in store.rglob("*") if path.is_file()}


def ask_by_form(service: httpx.Client, video: bytes, **fields: Any) -> httpx.Response:
    data = {"question": QUESTION, "options": OPTIONS, **fields}
    return service.post("/v1/answers", data=data, files={"video": ("clip.mp4", video)})


def ask_by_id(service: httpx.Client, video: str, **fields: Any) -> httpx.Response:
    return service.post(
        "/v1/answers", json={"video": {"id": video}, "question": QUESTION, "options": OPTIONS, **fields}
    )


def in_process(model: VisionLanguageModel, video: bytes, question: str = QUESTION, **how: Any) -> dict[str, float]:
    answer = model.answer(read(video, model.sampling), question, OPTIONS, **how)
    assert answer.probabilities is not None
    return answer.probabilities


def assert_same(got: dict[str, float], expected: dict[str, float]) -> None:
    # The same float32 computation, in another process and with another number of threads: rounding only.
    assert got.keys() == expected.keys()
    assert max(abs(got[letter] - expected[letter]) for letter in got) < 1e-4
