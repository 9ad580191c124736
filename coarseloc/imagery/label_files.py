"""One label file, JSON or table, read into a label for each image that it names."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from coarseloc.core import files, ids
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.types import AltitudeDatum, LonLat, Pose
from coarseloc.imagery.datum import ToDegrees, grid_positions
from coarseloc.imagery.gimbal import MAX_TILT_DEG, picture_attitude
from coarseloc.imagery.label_tables import COLUMNS, LabelTable, decode_text, read_table
from coarseloc.imagery.stated_labels import StatedLabels
from coarseloc.imagery.utm_zones import read_zone
from coarseloc.imagery.written_values import is_blank, parse_cell, parse_number, parse_time, unit_factor

TABLES = (".csv", ".tsv", ".txt")
MAX_LABEL_BYTES = 200_000_000
_MOST_TURNED_DEG = 720.0  # of a yaw that was counted on over north
_TURN_DEG, _TURN_GON, _HALF_TURN_DEG = 360.0, 400.0, 180.0
_AROUND_NULL_DEG = 1.0  # of latitude 0, longitude 0: a flight there is around it


def stated_labels(labels: Path | StatedLabels | None) -> StatedLabels:
    """A label file, or all that is said of labels. Raises InputError where the CRS is none that positions are in."""
    stated = labels if isinstance(labels, StatedLabels) else StatedLabels(labels)
    if stated.crs is not None:
        grid_positions(stated.crs)
    return stated


@dataclass(frozen=True, slots=True)
class Label:
    """One image's label: its file name, pose and time."""

    reference: str  # the image's file as the label names it, with folders or without; POSIX, NFC
    pose: Pose
    problem: ImageryError | None = None  # why there is no location: "missing-label", "wrong-crs" or "label-conflict"
    source: Path | None = None  # the label file
    time: datetime | None = None  # with a zone where the label gives one
    gimbal: Pose | None = None  # the picture's attitude by a gimbal, without a place
    notes: tuple[str, ...] = ()  # what its file's reader took for granted, or did not understand

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


def read_label_file(path: Path, stated: StatedLabels | None = None) -> list[Label]:
    """Read the labels of a JSON, CSV or TSV, in its order. NotLabelsError where it is of another form, ImageryError
    where it cannot be read. stated: whose CRS and answered doubts are used."""
    stated = stated or StatedLabels()
    read = _read_table if path.suffix.lower() in TABLES else _read_json
    labels = read(path, stated.crs)
    return labels if "null" in stated.accepted else _without_null_positions(labels)


def _without_null_positions(labels: list[Label]) -> list[Label]:
    """Take latitude 0, longitude 0 for no position, as receivers write it before they have one, unless other labels of
    the file lie around it."""
    null = LonLat(0.0, 0.0)
    places = {label.pose.location for label in labels if label.pose.location} - {null}
    if any(max(abs(place.lon), abs(place.lat)) < _AROUND_NULL_DEG for place in places):
        return labels
    return [_without_position(label) if label.pose.location == null else label for label in labels]


def _without_position(label: Label) -> Label:
    message = (
        f"the label of {label.filename} says latitude 0, longitude 0, as receivers do before they have a position. "
        "If it is so: --accept null"
    )
    problem = ImageryError("missing-label", message)
    return replace(label, pose=replace(label.pose, location=None), problem=problem)


def _read_bytes(path: Path) -> bytes:
    """Read a label file's bytes, without a byte order mark."""
    try:
        files.refuse_special(path)
        size = path.stat().st_size
        if size > MAX_LABEL_BYTES:
            raise ImageryError(
                "too-large", f"{path} has {size:,} bytes: at most {MAX_LABEL_BYTES:,} are read as labels"
            )
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ImageryError("missing-file", f"{path} cannot be read: {error.strerror}") from error


# --- JSON ------------------------------------------------------------------------------------------


def _mapping_or_empty(value: Any) -> Any:
    if isinstance(value, dict | BaseModel):
        return value
    return {} if value is None else {f"a {type(value).__name__}": value}  # said where a position is missed


