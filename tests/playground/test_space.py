"""The clip in 3D: a scene is drawn in a real browser's WebGL, turned, and followed over time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from serve.scene_files import ply
from tests.playground.browser import Page
from tests.playground.canned import Canned, problem, refused
from tests.serve.scenes import sphere

STAGES = ("frames", "encoder", "selector", "decoder", "reconstructor")
BACKGROUND = (10, 14, 18)


def drawn(page: Page) -> np.ndarray:
    """The view as the screen shows it: int [H, W, 3]."""
    canvas = page.one("#scene")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")).astype(int)


def share(picture: np.ndarray) -> float:
    """Of the view that is not background."""
    return float((np.abs(picture - BACKGROUND).max(axis=-1) > 12).mean())


@pytest.fixture
def scene(page: Page, canned: Canned) -> Page:
    """The sample, reconstructed; its clip stands still at the start."""
    canned.stages = STAGES
    page.open(motion="reduce").with_sample()
    page.shown("#space")
    page.one("#reconstruct").click()
    page.reads("#space-note", "20,000 of 200,000 points")
    page.shown("#scene")
    return page


def choose(page: Page, frame: int) -> None:
    slider = page.one("#moment")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * frame)
    page.until(lambda: slider.get_property("value") == str(frame), f"frame {frame}")


def test_a_service_without_a_reconstructor_shows_no_such_panel(page: Page, canned: Canned) -> None:
    page.open().with_sample()
    page.reads("#status", "4 stages ready")
    assert not page.one("#space").is_displayed()
    assert canned.scenes == []


def test_points_and_cameras_are_drawn_and_more_of_them_over_time(scene: Page, canned: Canned) -> None:
    assert canned.scenes == [{"video": {"id": "vid_" + "0" * 64}}]
    scene.until(lambda: share(drawn(scene)) > 0.01, "something in the view")
    first = drawn(scene)
    choose(scene, 7)
    scene.until(lambda: share(drawn(scene)) > 1.5 * share(first), "the points of all frames")
    whole = drawn(scene)
    assert 0.03 < share(whole) < 0.9
    hues = whole.reshape(-1, 3).max(0) - whole.reshape(-1, 3).min(0)
    assert (hues > 150).all(), "a sphere of all colours"
    orange = (np.abs(whole - (255, 157, 77)).max(axis=-1) < 25).sum()
    assert orange > 30, "the camera of the moment"
    assert scene.one("#moment-time").text.startswith("1.9"), "the time of the last frame"
    scene.one("#only-moment").click()
    scene.until(lambda: share(drawn(scene)) < 0.7 * share(whole), "the points of one frame alone")
    assert scene.complaints() == []


def test_the_view_turns_moves_zooms_and_returns_by_mouse_and_by_keys(scene: Page) -> None:
    choose(scene, 7)
    scene.until(lambda: share(drawn(scene)) > 0.03, "the scene")
    home = drawn(scene)

    def changed(what: str) -> None:
        scene.until(lambda: np.abs(drawn(scene) - home).mean() > 0.5, what)
        scene.one("#reset-view").click()
        scene.until(lambda: np.abs(drawn(scene) - home).mean() < 0.1, f"the first view after: {what}")

    canvas = scene.one("#scene")
    ActionChains(scene.driver).drag_and_drop_by_offset(canvas, 80, 30).perform()
    changed("turned by the mouse")
    ActionChains(scene.driver).key_down(Keys.SHIFT).drag_and_drop_by_offset(canvas, 80, 0).key_up(Keys.SHIFT).perform()
    changed("moved by the mouse")
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    changed("turned by keys")
    canvas.send_keys("+", "+")
    before = share(home)
    scene.until(lambda: share(drawn(scene)) > 1.2 * before, "nearer by keys")
    canvas.send_keys("0")
    scene.until(lambda: np.abs(drawn(scene) - home).mean() < 0.1, "0 returns")


def test_the_view_follows_the_clip_and_the_clip_the_slider(scene: Page) -> None:
    scene.halt(1.9)
    scene.until(lambda: scene.one("#moment").get_property("value") == "7", "the frame of the clip's time")
    choose(scene, 2)
    scene.until(
        lambda: abs(scene.run("return document.querySelector('#video').currentTime") - 1.9 * 2 / 7) < 0.05,
        "the clip at the frame's time",
    )


def test_without_webgl_the_page_says_so_and_the_scene_can_still_be_saved(
    page: Page, canned: Canned, tmp_path: Path
) -> None:
    canned.stages = STAGES
    page.open(motion="reduce").with_sample()
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.run(
        "const made = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext ="
        " function (kind) { return kind.startsWith('webgl') ? null : made.apply(this, arguments); }"
    )
    page.shown("#space")
    page.one("#reconstruct").click()
    page.reads("#space-note", "This browser has no WebGL")
    assert not page.one("#view").is_displayed()
    page.one("#save-scene [data-format=ply]").click()
    saved = tmp_path / "scene.ply"
    page.until(saved.exists, "the file")
    assert saved.read_bytes() == ply(sphere(frames=8, points=20_000))
    assert canned.scenes[-1] == {"video": {"id": "vid_" + "0" * 64}, "format": "ply"}


def test_a_refusal_is_said_in_the_panel_and_another_clip_clears_it(page: Page, canned: Canned, text_file: Path) -> None:
    canned.stages = STAGES
    canned.scene_refusals.append(refused(problem(429, "busy", "Too busy", "3 requests wait already")))
    page.open(motion="reduce").with_sample()
    page.shown("#space")
    page.one("#reconstruct").click()
    page.reads("#space-note", "Too busy: 3 requests wait already")
    assert page.one("#reconstruct").text == "Reconstruct"
    page.upload(text_file)
    page.reads("#space-note", "Where the camera was")


def test_work_can_be_cancelled_and_a_key_is_asked_for(page: Page, canned: Canned) -> None:
    canned.stages, canned.pause = STAGES, 3.0
    page.open(motion="reduce").with_sample()
    page.shown("#space")
    page.one("#reconstruct").click()
    page.until(lambda: page.one("#reconstruct").text == "Cancel", "a way to stop it")
    page.one("#reconstruct").click()
    page.until(lambda: page.one("#reconstruct").text == "Reconstruct", "stopped")
    canned.pause = 0.0
    canned.scene_refusals.append(refused(problem(401, "unauthorized", "Unauthorized", "an API key is needed")))
    page.one("#reconstruct").click()
    page.shown("#key").find_element("css selector", "input").send_keys("dsr_key", Keys.ENTER)
    page.reads("#space-note", "20,000 of")
    assert canned.keys[-1] == "Bearer dsr_key"
    assert page.complaints() == [] or all("401" in said for said in page.complaints())


def test_the_panel_fits_any_width_and_all_in_it_has_a_name(scene: Page) -> None:
    controls = scene.all("#space button, #space input, #space canvas")
    assert len(controls) == 7
    assert [c.get_attribute("outerHTML") for c in controls if not c.accessible_name] == []
    for width in (320, 768, 900, 1920):
        scene.resize(width, 740)
        assert scene.run("return document.documentElement.scrollWidth") <= width
        box = scene.one("#scene").rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
