"""Names of users' files and folders: captures and tiles in them, their natural order, their text in the database.

A capture tree is `<root>/<capture>/<capture>_<index>.jpg`. Names only: nothing is decoded.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coarseloc.core import rotation
from coarseloc.core.errors import InputError
from coarseloc.core.types import Failure
from coarseloc.imagery.decode import SUFFIXES

CAPTURE_FORM = "<YYMMDDhhmmss>_<altitude>_<overlap>_<n>_<angle>"
CAPTURE_EXAMPLE = "251210182149_300_50_0_045"

_NUMBER = r"\d+(?:\.\d+)?"
_CAPTURE = re.compile(rf"\d{{12}}_(?P<altitude>{_NUMBER})_(?P<overlap>{_NUMBER})_[^_]+_(?P<angle>\d{{1,3}})", re.ASCII)
_TILE = re.compile(r"(?P<capture>.+)_(?P<index>\d{1,7})\.[^.]+", re.ASCII)
_BESIDE_TILE = re.compile(r"(?P<capture>.+)_\d{1,7}_[A-Za-z]\w*\.[^.]+", re.ASCII)

Files = dict[int, dict[int, Path]]
"""Tile index → angle → image."""


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture folder: the tiles of an area at one heading."""

    path: Path
    altitude_m: float
    overlap: float  # fraction in [0, 1)
    angle_deg: int  # in this project's convention

    @property
    def time(self) -> str:
        """When it was taken, YYMMDDhhmmss."""
        return self.path.name.partition("_")[0]


def find_captures(root: Path, turned: str) -> tuple[list[Capture], list[Failure]]:
    """List the captures in `root`, or `root` itself if it is one, by name; and a Failure for every other folder that
    holds images. `turned` as in rotation.stored_angle. InputError where there is no capture."""
    if not root.is_dir():
        state = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{root} {state}: expected the folder that holds the captures ({CAPTURE_FORM})")
    root_capture = parse_capture(root, turned)
    if root_capture is not None:
        return [root_capture], []
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    parsed = [(folder, parse_capture(folder, turned)) for folder in folders]
    captures = [capture for _, capture in parsed if capture is not None]
    if not captures:
        names = ", ".join(folder.name for folder in folders[:3]) or "none"
        raise InputError(
            f"{root} holds no captures: found {len(folders)} folder(s) ({names}), expected folders named "
            f"{CAPTURE_FORM}, such as {CAPTURE_EXAMPLE}"
        )
    other_folders = [folder for folder, capture in parsed if capture is None and any(image_names(folder))]
    failures = [
        Failure(
            printable(folder),
            "list",
            "not-a-capture",
            f"holds images, but is not named {CAPTURE_FORM}, such as {CAPTURE_EXAMPLE}",
        )
        for folder in other_folders
    ]
    nested = [deeper for folder in folders for deeper in folders_with_images(folder)]
    failures += [
        Failure(
            printable(folder),
            "list",
            "not-a-capture",
            f"holds images, and lies deeper than captures do: move it into {printable(root)}, or ingest it by itself",
        )
        for folder in nested
    ]
    if strays := list(image_names(root)):
        message = f"{len(strays)} of its images lie in no capture (first {printable(strays[0])}): left out"
        failures.append(Failure(printable(root), "list", "not-a-capture", message))
    return captures, failures


def parse_capture(folder: Path, turned: str) -> Capture | None:
    """Parse a capture folder's name; None where it has another form."""
    match = _CAPTURE.fullmatch(folder.name)
    if match is None or float(match["overlap"]) >= 100 or int(match["angle"]) > 360:
        return None
    angle = rotation.stored_angle(int(match["angle"]), turned)
    overlap = float(match["overlap"])  # percent, or a fraction: nobody flies with half a percent
    return Capture(folder, float(match["altitude"]), overlap if overlap < 1 else overlap / 100, angle)


def list_files(captures: Iterable[Capture]) -> tuple[Files, list[Failure]]:
    """List every capture's images by tile index and angle. Of two images of one view the first is used: folders,
    then files, by name."""
    files: Files = defaultdict(dict)
    failures: list[Failure] = []
    for capture in captures:
        folder, beside, twins = capture.path.name, list[str](), list[tuple[Path, Path]]()
        for name in image_names(capture.path):
            path = capture.path / name
            key = tile_key(name)
            if key is None and (match := _BESIDE_TILE.fullmatch(name)) and match["capture"] == folder:
                beside.append(name)
                continue
            if key is None or key[0] != folder:
                message = f"is not named {folder}_<index>, such as {folder}_00001{printable(path.suffix)}"
                failures.append(Failure(printable(path), "list", "bad-name", message))
                continue
            first = files[key[1]].setdefault(capture.angle_deg, path)
            if first is not path:
                twins.append((path, first))
        if twins:
            path, first = twins[0]
            message = (
                f"{len(twins)} of its pictures are tiles at {capture.angle_deg:03d} that there are already: those "
                f"are kept (first {path.name}, beside {first})"
            )
            failures.append(Failure(printable(capture.path), "list", "duplicate-tile", printable(message)))
        if beside:
            message = (
                f"{len(beside)} of its pictures are left out: named {folder}_<index>_<word> (first {beside[0]}), they "
                "are taken for masks, thumbnails or another camera's"
            )
            failures.append(Failure(printable(capture.path), "list", "bad-name", message))
    return dict(files), failures


def tile_key(filename: str) -> tuple[str, int] | None:
    """Parse (capture, tile index) from a file name, however wide its index is padded and whatever its suffix."""
    match = _TILE.fullmatch(filename)
    return (match["capture"], int(match["index"])) if match else None


def folders_with_images(folder: Path) -> list[Path]:
    """List the folders in a folder that hold images directly, by name; hidden ones left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name[0] != "." and is_folder(entry))
    return [folder / name for name in names if any(image_names(folder / name))]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether it is a folder; a link that leads in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def image_names(folder: Path) -> Iterator[str]:
    """List the image files of a folder, sorted by name; hidden ones left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


# --- any file --------------------------------------------------------------------------------------


def resolve(path: Path) -> Path:
    """Return the absolute path, links followed. InputError where it is not UTF-8: no database takes it."""
    path = path.resolve()
    if not is_utf8(str(path)):
        raise InputError(f"{printable(path)} has bytes in its name that are not UTF-8: rename the file or folder")
    return path


def is_utf8(name: str) -> bool:
    """Tell whether a name is UTF-8 on disk; Python carries other bytes along as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """Return a path as text that can be shown and stored, bytes that are not UTF-8 as `\\xe9`."""
    return str(path).encode("utf-8", "backslashreplace").decode().replace(r"\udc", r"\x")  # Python's byte e9: U+DCE9


def natural_order(relative_path: str) -> tuple[list[list[tuple[int, str]]], str]:
    """Return a sort key: numbers as numbers (DJI_9 before DJI_10), a name before its copy (`x.jpg`, `x (1).jpg`)."""
    folder, _, name = relative_path.rpartition("/")
    return [_tokens(part) for part in (*folder.split("/"), Path(name).stem, Path(name).suffix)], relative_path


def _tokens(text: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", unicodedata.normalize("NFC", text).casefold())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