_PlainNumber = Annotated[float, Strict(), AllowInfNan(False)]  # as nearly all are: told without a call of ours
Number = Annotated[
    _PlainNumber | Annotated[float | None, BeforeValidator(parse_cell)] | None, Field(union_mode="left_to_right")
]


class _Position(BaseModel):
    model_config = ConfigDict(extra="allow")  # kept, to say what was found in place of a position
    latitude: Number = Field(default=None, validation_alias=AliasChoices("latitude", "lat"))
    longitude: Number = Field(default=None, validation_alias=AliasChoices("longitude", "lon", "lng"))
    altitude: Number = Field(default=None, validation_alias=AliasChoices("altitude", "alt"))
    x: Number = None  # used where the user says in which CRS
    y: Number = None


class _Attitude(BaseModel):
    model_config = ConfigDict(extra="allow")  # kept, to say what was found in place of a yaw
    yaw: Number = Field(default=None, validation_alias=AliasChoices("yaw", "yaw_deg", "heading", "heading_deg"))
    pitch: Number = None
    roll: Number = None


class _Image(BaseModel):
    model_config = ConfigDict(extra="allow")
    imageref: str
    timestamp: Any = Field(None, validation_alias=AliasChoices("timestamp", "time", "datetime"))
    position: Annotated[_Position, BeforeValidator(_mapping_or_empty)] = Field(default_factory=_Position)
    attitude: Annotated[_Attitude, BeforeValidator(_mapping_or_empty)] = Field(default_factory=_Attitude)


_NAMED = 8  # keys that a note names
_TURN_KEY = re.compile(r"yaw|head|azimuth|orient|rot|quat|kappa|attitude", re.IGNORECASE)


def _not_understood(column: str, values: Sequence[str], rows: int) -> str:
    advice = ": write times as 2025-11-24 15:57:12" if parse_number(values[0]) is None and ":" in values[0] else ""
    return f"of {rows} values of its {column} {len(values)} are not understood (first {values[0]!r}){advice}"


def _image_or_none(value: Any) -> Any:
    return value if isinstance(value, dict) and isinstance(value.get("imageref"), str) else None


class _LabelJson(BaseModel):
    images: list[Annotated[_Image | None, BeforeValidator(_image_or_none)]]


def _read_json(path: Path, crs: str | None) -> list[Label]:
    """Read a Label per entry that names an image; NotLabelsError where the JSON is of another form, ImageryError where
    it cannot be read. Numbers may be null, missing or text; what is none of these counts as missing."""
    decoded = decode_text(_read_bytes(path))
    another_form = NotLabelsError(
        "unreadable-label",
        f'{path} is not a label file: expected {{"images": [{{"imageref": …, "position": …, "attitude": …}}]}}',
    )
    try:
        entries = _LabelJson.model_validate_json(decoded.text.removeprefix("\ufeff")).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ImageryError("unreadable-label", f"{path} is not valid JSON: {first['msg']}") from None
        raise another_form from None
    images = [image for image in entries if image is not None]
    if entries and not images:
        raise another_form
    to_degrees = grid_positions(crs) if crs else None
    labels = [_json_label(image, to_degrees) for image in images]
    notes = [decoded.notice, f"its positions are taken in {crs}, as --label-crs says" if crs else ""]
    notes += _unused_keys(images, labels)
    labels = [replace(label, notes=_texts(notes)) for label in labels]
    return _with_yaw_doubts(labels, [image.attitude.yaw for image in images])


def _unused_keys(images: Sequence[_Image], labels: Sequence[Label]) -> list[str]:
    """Notes of what the images hold beside what is read, where none has a place or a yaw: it may be there; and of
    times that are not understood."""
    keys_by_lack: dict[str, Iterable[str]] = {}
    if not any(label.pose.location for label in labels):
        keys_by_lack["positions"] = (key for image in images for key in image.model_extra or ())
    if all(image.attitude.yaw is None for image in images):
        keys_by_lack["yaws"] = (
            key
            for image in images
            for key in (*(image.attitude.model_extra or ()), *filter(_TURN_KEY.search, image.model_extra or ()))
        )
    notes = [
        f"it tells no {lack}, and its {', '.join(names[:_NAMED])} are not used"
        for lack, keys in keys_by_lack.items()
        if (names := list(dict.fromkeys(keys)))
    ]
    times = [str(image.timestamp) for image in images if image.timestamp is not None]
    unread = [time for time in times if not is_blank(time) and parse_time(time) is None]
    return [*notes, _not_understood("timestamp", unread, len(times))] if unread else notes


