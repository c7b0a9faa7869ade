"""A small set to review: a clip with cues, one without, one that is not there, and text that would like to be code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clips import make_clip
from training.questions.records import Extras, Record, write

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

OPTIONS = ("(1) Left.", "(1) Right.", "(1) Front.", "(1) Behind.")
HOSTILE = "</script><img src=x onerror='window.hit = 1'><b>{{data}}</b>"
FRAMES = 8


def track(name: str, left: int, forward: bool) -> dict[str, Any]:
    """It goes to the right in the picture and along x in the world; its last frame is unknown."""
    boxes: list[list[int] | None] = [[left + frame, 10, left + frame + 20, 40] for frame in range(FRAMES)]
    return {
        "name": name,
        "centres": [[frame / 4, left / 10, 0.5] for frame in range(FRAMES)],
        "boxes": [*boxes[:-1], None],
        "visible": [True] * (FRAMES - 1) + [False],
        "confidence": [1.0] * FRAMES,
        "forward": [[1.0, 0.0, 0.0]] * FRAMES if forward else None,
    }


def cues(video: str) -> dict[str, Any]:
    pose = [[0, 0, 1, -2], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]
    return {
        "video": video,
        "size": [112, 84],
        "times": [round(frame * 2 / (FRAMES - 1), 1) for frame in range(FRAMES)],
        "camera_to_world": [pose] * FRAMES,
        "tracks": [track("red car", 10, True), track("red car", 60, True), track("<i>cone</i>", 40, False)],
    }


def record(number: int, video: str = "one", question: str = "", group: str = "") -> Record:
    extras = Extras(("Right",), (0.3, 1.1), (1, 4), "the camera", FRAMES, group, ("truth", "a", "b", "c"))
    asked = question or f"{number}: where does the red car [61, 10, 81, 40] go between 0.3 s and 1.1 s?"
    return Record(video, asked, OPTIONS, "B", ("rel_dir", "abs_dis")[number % 2], extras if group else None)


RECORDS = (
    *(record(number, group="one/abs/0") for number in range(4)),
    record(4, question=HOSTILE),
    record(5, video="two"),
    record(6, video="gone"),
)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """The questions, with the clips beside them."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("one", "two"):
        make_clip(folder / f"{name}.mp4", seconds=2, fps=10)
    (folder / "one.json").write_text(json.dumps(cues("one")))
    write(folder / "questions.json", RECORDS)
    return folder / "questions.json"


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    pytest.importorskip("selenium", reason="selenium is not installed")
    from tests.playground import browser

    reason = browser.missing()
    if reason is not None:
        pytest.skip(reason)
    with browser.chromium(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome
