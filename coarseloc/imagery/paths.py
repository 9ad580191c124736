"""Names of users' files: what can be stored of them, and their natural order."""

from __future__ import annotations

import re
from pathlib import Path

from coarseloc.core.errors import InputError


def resolve(path: Path) -> Path:
    """The absolute path, links followed. InputError where it is not UTF-8: no database takes it."""
    path = path.resolve()
    if not is_text(str(path)):
        raise InputError(f"{printable(path)} has bytes in its name that are not UTF-8: rename the file or folder")
    return path


def is_text(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python carries other bytes along as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """A path as text that can be shown and stored, its odd bytes as `\\xe9`."""
    return str(path).encode("utf-8", "backslashreplace").decode().replace(r"\udc", r"\x")  # Python's byte e9: U+DCE9


def natural_order(relative_path: str) -> tuple[list[list[tuple[int, str]]], str]:
    """A key for sorting: numbers as numbers (DJI_9 before DJI_10), a name before its copy (`x.jpg`, `x (1).jpg`)."""
    folder, _, name = relative_path.rpartition("/")
    return [_tokens(part) for part in (*folder.split("/"), Path(name).stem, Path(name).suffix)], relative_path


def _tokens(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text.casefold())]