def _json_label(image: _Image, to_degrees: ToDegrees | None) -> Label:
    place, turn = image.position, image.attitude
    pose = _pose_without_location(place.altitude, turn.yaw, turn.pitch, turn.roll)
    name = _normal_reference(image.imageref)
    usable: list[str] = []
    if place.latitude is None or place.longitude is None:
        usable = [key for key, value in place.model_dump().items() if value is not None]
    lat, lon = place.latitude, place.longitude
    if to_degrees and (lat is None or lon is None):
        lat, lon = place.y, place.x
    label = _label_at(name, pose, *_in_degrees(lat, lon, to_degrees), usable)
    return label if image.timestamp is None else replace(label, time=parse_time(image.timestamp))


# --- tables -----------------------------------------------------------------------------------


def _read_table(path: Path, crs: str | None) -> list[Label]:
    """Read a Label per row; NotLabelsError where there is no file name or position column, ImageryError where the
    file cannot be read. Commas, semicolons or tabs; see `label_tables`."""
    decoded = decode_text(_read_bytes(path))
    try:
        table = read_table(decoded.text)
    except csv.Error as error:
        raise ImageryError("unreadable-label", f"{path} is not a valid CSV: {error}") from None
    has_crs = bool(crs or table.crs or table.column("zone"))
    columns = {word: table.column(word, has_crs=has_crs) for word in COLUMNS}
    is_grid = not (columns["latitude"] and columns["longitude"]) and bool(columns["easting"] and columns["northing"])
    if not (columns["filename"] and (is_grid or (columns["latitude"] and columns["longitude"]))):
        raise NotLabelsError(
            "unreadable-label",
            f"{path} has the columns {', '.join(table.header[:40]) or '(none)'}: expected at least a file name, "
            "latitude and longitude, such as filename,lat_deg,lon_deg",
        )
    factors = {
        word: factor
        for word, name in columns.items()
        if name and word not in _IN_CRS_UNITS and (factor := unit_factor(table.units.get(name, "")))
    }
    notes = [decoded.notice, *table.notices]
    notes += [f"its column {name} is in {table.units[name]}: converted" for word in factors if (name := columns[word])]
    notes += _unread_cells(table, columns)
    notes += _gimbal_notes(table, columns, factors)
    rows, by_zone = table.rows, is_grid and not crs and not table.crs and columns["zone"] is not None
    to_degrees = _to_degrees(path, crs or table.crs) if (is_grid or crs) and not by_zone else None
    is_utc = (columns["time"] or "").endswith("_utc") or table.units.get(columns["time"] or "") in ("utc", "gmt")
    labels = [label for row in rows if (label := _table_label(row, columns, to_degrees, is_grid, factors, is_utc))]
    if by_zone:
        notes += dict.fromkeys(note for label in labels for note in label.notes)
    elif crs:
        notes.append(f"its positions are taken in {crs}, as --label-crs says")
    elif to_degrees:
        notes.append(f"its eastings and northings are taken in {_crs_name(table.crs)}, as it says")
    yaws = [_number(row.get(columns["yaw"]), factors.get("yaw")) for row in rows] if columns["yaw"] else []
    return _with_yaw_doubts([replace(label, notes=_texts(notes)) for label in labels], yaws)


def _gimbal_notes(table: LabelTable, columns: Mapping[str, str | None], factors: Mapping[str, float]) -> list[str]:
    yaw, pitch = columns["gimbal_yaw"], columns["gimbal_pitch"]
    if yaw is None:
        return []
    if pitch is None:
        return [f"it tells no gimbal's pitch beside {yaw}: taken to look straight down"]
    pitches = [_number(row.get(pitch), factors.get("gimbal_pitch")) for row in table.rows]
    oblique = sum(degrees is not None and picture_attitude(0.0, degrees, 0.0) is None for degrees in pitches)
    if not oblique:
        return []
    return [
        f"the gimbal of {oblique} of its rows looks more than {MAX_TILT_DEG:g}° from straight down: its attitude is "
        "not used"
    ]


