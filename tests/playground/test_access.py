"""The page for everybody: by keyboard, at any width, in light and dark, with names for who hears it, without motion."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.playground.browser import Page
from tests.playground.canned import Canned, problem, refused


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(page: Page) -> None:
    page.open(motion="reduce").with_sample()
    page.ask()
    page.answered()
    page.run("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    page.run("document.querySelector('.skip').focus()")
    seen = []
    for _ in range(30):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        if page.run("return document.activeElement === document.body"):
            break  # once around
        seen.append(page.focused())
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"{seen[-1]} has the focus and does not show it"
    expected = ["play", "seek", "show-heat", "strip", "choose", "question", "Option A", "Remove option A", "Option B"]
    assert seen[: len(expected)] == expected
    assert seen[-4:-1] == ["add-option", "More", "submit"]
    assert seen[-1].startswith("From the viewpoint"), "the history's entry"


def test_every_control_has_a_name(page: Page) -> None:
    page.open().with_sample()
    page.ask()
    page.answered()
    page.one("#more summary").click()
    controls = [c for c in page.all("button, input, select, textarea, [role=slider]") if c.is_displayed()]
    assert len(controls) > 15
    assert [c.get_attribute("outerHTML") for c in controls if not c.accessible_name] == []


def test_nothing_sticks_out_at_any_width(page: Page) -> None:
    page.open().with_sample()
    page.ask()
    page.answered()
    page.one("#more summary").click()
    for width in (320, 360, 768, 899, 900, 1280, 1920):
        page.resize(width, 740)
        assert page.run("return document.documentElement.scrollWidth") <= width
        for selector in ("#stage", "#question", "#submit", "#reply", "#timing table"):
            box = page.one(selector).rect
            assert box["x"] >= 0, (width, selector)
            assert box["x"] + box["width"] <= width, (width, selector)
        clip, ask = page.one("#clip").rect, page.one("#ask").rect
        assert (ask["y"] >= clip["y"] + clip["height"]) == (width < 900), "one column on a phone, two on a desk"


def contrast(page: Page, selector: str) -> float:
    """WCAG 2 contrast of an element's text with the nearest background."""
    script = """
    const luminance = (text) => {
      const parts = text.match(/[\\d.]+/g).slice(0, 3).map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return parts[0] * 0.2126 + parts[1] * 0.7152 + parts[2] * 0.0722;
    };
    let behind = document.querySelector(arguments[0]);
    const front = luminance(getComputedStyle(behind).color);
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const back = luminance(getComputedStyle(behind).backgroundColor);
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    """
    return float(page.run(script, selector))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_in_dark(page: Page, canned: Canned, scheme: str) -> None:
    page.open(scheme=scheme).with_sample()
    page.ask()
    page.answered()
    texts = ["h1 span", "#facts", "#question", "#submit", "#add-option", ".choice b", ".option .label", ".cache.miss"]
    canned.refusals.append(refused(problem(429, "busy", "Too busy", "every queue is full")))
    for selector in texts:
        assert contrast(page, selector) >= 4.5, selector
    page.ask()
    page.shown("#problem")
    assert contrast(page, "#problem h3") >= 4.5
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")


def test_who_wants_less_motion_gets_a_clip_that_waits(page: Page) -> None:
    page.open(motion="reduce").with_sample()
    assert page.run("return document.querySelector('#video').paused")
    page.one("#play").click()
    page.until(lambda: page.one("#play").get_attribute("aria-label") == "Pause", "the clip playing")
