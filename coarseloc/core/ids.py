"""Identities: how tiles, places, points and collections are named. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid5

from coarseloc.core.errors import InputError

# Fixed for all time: changing it would orphan every point ever written.
NAMESPACE = UUID("5b6f1c1e-3c0e-4a53-9d3f-0c5a7c0de10c")


def tile_id(reference_set: str, index: int) -> str:
    """The unturned tile `index` of a reference set, e.g. `gangnam-300m/00012`."""
    return f"{reference_set}/{index:05d}"


def place_id(lon: float, lat: float) -> str:
    """The place a tile's centre marks, the same in every reference set, e.g. `N37.497920_E127.027650`.

    Six decimals of a degree are about 0.1 m: two captures of one grid point share their place.
    """
    return f"{'NS'[lat < 0]}{abs(lat):09.6f}_{'EW'[lon < 0]}{abs(lon):010.6f}"


def point_id(reference_set: str, tile_index: int, angle_deg: int) -> UUID:
    """UUIDv5 of (reference set, tile, angle): the same rotated tile has the same id in every collection."""
    return uuid5(NAMESPACE, f"{tile_id(reference_set, tile_index)}/{angle_deg:03d}")


def label(text: str) -> str:
    """Normalise a name as its user gave it: NFC, without space around it, so that names that look equal are equal."""
    return unicodedata.normalize("NFC", text.strip())


def free_label(text: str, taken: Collection[str]) -> str:
    """A new name as its user gave it. Raises InputError where it is empty, or taken."""
    name = label(text)
    if not name:
        raise InputError("the new name is empty: give it at least a letter")
    if name in taken:
        raise InputError(f"{name!r} is taken: choose another name")
    return name


def set_name(text: str) -> str:
    """A source's name as a reference set's: letters and digits of every script stay, in lower case; what stands
    between them becomes a dash."""
    spaced = re.sub(r"[\x00-\x2d\x2f\x3a-\x60\x7b-\x7f\s]+", "-", label(text).lower().replace("+", "plus"))
    return spaced.strip("-.") or "unnamed"


# C0 and C1, which terminals obey, line ends, marks that turn the direction of writing, and halves of characters.
_CONTROL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"


def file_name(text: str) -> str:
    """A label as a file's or folder's name: what no file system takes, and control characters, become underscores."""
    return re.sub(rf'[{_CONTROL}/\\:*?"<>|]', "_", label(text)).strip(". ") or "_"


def visible(text: str) -> str:
    """A text for a terminal: every control character but a line's end and a tab becomes U+FFFD."""
    return re.sub(rf"(?![\n\t])[{_CONTROL}]", "\ufffd", text)


def spreadsheet_cell(value: Any) -> Any:
    """A cell of a CSV: a text without control characters, which the csv module does not quote, and with an apostrophe
    before what a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def digest(facts: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of a mapping in canonical JSON, as 64 hex digits."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(text: str) -> str:
    """A name made safe for folders, collections and URLs: lower case, digits, dots and dashes.

    A plus sign becomes `plus`, so that `vits16` and `vits16+` stay apart.
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("+", "plus")).strip("-.") or "unnamed"