def _unread_cells(table: LabelTable, columns: Mapping[str, str | None]) -> list[str]:
    """Notes of columns that are used and hold cells that no number, or no time, is read from."""
    notes = []
    for word, name in columns.items():
        if name is None or word in ("filename", "zone", *_LETTERS, *_PLACES):  # a place that is missed is said by row
            continue
        cells = [cell for row in table.rows if (cell := row.get(name) or "") and not is_blank(cell)]
        parse = parse_time if word == "time" else parse_cell
        if unread := [cell for cell in cells if parse(cell) is None]:
            notes.append(_not_understood(name, unread, len(cells)))
    return notes


def _number(cell: str | None, factor: float | None) -> float | None:
    """A cell's number, in metres or degrees by the unit of its column, where the cell does not say its own."""
    number = parse_number(cell)
    return parse_cell(cell) if number is None or factor is None else number * factor


def _crs_name(crs: str) -> str:
    """The name in WKT, or the text itself."""
    match = re.match(r'\w+\["([^"]+)"', crs)
    return match[1] if match else crs[:60]


def _to_degrees(path: Path, crs: str) -> ToDegrees:
    """The way from a table's easting and northing to (lon, lat). ImageryError where its CRS is not given or not tied to
    WGS84."""
    if not crs:
        raise ImageryError(
            "wrong-crs",
            f"{path} gives eastings and northings and does not say their CRS: give it by --label-crs EPSG:…, or above "
            "the header (# CoordinateSystem: EPSG:5186)",
        )
    try:
        return grid_positions(crs)
    except InputError as error:
        raise ImageryError("wrong-crs", f"{path}: {error}") from None


def _table_label(
    row: Mapping[str, str],
    columns: Mapping[str, str | None],
    to_degrees: ToDegrees | None,
    is_grid: bool,
    factors: Mapping[str, float],
    is_utc: bool,
) -> Label | None:
    cells = {word: row.get(name) for word, name in columns.items() if name is not None}
    numbers = {
        word: _number(cells.get(word), factors.get(word)) for word in COLUMNS if word not in ("filename", "time")
    }
    name = _normal_reference(cells["filename"] or "")
    if not name.rpartition("/")[2]:
        return None
    altitude_m, datum = _table_altitude(numbers)
    pose = _pose_without_location(altitude_m, numbers["yaw"], numbers["pitch"], numbers["roll"])
    usable = [f"{word} {cells[word]}" for word in _PLACE_WORDS if cells.get(word)]
    lat = _by_letter(numbers["latitude"], cells.get("latitude_letter"))
    lon = _by_letter(numbers["longitude"], cells.get("longitude_letter"))
    zone_note = ""
    if is_grid:
        lat, lon = numbers["northing"], numbers["easting"]
    if is_grid and to_degrees is None and lat is not None and lon is not None:
        try:
            zone = read_zone(cells.get("zone") or "", cells.get("zone_letter") or "", lon, lat)
        except ImageryError as error:
            problem = ImageryError(error.kind, f"the label of {name}: {error}")
            return Label(name, replace(pose, altitude_datum=datum), problem)
        to_degrees = grid_positions(zone.crs)
        zone_note = zone.note or f"its eastings and northings are taken in {zone.crs}, by their zone"
    lat, lon = _in_degrees(lat, lon, to_degrees)
    label = _label_at(name, replace(pose, altitude_datum=datum), lat, lon, usable)
    time = parse_time(cells.get("time"))
    return replace(
        label,
        time=time.replace(tzinfo=UTC) if time and is_utc and time.tzinfo is None else time,
        gimbal=_gimbal(numbers),
        notes=_texts([zone_note]),
    )


def _by_letter(degrees: float | None, letter: str | None) -> float | None:
    """Degrees south or west below 0, as a column of hemispheres says (S, South, W, West)."""
    is_negative = degrees is not None and (letter or "").strip().upper()[:1] in ("S", "W")
    return -abs(degrees or 0.0) if is_negative else degrees


