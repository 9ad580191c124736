"""Tables of positions as tools write them: which column holds what, where a header or its names say so.

Read are tables with a header under many names (exiftool, Metashape, Mission Planner, wildnav, Korean Excel …), Pix4D's
without one, and ODM's geo.txt.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from coarseloc.imagery.decode import SUFFIXES
from coarseloc.imagery.written_values import unit_factor

COLUMNS = {
    "filename": (
        "filename", "file_name", "file", "imageref", "image", "imagename", "image_name", "name", "frame", "sourcefile",
        "image_path", "file_path", "filepath", "path", "img", "label", "파일명", "파일", "파일이름", "이미지", "사진",
    ),
    "latitude": (
        "latitude", "lat", "lat_deg", "latitude_deg", "gps_latitude", "gpslatitude", "gps_lat", "y/latitude",
        "latitude/y", "위도",
    ),
    "longitude": (
        "longitude", "lon", "lng", "long", "lon_deg", "longitude_deg", "gps_longitude", "gpslongitude", "gps_lon",
        "gps_lng", "x/longitude", "longitude/x", "경도",
    ),
    "latitude_letter": ("gpslatituderef", "gps_latitude_ref", "latituderef", "latitude_ref", "latref", "lat_ref", "ns"),
    "longitude_letter": (
        "gpslongituderef", "gps_longitude_ref", "longituderef", "longitude_ref", "lonref", "lon_ref", "ew",
    ),
    "easting": ("x/east", "x/easting", "easting", "east", "x_east", "utm_x", "utm_e", "utm_easting", "easting_m"),
    "northing": (
        "y/north", "y/northing", "northing", "north", "y_north", "utm_y", "utm_n", "utm_northing", "northing_m",
    ),
    "zone": ("zone", "utm_zone", "utmzone", "zone_number", "utm_zone_number", "utm존", "utm구역"),
    "zone_letter": ("zone_letter", "utm_zone_letter", "utm_letter", "utm_band", "band", "hemisphere", "반구"),
    "altitude": (
        "altitude", "altitude_m", "alt", "alt_m", "alt_exif_m", "height", "height_m", "z/altitude", "height/z", "고도",
    ),
    "altitude_above_takeoff": ("relativealtitude", "relative_altitude", "rel_alt"),
    "altitude_above_sea": ("gpsaltitude", "gps_altitude", "absolutealtitude", "absolute_altitude"),
    "yaw": ("yaw", "yaw_deg", "heading", "heading_deg", "방위각", "헤딩"),  # not track: a course is no heading
    "pitch": ("pitch", "pitch_deg", "피치"),
    "roll": ("roll", "roll_deg", "롤"),
    "gimbal_yaw": ("gimbalyawdegree", "gimbal_yaw", "gimball_yaw", "gimbal_yaw_deg"),  # wildnav's spelling, too
    "gimbal_pitch": ("gimbalpitchdegree", "gimbal_pitch", "gimball_pitch", "gimbal_pitch_deg"),
    "gimbal_roll": ("gimbalrolldegree", "gimbal_roll", "gimball_roll", "gimbal_roll_deg"),
    "time": ("timestamp", "time", "datetime", "date_time", "datetimeoriginal", "time_utc", "촬영시간", "촬영일시"),
}  # fmt: skip
_XY = {"easting": "x", "northing": "y"}  # in a table that names a zone or a CRS
_ODM_DEGREES = re.compile(r"(EPSG:4326|WGS ?84|\+proj=(longlat|latlong)\b.*)", re.IGNORECASE)
_ODM_CRS = re.compile(r"(EPSG:\d+|WGS ?84( .*)?|\+proj=.*)", re.IGNORECASE)
_ODM_HEADER = ["filename", "longitude", "latitude", "altitude", "yaw", "pitch", "roll"]
_ODM_GRID_HEADER = ["filename", "easting", "northing", *_ODM_HEADER[3:]]
_CRS_COMMENT = re.compile(r"#\s*coordinate\s*system:?\s*(.+)", re.IGNORECASE)  # Metashape's
_NAMED = 8  # columns that a notice names
_PIX4D_HEADER = ["filename", "latitude", "longitude", "altitude"]
_UNIT = re.compile(r"[\[(](.*?)[\])]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


class LabelTable(NamedTuple):
    """A header in lower case, without units, and its rows: {column: cell}."""

    header: list[str]
    rows: list[dict[str, str]]
    notices: tuple[str, ...] = ()  # what was taken for granted
    crs: str = ""  # that its head names, of its eastings and northings
    units: Mapping[str, str] = {}

    def column(self, word: str, *, has_crs: bool = False) -> str | None:
        """The column that holds what a word of `COLUMNS` says. has_crs: x and y are an easting and a northing, where
        nothing else is."""
        column = next((alias for alias in COLUMNS[word] if alias in self.header), None)
        return _XY[word] if column is None and has_crs and _XY.get(word) in self.header else column


class TableText(NamedTuple):
    """A table's text, and what was guessed to read it."""

    text: str
    notice: str = ""


