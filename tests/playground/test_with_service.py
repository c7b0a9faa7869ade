"""The page over the real service: every stage with the embedded checkpoint, asked from a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("ray")

from serve.local import read_settings, running, wait_until_ready
from tests.clips import make_clip
from tests.fresh import free_port
from tests.playground.browser import Page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

OTHER = "How does the distance between the blue ball and the camera change?"


@pytest.fixture(scope="module")
def url(driver: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The laptop's settings with a store of its own. After the browser: without one, no service is started."""
    store = {"url": str(tmp_path_factory.mktemp("store")), "max_bytes": 50_000_000}
    with running(read_settings(Path("deploy/serve-local.yaml"), store=store), free_port()) as address:
        wait_until_ready(address)
        yield address
        driver.get("about:blank")


@pytest.fixture
def page(driver: Chrome, url: str) -> Page:
    return Page(driver, url, seconds=60).open(motion="reduce")


def test_the_sample_is_answered_and_the_heat_changes_with_the_question(page: Page) -> None:
    page.with_sample()
    page.reads("#status", "dsr-tiny")
    page.ask()
    page.answered()
    shares = [float(text.replace("\u00a0", " ").removesuffix(" %")) for text in page.texts("#bars .share")]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert page.one("#reply .choice b").text == "ABCD"[shares.index(max(shares))]
    page.halt(2.0)
    first = page.looked()
    assert len(page.all("#strip figure")) == 16, "32 frames, two a moment"
    page.until(lambda: len(page.all("#strip .pictured")) == 16, "a picture of every moment")
    assert page.texts("#timing .cache") == ["miss"] * 4

    page.ask(OTHER)
    page.answered(2)
    page.halt(2.0)
    second = page.looked()
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) > 5, "another question, another map"
    assert page.texts("#timing .cache")[:2] == ["not asked", "not asked"]
    page.all("#history button")[1].click()
    page.until(lambda: page.looked() == first, "the first map again")
    assert page.complaints() == []


def test_a_free_answer_about_the_visitors_own_clip_is_written(page: Page, tmp_path: Path) -> None:
    make_clip(tmp_path / "mine.mp4", seconds=2, fps=10, size=(320, 180))
    page.with_sample()
    page.upload(tmp_path / "mine.mp4")
    page.reads("#facts", "180")
    page.reads("#note", "Ready: ask.")
    for button in page.all("#options li button"):
        button.click()
    page.ask("How does the distance between the white square and the camera change?")
    page.answered()
    assert page.one("#reply").text
    assert page.heat() is not None


def test_a_file_that_is_no_video_and_one_that_is_cut_off_show_their_errors(
    page: Page, text_file: Path, tmp_path: Path
) -> None:
    page.with_sample()
    page.upload(text_file)
    page.reads("#problem", "Not a video")
    assert "request id" in page.texts("#problem dt")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(make_clip(None, seconds=1, fps=10, size=(96, 96))[:700])
    page.upload(cut)
    page.reads("#problem", "Undecodable video")


def test_a_value_out_of_limits_is_refused_in_the_services_words_and_marked(page: Page) -> None:
    page.with_sample()
    page.one("#more summary").click()
    page.one("[name=frames]").send_keys("1000")
    page.ask()
    page.reads("#problem", "Out of limits")
    assert page.texts("#problem dd")[:3] == ["frames", "1000", "256"]
    assert page.attribute("[aria-invalid=true]", "name") == "frames"