def _table_altitude(numbers: Mapping[str, float | None]) -> tuple[float | None, AltitudeDatum]:
    if (relative_m := numbers["altitude_above_takeoff"]) is not None:
        return relative_m, "takeoff"
    if numbers["altitude"] is None and (sea_m := numbers["altitude_above_sea"]) is not None:
        return sea_m, "sea"
    return numbers["altitude"], "unknown"


def _gimbal(numbers: Mapping[str, float | None]) -> Pose | None:
    """The attitude of the picture by a gimbal's columns; without a pitch it is taken to look straight down."""
    yaw, pitch = numbers["gimbal_yaw"], numbers["gimbal_pitch"]
    if yaw is None or abs(pitch or 0.0) > 180:
        return None
    return picture_attitude(yaw, -90.0 if pitch is None else pitch, numbers["gimbal_roll"] or 0.0)


_PLACE_WORDS = ("latitude", "longitude", "easting", "northing", "altitude")
_LETTERS = ("latitude_letter", "longitude_letter", "zone_letter")
_PLACES = ("latitude", "longitude", "easting", "northing")
_IN_CRS_UNITS = ("easting", "northing")  # a CRS says in which


# --- labels of either form -------------------------------------------------------------------------


def _with_yaw_doubts(labels: list[Label], yaws: Iterable[float | None]) -> list[Label]:
    """Take all yaws of a file for none where one is more than two turns, and say so; say where they may be gon."""
    numbers = [yaw for yaw in yaws if yaw is not None]
    wildest = max(map(abs, numbers), default=0.0)
    if wildest > _MOST_TURNED_DEG:
        note = f"its yaws reach {wildest:g}, which are no degrees (hundredths of them?): not used"
        labels = [replace(label, pose=replace(label.pose, yaw_deg=None)) for label in labels]
    elif (
        numbers and min(numbers) >= 0.0 and _TURN_DEG < wildest <= _TURN_GON and wildest - min(numbers) > _HALF_TURN_DEG
    ):
        note = f"its yaws reach {wildest:g}: are they gon, 400 to a turn? They are taken as degrees"
    else:
        return labels
    return [replace(label, notes=(*label.notes, note)) for label in labels]


def _texts(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


def _normal_reference(text: str) -> str:
    """Normalise a reference to an image: Unicode NFC, folders of either system separated by slashes."""
    return ids.label(text).replace("\\", "/")


def _pose_without_location(altitude: float | None, yaw: float | None, pitch: float | None, roll: float | None) -> Pose:
    """Build a pose without a location; yaw becomes a heading in [0, 360)."""
    heading = None if yaw is None else yaw % 360 % 360  # once would leave 360 of a hair below 0
    return Pose(None, altitude, heading, pitch, roll)


def _in_degrees(
    lat: float | None, lon: float | None, to_degrees: ToDegrees | None
) -> tuple[float | None, float | None]:
    """A latitude and a longitude, or a northing and an easting, as (lat, lon) in WGS84; None where there is none."""
    if to_degrees is None or lat is None or lon is None:
        return lat, lon
    lon, lat = to_degrees(lon, lat)
    return (lat, lon) if math.isfinite(lon) and math.isfinite(lat) else (None, None)


def _off_globe(lat: float, lon: float) -> str:
    """What numbers that are no latitude and longitude may be, and what to do."""
    if abs(lon) <= 90 and abs(lat) <= 180:
        return "the two seem to be swapped. Convert the labels to WGS84 degrees."
    if abs(lat) < 9100 and abs(lon) < 18100 and abs(lat) % 100 < 60 and abs(lon) % 100 < 60:
        return "these look like degrees and minutes, as NMEA writes them: 3730.05 is 37 + 30.05 / 60"
    return (
        "these look like metres of a projected CRS such as UTM. Give their CRS by --label-crs EPSG:…, or convert the "
        "labels to WGS84 degrees."
    )


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
        message = (
            f"the label of {name} has latitude {lat:g} and longitude {lon:g}: expected WGS84 degrees within ±90 and "
            f"±180; {_off_globe(lat, lon)}"
        )
        return Label(reference, pose, ImageryError("wrong-crs", message))
    return Label(reference, replace(pose, location=LonLat(lon, lat)))
