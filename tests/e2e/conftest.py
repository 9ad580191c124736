"""The real server, started as a reader starts it, on a real database; and a real browser where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from databases import environment_of
from gallery_sample import add_embedded, make_gallery

from coarseloc.core.config import CustomBackbone
from web.app import has_vendor

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(frozen=True)
class Server:
    """A running `coarseloc serve`."""

    url: str  # ends with a slash
    data_dir: Path
    process: subprocess.Popen[str]

    def __call__(self, path: str) -> str:
        return self.url + path.lstrip("/")


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., Server]]:
    """`start_server(data_dir, *options, **environment)` runs `coarseloc serve` on a free port."""
    running: list[subprocess.Popen[str]] = []

    def start(data_dir: Path, *options: str, **environment: str) -> Server:
        command = [sys.executable, "-c", "from coarseloc.cli import main; main()", "--data-dir", str(data_dir)]
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=(data_dir / "server.log").open("w"),
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **environment_of(data_dir), **environment},
        )
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "http://" in line:
                return Server(line[line.index("http://") :].strip(), data_dir, process)
        raise AssertionError((data_dir / "server.log").read_text())

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def gallery_dir(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: CustomBackbone) -> Path:
    """A data folder with searched flights, and a small set that a small model has embedded."""
    folder = tmp_path_factory.mktemp("gallery")
    make_gallery(folder)
    add_embedded(folder, tiny_backbone)
    return folder


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server], gallery_dir: Path) -> Server:
    return start_server(gallery_dir)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium: `COARSELOC_TEST_CHROMIUM`, or the one on the path."""
    named = os.environ.get("COARSELOC_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not has_vendor():
        pytest.fail("web/static/vendor is missing, which the build brings: run `python hatch_build.py`")
    if not found:
        pytest.skip("no Chromium: install one, or name it in COARSELOC_TEST_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=found, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def reader(browser) -> Iterator[object]:
    """One reader's browser, whose cache has the scripts after the first page; readers keep nothing else."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en", reduced_motion="no-preference")
    yield context
    context.close()


@pytest.fixture
def page(reader, server) -> Iterator[object]:
    """A fresh tab that fails its test where the page breaks: a script error, or a picture that is not there."""
    tab = reader.new_page()
    broken: list[str] = []
    tab.on("pageerror", lambda error: broken.append(str(error)))
    tab.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
    tab.broken = broken
    yield tab
    tab.close()
    reader.clear_cookies()
    assert broken == []
