"""The page in a real browser: what it shows, keys, decisions that stay, and text that stays text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.keys import Keys

from tests.playground.browser import Page
from tests.training.review.conftest import HOSTILE, OPTIONS, RECORDS
from training.review.__main__ import main
from training.review.decisions import FILE as DECISIONS
from training.review.decisions import read
from training.review.items import id_of
from training.review.server import ReviewServer

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DRAWN = """
const canvas = document.querySelector("#boxes");
if (!canvas.width) return 0;
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
return data.filter((value, n) => n % 4 === 3 && value > 0).length;
"""


@pytest.fixture
def folder(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "review"
    assert main(["page", str(asked), "--videos", str(asked.parent), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("6 questions")
    assert said.err.splitlines() == ["gone: there is no such video", "two: there are no cues"]
    return out


@contextmanager
def opened(driver: Chrome, folder: Path) -> Iterator[Page]:
    """The page from its server; what it complained of is looked at when it is closed."""
    with ReviewServer(folder) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield begun(Page(driver, server.url))
        finally:
            driver.get("about:blank")
            server.shutdown()
            thread.join()


def begun(page: Page) -> Page:
    page.open()
    page.until(lambda: page.one("#question").text, "a question")
    return page


def press(page: Page, key: str) -> None:
    page.one("body").send_keys(key)


def test_a_question_stands_beside_its_clip_with_boxes_and_paths(driver: Chrome, folder: Path) -> None:
    with opened(driver, folder) as page:
        assert page.one("#question").text == RECORDS[0].question
        assert page.one("#options li.right").text.startswith(f"B {OPTIONS[1]}")
        assert [row.text.split("  ")[0][:1] for row in page.all("#options li")] == list("ABCD")
        assert "0.3 s to 1.1 s · seen from the camera" in page.one("#facts").text
        page.until(lambda: page.run("return document.querySelector('#video').readyState >= 2"), "the clip")
        page.halt(0.6)
        assert page.until(lambda: page.run(DRAWN), "boxes") > 100
        # the camera, three tracks, and the thick part of the one that is named and of the camera
        assert len(page.all("#map polyline")) == 6
        named = [row.text for row in page.all("#legend .named")]
        assert named == ["the camera", "red car"], "of two red cars the one whose box the question has"
        places = [page.all("#map circle")[2].get_attribute("cx")]
        page.halt(1.5)
        page.until(lambda: page.all("#map circle")[2].get_attribute("cx") not in places, "the car moved on the map")
        assert page.complaints() == []


def test_decisions_by_keyboard_are_saved_and_go_on_where_they_were(driver: Chrome, folder: Path) -> None:
    with opened(driver, folder) as page:
        press(page, "k")
        page.reads("#progress", "1 kept, 0 dropped, 5 undecided")
        assert page.one("#question").text == RECORDS[1].question
        press(page, "n")
        page.one("#note").send_keys("kd: too dark", Keys.ENTER)
        press(page, "d")
        page.reads("#progress", "3 of 6; of all 6: 1 kept, 1 dropped, 4 undecided")
        page.reads("#saved", "saved")
        press(page, Keys.ARROW_LEFT)
        page.reads("#decision", "drop")
        page.until(lambda: len(read(folder / DECISIONS)) == 2, "two decisions on disk")
        assert page.complaints() == []
    first, second = (id_of(record) for record in RECORDS[:2])
    saved = read(folder / DECISIONS)
    assert (saved[first].decision, saved[second].decision, saved[second].note) == ("keep", "drop", "kd: too dark")

    with opened(driver, folder) as page:
        page.reads("#progress", "3 of 6; of all 6: 1 kept, 1 dropped, 4 undecided")
        press(page, Keys.ARROW_LEFT)
        assert page.one("#note").get_property("value") == "kd: too dark"
        press(page, "u")
        page.reads("#progress", "1 kept, 0 dropped, 5 undecided")
        page.until(lambda: read(folder / DECISIONS).keys() == {first}, "one decision left")


def test_a_decision_that_is_not_saved_is_told(driver: Chrome, folder: Path) -> None:
    with opened(driver, folder) as page:
        page.run("window.fetch = async () => { throw new Error('no connection') }")
        press(page, "k")
        page.reads("#saved", "not saved (no connection): download the decisions")
        assert not (folder / DECISIONS).exists()


def test_as_a_file_the_page_remembers_and_offers_a_file(driver: Chrome, folder: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    where = {"behavior": "allow", "downloadPath": str(downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    page = begun(Page(driver, (folder / "index.html").as_uri()))
    assert page.until(lambda: page.run("return document.querySelector('#video').readyState >= 2"), "the clip")
    press(page, "d")
    page.reads("#progress", "0 kept, 1 dropped, 5 undecided")
    driver.refresh()
    page.reads("#progress", "2 of 6; of all 6: 0 kept, 1 dropped, 5 undecided")
    page.one("#download").click()
    file = downloads / "decisions.jsonl"
    page.until(file.exists, "the downloaded file")
    assert {id_: decision.decision for id_, decision in read(file).items()} == {id_of(RECORDS[0]): "drop"}

    page.run("localStorage.clear()")
    driver.refresh()
    page.reads("#progress", "0 dropped, 6 undecided")
    page.one("#file").send_keys(str(file))
    page.reads("#progress", "2 of 6; of all 6: 0 kept, 1 dropped, 5 undecided")
    assert page.complaints() == []
    page.run("localStorage.clear()")


def test_text_of_the_data_stays_text(driver: Chrome, folder: Path) -> None:
    with opened(driver, folder) as page:
        for _ in range(4):
            press(page, Keys.ARROW_RIGHT)
        page.until(lambda: page.one("#question").text == HOSTILE, "the hostile question as it is written")
        assert "<i>cone</i>" in page.texts("#legend li")
        assert page.all("img") == []
        assert page.run("return window.hit") is None
        assert page.complaints() == []


def test_a_clip_without_cues_says_so_and_shows_the_boxes_of_the_question(driver: Chrome, folder: Path) -> None:
    with opened(driver, folder) as page:
        for _ in range(5):
            press(page, Keys.ARROW_RIGHT)
        page.reads("#notice", "no cues of this clip")
        assert page.until(lambda: page.run(DRAWN), "the box that the question has") > 50
        assert page.all("#map *") == []


def test_nothing_comes_from_elsewhere(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    policy = text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data
    assert json.loads(data)["items"][4]["question"] == HOSTILE
