"""Positions of images in a CSV, under the column names that loggers and photogrammetry tools use."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from coarseloc.core.errors import ImageryError
from coarseloc.imagery.label import Label, NotLabelsError, image_reference, located, number, pose_of, read_text, time_of

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


def read_csv(path: Path) -> list[Label]:
    """A Label per row; NotLabelsError where there is no file name or position column, ImageryError where the
    file cannot be read. Commas, semicolons or tabs."""
    text = read_text(path).decode("utf-8", errors="replace")
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
    numbers = {word: number(cells.get(word)) for word in _COLUMNS if word not in ("filename", "time")}
    name = image_reference(cells["filename"] or "")
    if not name.rpartition("/")[2]:
        return None
    pose = pose_of(numbers["altitude"], numbers["yaw"], numbers["pitch"], numbers["roll"])
    usable = [word for word in ("latitude", "longitude", "altitude") if numbers[word] is not None]
    label = located(name, pose, numbers["latitude"], numbers["longitude"], usable)
    return replace(label, time=time_of(cells.get("time")))
