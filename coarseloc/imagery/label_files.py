"""One label file, JSON or table, read into a label for each image that it names."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from coarseloc.core import ids
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import LonLat, Pose

TABLES = (".csv", ".tsv")
MAX_LABEL_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Label:
    """One image's label: its file name, pose and time."""

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
        """Folders that the reference names, the innermost last."""
        return tuple(part for part in self.reference.split("/")[:-1] if part not in ("", ".", ".."))

    @property
    def is_absolute(self) -> bool:
        return self.reference.startswith("/") or self.reference[1:3] == ":/"


class NotLabelsError(ImageryError):
    """The file can be read, but holds no labels."""


def read_label_file(path: Path) -> list[Label]:
    """Read the labels of a JSON, CSV or TSV, in its order. NotLabelsError where it is of another form, ImageryError
    where it cannot be read."""
    return _read_csv(path) if path.suffix.lower() in TABLES else _read_json(path)


def _read_bytes(path: Path) -> bytes:
    """Read a label file's bytes, without a byte order mark."""
    try:
        size = path.stat().st_size
        if size > MAX_LABEL_BYTES:
            raise ImageryError(
                "too-large", f"{path} has {size:,} bytes: at most {MAX_LABEL_BYTES:,} are read as labels"
            )
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ImageryError("missing-file", f"{path} cannot be read: {error.strerror}") from error


# --- numbers and times as label files write them ---------------------------------------------------


def parse_number(value: Any) -> float | None:
    """Parse a finite number, also given as text; None for anything else."""
    if value is None or isinstance(value, bool | bytes):
        return None
    try:
        parsed = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return parsed if math.isfinite(parsed) else None


_TIME_FORMATS = (
    "%Y:%m:%d %H:%M:%S",
    "%Y:%m:%d %H:%M:%S.%f",
    "%Y%m%d%H%M%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S.%f",
)
_UNITS_PER_S = (1, 1e3, 1e6, 1e9)  # of a Unix time


def parse_time(value: Any) -> datetime | None:
    """Parse a date with its time of day: ISO 8601, as EXIF writes it, or Unix time in s, ms, µs or ns (which gets the
    zone UTC). None for anything else, such as seconds since take-off, and for years before 1980 or after 2099."""
    if not isinstance(value, str | float | int) or isinstance(value, bool):
        return None
    text = value.strip() if isinstance(value, str) else str(value) if abs(value) < 1e21 else ""
    times = [_unix_time(text), *(_formatted_time(text, form) for form in _TIME_FORMATS), _iso_time(text)]
    return next((time for time in times if time is not None and 1980 <= time.year <= 2099), None)


def _unix_time(text: str) -> datetime | None:
    seconds = parse_number(text)
    if seconds is None:
        return None
    plausible = [seconds / unit for unit in _UNITS_PER_S if 315_532_800 <= seconds / unit < 4_102_444_800]
    return datetime.fromtimestamp(plausible[0], UTC) if plausible else None


def _formatted_time(text: str, form: str) -> datetime | None:
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


# --- JSON ------------------------------------------------------------------------------------------