def decode_text(data: bytes) -> TableText:
    """Decode a table: UTF-8, or UTF-16 by its mark; UTF-16 without one, or CP949 as Korean Excel saves it, is told."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TableText(data.decode("utf-16", errors="replace"))
    if data and data.count(0) > len(data) / 4:
        kind = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        return TableText(data.decode(kind, errors="replace"), f"it is read as {kind.upper()}, which it does not say")
    try:
        return TableText(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        pass
    try:
        return TableText(data.decode("cp949"), "it is no UTF-8: read as CP949, as Korean Excel saves it")
    except UnicodeDecodeError:
        notice = "it is neither UTF-8 nor CP949: letters that are not understood are replaced"
        return TableText(data.decode("utf-8", errors="replace"), notice)


def read_table(text: str) -> LabelTable:
    """Read a table; its header is empty where the text holds none of the forms. Raises csv.Error for what no CSV is."""
    lines = unicodedata.normalize("NFC", text).splitlines()  # a Mac's Hangul is in parts
    first = next((line.strip() for line in lines if line.strip()), "")
    if _ODM_CRS.fullmatch(first):
        return _odm_table(first, lines[lines.index(next(line for line in lines if line.strip())) + 1 :])
    if first.lower().startswith("sep="):  # Excel's, of what separates the cells below
        lines = lines[lines.index(next(line for line in lines if line.strip())) + 1 :]
    start = next((number for number, line in enumerate(lines) if _is_header(line)), 0)
    body = "\n".join(lines[start:]).lstrip("#")
    head = body.split("\n", 1)[0]
    delimiter = max(",;\t|", key=head.count)
    if delimiter not in head and head.count(" ") > 1:  # Mission Planner's location.txt
        delimiter = " "
    rows = list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter))
    if not rows:
        return LabelTable([], [])
    if _is_image_row(rows[0]):
        guesses = ["it has no header: its columns are taken as file, latitude, longitude and altitude, Pix4D's order"]
        if (more := len(rows[0]) - len(_PIX4D_HEADER)) > 0:
            guesses.append(f"of its columns {more} more (angles?) are not used: give it a header: filename,lat,lon,yaw")
        return LabelTable(_PIX4D_HEADER, _as_dicts(_PIX4D_HEADER, rows), tuple(guesses))
    header, units = _columns_and_units(rows[0])
    system = next((match[1] for line in lines[:start] if (match := _CRS_COMMENT.fullmatch(line.strip()))), "")
    notices = tuple(filter(None, (_unused(header), _overlong(header, rows[1:]))))
    return LabelTable(header, _as_dicts(header, rows[1:]), notices, system, units)


def _unused(header: list[str]) -> str:
    """Name the columns that are not understood, so that a heading among them is not lost without a word."""
    columns = {next((alias for alias in aliases if alias in header), "") for aliases in COLUMNS.values()}
    if not any(alias in header for alias in COLUMNS["latitude"]):
        columns |= set(_XY.values())  # used, or the table is not understood
    unknown = [column for column in header if column and column not in columns]
    if not unknown:
        return ""
    rest = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"its columns {', '.join(unknown[:_NAMED])}{rest} are not used"


def _overlong(header: list[str], rows: list[list[str]]) -> str:
    """Name the first row with more cells than the header has, whose cells may lie in columns of others."""
    numbers = [number for number, row in enumerate(rows, start=1) if any(map(str.strip, row[len(header) :]))]
    if not numbers:
        return ""
    return (
        f"of its rows {len(numbers)} (first {numbers[0]}) have more cells than its header: are there decimal commas, "
        "or quotes missing?"
    )


def _is_header(line: str) -> bool:
    return bool(line.strip()) and (not line.startswith("#") or line.casefold().startswith(("#label", "#name")))


def _normal_column(cell: str) -> str:
    """A column's name in lower case, without a unit in brackets."""
    return re.sub(r"\s+", "_", re.sub(r"[\[(].*?[\])]", "", cell.strip().casefold()).strip())


def _columns_and_units(cells: list[str]) -> tuple[list[str], dict[str, str]]:
    """(normal names of a header's columns, {name: its unit}): `Alt (ft)`, `yaw [rad]` or `altitude_ft`."""
    header = [_normal_column(cell) for cell in cells]
    for number, name in enumerate(header):
        if name and name in header[:number]:
            header[number] = f"{name} (again)"  # the first counts
    units = {}
    known = {alias for aliases in COLUMNS.values() for alias in aliases}
    for number, cell in enumerate(cells):
        name = header[number]
        stem, _, suffix = name.rpartition("_")
        if match := _UNIT.search(cell.casefold()):
            units[name] = match[1].strip()
        elif name not in known and stem in known and stem not in header and unit_factor(suffix):
            header[number], units[stem] = stem, suffix
    return header, units


def _as_dicts(header: list[str], rows: list[list[str]]) -> list[dict[str, str]]:
    return [dict(zip(header, row, strict=False)) for row in rows]


def _is_image_row(row: list[str]) -> bool:
    cells = [cell.strip() for cell in row]
    return (
        len(cells) >= 3 and cells[0].lower().endswith(SUFFIXES) and all(_NUMBER.fullmatch(cell) for cell in cells[1:3])
    )


def _odm_table(crs: str, lines: list[str]) -> LabelTable:
    header = _ODM_HEADER if _ODM_DEGREES.fullmatch(crs) else _ODM_GRID_HEADER
    rows = _as_dicts(header, [line.split() for line in lines])
    return LabelTable(header, rows, crs="" if header is _ODM_HEADER else crs)
