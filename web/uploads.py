"""Images that readers send to be found: checked, kept under their content's name, the oldest dropped."""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import suppress
from pathlib import Path

from coarseloc.core.errors import ImageryError
from coarseloc.core.types import UInt8
from coarseloc.imagery.decode import decode_image
from web.language import _
from web.problems import Problem

MAX_PIXELS = 60_000_000
KEPT = 100
_ID = re.compile(r"[0-9a-f]{32}")


def save(folder: Path, data: bytes) -> str:
    """Keep an image; returns its id. Raises Problem 400 (nothing sent), 413 (too many pixels) or 415 (no image)."""
    if not data:
        raise Problem(400, _("No image was sent. Choose, drop or paste one."))
    decode(data)
    name = hashlib.sha256(data).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    # Written anew even where it is there: another process may just be dropping it.
    partial = folder / f".{name}.{secrets.token_hex(4)}.part"
    partial.write_bytes(data)
    partial.replace(folder / name)
    _drop_oldest(folder)
    return name


def decode(data: bytes) -> UInt8:
    """uint8 [H, W, 3]; the pixel count is looked at before a pixel is decoded."""
    try:
        return decode_image(data, _("The image"), MAX_PIXELS)
    except ImageryError as error:
        status = 413 if error.kind == "too-large" else 415
        details = {
            "too-large": _("The image has too many pixels: at most {n} million are decoded.", n=MAX_PIXELS // 10**6),
            "not-an-image": _("This is not a JPEG, PNG, TIFF or WebP image."),
        }
        damaged = _("The image is damaged or of a kind that is not read here.")
        raise Problem(status, details.get(error.kind, damaged)) from None


def find(folder: Path, name: str) -> Path:
    """Raises Problem 404 for what is no id, and for what has been dropped since."""
    path = folder / name
    if not _ID.fullmatch(name) or not path.is_file():
        raise _gone()
    return path


def read(folder: Path, name: str) -> bytes:
    """Raises Problem 404 as `find` does."""
    try:
        return find(folder, name).read_bytes()
    except FileNotFoundError:  # dropped between the look and the reading
        raise _gone() from None


def _gone() -> Problem:
    return Problem(404, _("This image is no longer kept. Send it again."))


def _drop_oldest(folder: Path) -> None:
    files = [path for path in folder.iterdir() if _ID.fullmatch(path.name)]
    with suppress(OSError):  # another thread drops them as well
        files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)
