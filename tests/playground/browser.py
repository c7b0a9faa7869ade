"""A headless Chromium and the page in it, as a visitor meets them: what is shown, clicked and typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU; the pages are ours
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
SLOW_GL = "GL Driver Message (OpenGL, Performance"  # of a processor that draws in place of a GPU, at each screenshot
HEAT = """
const canvas = document.querySelector("#heat");
if (canvas.hidden || !canvas.width) return null;
const small = new OffscreenCanvas(16, 9).getContext("2d");
small.drawImage(canvas, 0, 0, 16, 9);
const data = small.getImageData(0, 0, 16, 9).data;
return Array.from({ length: 144 }, (_, i) => data[i * 4]);
"""


def missing() -> str | None:
    """Why there is no browser to test with, or None."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt-get install chromium chromium-driver)"
    return None


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(30)
        yield driver
    finally:
        driver.quit()


class Page:
    """The playground at a URL. Every look at the page waits, `seconds` at most, for what it looks for."""

    def __init__(self, driver: Chrome, url: str, seconds: float = 15) -> None:
        self.driver = driver
        self.url = url
        self.seconds = seconds

    def open(self, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "no-preference") -> Page:
        self.resize(width, height)
        media = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.complaints()  # those of the page before
        self.driver.get(self.url)
        return self

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [found.text for found in self.all(selector)]

    def until(self, true: Callable[[], T], what: str) -> T:
        """The first value of `true` that counts as true."""
        return WebDriverWait(self.driver, self.seconds, 0.05).until(lambda _: true(), f"waited in vain for: {what}")

    def shown(self, selector: str) -> WebElement:
        self.until(lambda: self.one(selector).is_displayed(), f"{selector} shown")
        return self.one(selector)

    def reads(self, selector: str, text: str) -> WebElement:
        """The element, once `text` stands in it."""
        self.until(lambda: text in self.one(selector).text, f"{text!r} in {selector}")
        return self.one(selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def with_sample(self) -> Page:
        """The sample is on the page and its first frame is there."""
        self.until(lambda: self.one("#question").get_property("value"), "the sample's question")
        decoded = "return document.querySelector('#video').readyState >= 2"
        self.until(lambda: self.run(decoded), "the clip's first frame")
        return self

    def type_question(self, text: str) -> None:
        self.one("#question").clear()
        self.one("#question").send_keys(text)

    def ask(self, text: str | None = None) -> None:
        if text is not None:
            self.type_question(text)
        self.one("#question").send_keys(Keys.ENTER)

    def answered(self, count: int = 1) -> None:
        """So many questions about the clip have been answered."""
        self.until(lambda: len(self.all("#history li")) == count, f"{count} answers")

    def upload(self, path: Path) -> None:
        self.one("#file").send_keys(str(path.resolve()))

    def halt(self, time: float = 0.0) -> None:
        """Stops the clip at a time, so that two looks at the heat see the same moment."""
        self.run("const v = document.querySelector('#video'); v.pause(); v.currentTime = arguments[0]", time)
        self.until(lambda: not self.run("return document.querySelector('#video').seeking"), "the seek's end")

    def looked(self) -> list[int]:
        """`heat`, once there is one."""
        return self.until(self.heat, "heat over the clip") or []

    def attribute(self, selector: str, name: str) -> str:
        return self.one(selector).get_attribute(name) or ""

    def heat(self) -> list[int] | None:
        """The red of 9 x 16 places of the heat map over the clip, row by row; None when none is shown."""
        found: list[int] | None = self.run(HEAT)
        return found

    def focused(self) -> str:
        """The id, label or text of the element with the focus."""
        script = "const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.textContent.trim()"
        return str(self.run(script))

    def complaints(self) -> list[str]:
        """What the browser wrote to its console since the last look: errors, and what the content policy refused."""
        entries = self.driver.execute("getLog", {"type": "browser"})["value"]
        said = [entry["message"] for entry in entries if entry["level"] != "INFO"]
        return [text for text in said if SLOW_GL not in text]
