"""One image's label, as its JSON and CSV readers share it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coarseloc.core import ids
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import LonLat, Pose

MAX_LABEL_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Label:
    """One image's label."""

    reference: str  # the image's file as the label names it, with folders or without; POSIX, NFC
    pose: Pose
    problem: ImageryError | None = None  # why there is no location: "missing-label", "wrong-crs" or "label-conflict"
    source: Path | None = None  # the label file
    time: datetime | None = None  # with a zone where the label gives one

    @property
    def filename(self) -> str:
        return self.reference.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return "/".join(self.folders)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that the reference names, the innermost last."""
        return tuple(part for part in self.reference.split("/")[:-1] if part not in ("", ".", ".."))

    @property
    def is_absolute(self) -> bool:
        return self.reference.startswith("/") or self.reference[1:3] == ":/"


class NotLabelsError(ImageryError):
    """The file is sound, but of another kind."""


def number(value: Any) -> float | None:
    """A finite number, also as text; None for anything else."""
    if value is None or isinstance(value, bool | bytes):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) else None


_STAMPS = ("%Y:%m:%d %H:%M:%S", "%Y:%m:%d %H:%M:%S.%f", "%Y%m%d%H%M%S", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f")
_UNITS_PER_S = (1, 1e3, 1e6, 1e9)  # of a Unix time


def time_of(value: Any) -> datetime | None:
    """A date with its time of day: ISO 8601, as EXIF writes it, or Unix time in s, ms, µs or ns (which gets the zone
    UTC). None for anything else, such as seconds since take-off, and for years before 1980 or after 2099."""
    if not isinstance(value, str | float | int) or isinstance(value, bool):
        return None
    text = value.strip() if isinstance(value, str) else str(value) if abs(value) < 1e21 else ""
    times = [_unix_time(text), *(_stamp(text, form) for form in _STAMPS), _iso_time(text)]
    return next((time for time in times if time is not None and 1980 <= time.year <= 2099), None)


def _unix_time(text: str) -> datetime | None:
    seconds = number(text)
    if seconds is None:
        return None
    plausible = [seconds / unit for unit in _UNITS_PER_S if 315_532_800 <= seconds / unit < 4_102_444_800]
    return datetime.fromtimestamp(plausible[0], UTC) if plausible else None


def _stamp(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def _iso_time(text: str) -> datetime | None:
    if len(text) < len("2025-11-24T15"):
        return None  # a day is no time
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def image_reference(text: str) -> str:
    """A reference as labels write it, which may carry folders of either system, in one form."""
    return ids.label(text).replace("\\", "/")


def pose_of(altitude: float | None, yaw: float | None, pitch: float | None, roll: float | None) -> Pose:
    """A pose without a location; yaw becomes a heading in [0, 360)."""
    heading = None if yaw is None else yaw % 360 % 360  # once would leave 360 of a hair below 0
    return Pose(None, altitude, heading, pitch, roll)


def located(reference: str, pose: Pose, lat: float | None, lon: float | None, usable: Iterable[str]) -> Label:
    """The label with its position, or with the reason why it has none; `usable` names what else is known of it."""
    name = reference.rpartition("/")[2]
    if lat is None or lon is None:
        given = ", ".join(usable) or "nothing"
        problem = ImageryError(
            "missing-label",
            f"the label of {name} has no usable latitude and longitude (of a position it gives: {given})",
        )
        return Label(reference, pose, problem)
    if abs(lat) > 90 or abs(lon) > 180:
        swapped = abs(lon) <= 90 and abs(lat) <= 180
        guess = "the two seem to be swapped" if swapped else "these look like metres of a projected system such as UTM"
        return Label(
            reference,
            pose,
            ImageryError(
                "wrong-crs",
                f"the label of {name} has latitude {lat:g} and longitude {lon:g}: expected WGS84 degrees within "
                f"±90 and ±180; {guess}. Convert the labels to WGS84 degrees.",
            ),
        )
    return Label(reference, replace(pose, location=LonLat(lon, lat)))


def read_text(path: Path) -> bytes:
    """A label file's bytes without a byte order mark."""
    try:
        size = path.stat().st_size
        if size > MAX_LABEL_BYTES:
            raise ImageryError(
                "too-large", f"{path} has {size:,} bytes: at most {MAX_LABEL_BYTES:,} are read as labels"
            )
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ImageryError("missing-file", f"{path} cannot be read: {error.strerror}") from error
