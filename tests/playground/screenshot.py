"""`python -m tests.playground.screenshot [FILE]`: the page with the sample asked and answered, for the README.

Starts the laptop's service on a free port and a headless Chromium, and writes a PNG.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from serve.local import read_settings, running, wait_until_ready
from tests.fresh import free_port
from tests.playground.browser import Page, chromium, missing

SIZE = (1120, 860)
COLOURS = 192  # of the palette: a third of the bytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.playground.screenshot", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("serve/playground.png"))
    chosen = parser.parse_args()
    if (reason := missing()) is not None:
        parser.error(reason)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as driver:
        store = {"url": str(Path(folder) / "store"), "max_bytes": 50_000_000}
        with running(read_settings(Path("deploy/serve-local.yaml"), store=store), free_port()) as url:
            wait_until_ready(url)
            page = Page(driver, url, seconds=60).open(*SIZE, motion="reduce").with_sample()
            page.reads("#status", "dsr-tiny")
            page.ask()
            page.answered()
            page.halt(2.6)
            page.until(lambda: len(page.all("#strip .pictured")) == 16, "a picture of every moment")
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
            driver.get("about:blank")
    picture.quantize(COLOURS).save(chosen.file, optimize=True)
    print(f"{chosen.file}: {picture.width} x {picture.height}, {chosen.file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
