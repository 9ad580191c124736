"""Take the tutorial's pictures anew: `python tools/tutorial_pictures.py DATA_FOLDER`, of what `coarseloc demo` and
`coarseloc track` have left there. Needs Chromium."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from coarseloc.core import config
from coarseloc.workspace import Workspace
from web.server import serve

FLIGHT = "251124155712"
FRAME = 7
PICTURES = Path(__file__).parents[1] / "docs/pictures"
WIDTH, HEIGHT = 1280, 860
CHROMIUM = Path("/usr/bin/chromium")


def take(data: Path) -> None:
    settings, ready, address, stop = config.load(data), threading.Event(), list[str](), threading.Event()

    def listen(url: str) -> None:
        address.append(url)
        ready.set()

    server = threading.Thread(target=serve, args=(settings,), kwargs={"port": 0, "ready": listen, "stop": stop})
    server.start()
    ready.wait()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(CHROMIUM) if CHROMIUM.exists() else None, args=["--no-sandbox", "--disable-gpu"]
            )
            for language, suffix in (("en", ""), ("ko", "-ko")):
                query = f"method=fix&lang={language}"
                _take_page(browser, f"{address[0]}flights/{FLIGHT}?{query}&frame={FRAME}", f"flight{suffix}")
                _take_page(browser, f"{address[0]}flights/{FLIGHT}/{FRAME}?{query}", f"frame{suffix}")
    finally:
        stop.set()
        server.join()
    with Workspace(settings) as workspace, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM) if CHROMIUM.exists() else None)
        for language, suffix in (("en", ""), ("ko", "-ko")):
            page = data / f"tutorial-report{suffix}.html"
            workspace.report(workspace.evaluate(FLIGHT), page, language=language)
            _take_page(browser, page.absolute().as_uri(), f"report{suffix}")
            page.unlink()


def _take_page(browser: Browser, url: str, name: str) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(url)
    page.wait_for_timeout(4000)  # the map's tiles
    png = PICTURES / f"{name}.png"
    page.screenshot(path=png)
    page.close()
    with Image.open(png) as picture:
        picture.convert("RGB").resize((WIDTH * 3 // 4, HEIGHT * 3 // 4)).save(PICTURES / f"{name}.webp", quality=80)
    png.unlink()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
