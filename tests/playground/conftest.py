"""One browser for all tests of the page, and one canned service per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.playground.canned import Canned, serving

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from tests.playground.browser import Page


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    pytest.importorskip("selenium", reason="selenium is not installed")
    from tests.playground import browser

    reason = browser.missing()
    if reason is not None:
        pytest.skip(reason)
    with browser.chromium(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def canned() -> Canned:
    return Canned()


@pytest.fixture
def page(driver: Chrome, canned: Canned) -> Iterator[Page]:
    """The page with the canned service behind it, not opened yet."""
    from tests.playground.browser import Page

    with serving(canned.app()) as url:
        yield Page(driver, url)
        driver.get("about:blank")  # before the server goes: the page would poll it


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What its name calls a video and is none."""
    path = tmp_path_factory.mktemp("files") / "notes.mp4"
    path.write_text("this is no video at all, only text that goes on for a while")
    return path