def _mapping_or_empty(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {}


Time = Annotated[datetime | None, BeforeValidator(parse_time)]
Number = Annotated[float | None, BeforeValidator(parse_number)]


class _Position(BaseModel):
    model_config = ConfigDict(extra="allow")  # kept, to say what was found in place of a position
    latitude: Number = None
    longitude: Number = None
    altitude: Number = None


class _Attitude(BaseModel):
    yaw: Number = None
    pitch: Number = None
    roll: Number = None


class _Image(BaseModel):
    imageref: str
    timestamp: Time = Field(None, validation_alias=AliasChoices("timestamp", "time", "datetime"))
    position: Annotated[_Position, BeforeValidator(_mapping_or_empty)] = _Position()
    attitude: Annotated[_Attitude, BeforeValidator(_mapping_or_empty)] = _Attitude()


def _image_or_none(value: Any) -> Any:
    return value if isinstance(value, dict) and isinstance(value.get("imageref"), str) else None


class _LabelJson(BaseModel):
    images: list[Annotated[_Image | None, BeforeValidator(_image_or_none)]]


def _read_json(path: Path) -> list[Label]:
    """Read a Label per entry that names an image; NotLabelsError where the JSON is of another form, ImageryError where
    it cannot be read. Numbers may be null, missing or text; what is none of these counts as missing."""
    data = _read_bytes(path)
    try:
        images = _LabelJson.model_validate_json(data).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ImageryError("unreadable-label", f"{path} is not valid JSON: {first['msg']}") from None
        raise NotLabelsError(
            "unreadable-label",
            f'{path} is not a label file: expected {{"images": [{{"imageref": …, "position": …, "attitude": …}}]}}',
        ) from None
    return [_json_label(image) for image in images if image is not None]


def _json_label(image: _Image) -> Label:
    place, turn = image.position, image.attitude
    pose = _pose_without_location(place.altitude, turn.yaw, turn.pitch, turn.roll)
    name = _normal_reference(image.imageref)
    usable: list[str] = []
    if place.latitude is None or place.longitude is None:
        usable = [key for key, value in place.model_dump().items() if value is not None]
    return replace(_label_at(name, pose, place.latitude, place.longitude, usable), time=image.timestamp)


# --- CSV and TSV -----------------------------------------------------------------------------------


_COLUMNS = {
    "filename": ("filename", "file_name", "file", "imageref", "image", "name", "frame"),
    "latitude": ("latitude", "lat", "lat_deg", "latitude_deg", "gps_latitude"),
    "longitude": ("longitude", "lon", "lng", "long", "lon_deg", "longitude_deg", "gps_longitude"),
    "altitude": ("altitude", "altitude_m", "alt", "alt_m", "alt_exif_m", "height", "height_m"),
    "yaw": ("yaw", "yaw_deg", "heading", "heading_deg"),  # not track: a course over ground is no heading
    "pitch": ("pitch", "pitch_deg"),
    "roll": ("roll", "roll_deg"),
    "time": ("timestamp", "time", "datetime", "date_time", "datetimeoriginal", "time_utc"),
}


def _read_csv(path: Path) -> list[Label]:
    """Read a Label per row; NotLabelsError where there is no file name or position column, ImageryError where the
    file cannot be read. Commas, semicolons or tabs."""
    text = _read_bytes(path).decode("utf-8", errors="replace")
    first_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first_line.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = {name.strip().casefold(): name for name in rows.fieldnames or () if name}
        column = {word: next((header[a] for a in aliases if a in header), None) for word, aliases in _COLUMNS.items()}
        if not all(column[word] for word in ("filename", "latitude", "longitude")):
            raise NotLabelsError(
                "unreadable-label",
                f"{path} has the columns {', '.join(header) or '(none)'}: expected at least a file name, latitude "
                "and longitude, such as filename,lat_deg,lon_deg",
            )
        return [label for row in rows if (label := _csv_label(row, column))]
    except csv.Error as error:
        raise ImageryError("unreadable-label", f"{path} is not a valid CSV: {error}") from None


def _csv_label(row: Mapping[str, Any], column: Mapping[str, str | None]) -> Label | None:
    cells = {word: row.get(name) for word, name in column.items() if name is not None}
    numbers = {word: parse_number(cells.get(word)) for word in _COLUMNS if word not in ("filename", "time")}
    name = _normal_reference(cells["filename"] or "")
    if not name.rpartition("/")[2]:
        return None
    pose = _pose_without_location(numbers["altitude"], numbers["yaw"], numbers["pitch"], numbers["roll"])
    usable = [word for word in ("latitude", "longitude", "altitude") if numbers[word] is not None]
    label = _label_at(name, pose, numbers["latitude"], numbers["longitude"], usable)
    time = parse_time(cells.get("time"))
    is_utc = (column["time"] or "").strip().casefold().endswith("_utc")
    return replace(label, time=time.replace(tzinfo=UTC) if time and is_utc and time.tzinfo is None else time)


# --- labels of either form -------------------------------------------------------------------------


def _normal_reference(text: str) -> str:
    """Normalise a reference to an image: Unicode NFC, folders of either system separated by slashes."""
    return ids.label(text).replace("\\", "/")


def _pose_without_location(altitude: float | None, yaw: float | None, pitch: float | None, roll: float | None) -> Pose:
    """Build a pose without a location; yaw becomes a heading in [0, 360)."""
    heading = None if yaw is None else yaw % 360 % 360  # once would leave 360 of a hair below 0
    return Pose(None, altitude, heading, pitch, roll)


def _label_at(reference: str, pose: Pose, lat: float | None, lon: float | None, usable: Iterable[str]) -> Label:
    """Build a label with its position, or with the reason why it has none; `usable` names the fields it does give."""
    name = reference.rpartition("/")[2]
    if lat is None or lon is None:
        available = ", ".join(usable) or "nothing"
        problem = ImageryError(
            "missing-label",
            f"the label of {name} has no usable latitude and longitude (of a position it gives: {available})",
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
