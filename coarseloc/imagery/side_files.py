"""What lies beside a raster's file and says where it lies: a .prj and a world file; and what contradicts the file."""

from __future__ import annotations

import math
from pathlib import Path

import rasterio
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import transform

from coarseloc.core import geo
from coarseloc.core.errors import InputError

WORLD_FILES = {"GTiff": "tfw", "PNG": "pgw", "JPEG": "jgw", "JP2OpenJPEG": "j2w"}
_WORLD_NUMBERS = 6
_SAME_PIXELS = 1.5  # half of one is the middle of a pixel for its corner
_SAME_PLACE_M = 5.0  # between a file's CRS and that of its .prj: two names of one datum lie within


def declared_crs(dataset: DatasetReader, path: Path) -> tuple[CRS | None, str]:
    """(the CRS that a file declares, or else the .prj beside it; a notice where it is this one's)."""
    beside = path.with_suffix(".prj")
    if dataset.crs is not None or not beside.is_file():
        return dataset.crs, ""
    crs = _read_prj(beside, path)
    return crs, f"{path.name} declares no CRS: that of {beside.name} is taken ({crs.to_string()[:60]})"


def _read_prj(beside: Path, path: Path) -> CRS:
    try:
        return CRS.from_wkt(beside.read_text(encoding="utf-8-sig"))
    except (rasterio.errors.CRSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{beside} cannot be read as the CRS of {path.name}: {error}. --crs EPSG:… gives it"
        ) from error


def contradiction_notices(dataset: DatasetReader, path: Path) -> list[str]:
    """Say where a world file or a .prj beside a file with a place of its own says another; the file's own counts."""
    notices = _aux_notices(dataset, path)
    to_crs = dataset.transform
    world = _world_file(path, dataset.driver)
    if world is not None and (beside := _read_world_file(world)) and not to_crs.is_degenerate:
        corners = ((0, 0), (dataset.width, dataset.height))
        pixels = max(math.dist(~to_crs * (beside * corner), corner) for corner in corners)
        if pixels > _SAME_PIXELS:
            notices.append(
                f"{world.name} beside {path.name} lays it {pixels:,.0f} pixels beside where the file itself says: the "
                "file's own georeference is taken. If the world file is right, write it into the file (gdal_translate "
                "-a_ullr …)"
            )
    prj = path.with_suffix(".prj")
    if dataset.crs is not None and prj.is_file():
        metres = _apart_m(dataset.crs, _read_prj(prj, path), to_crs * (dataset.width / 2, dataset.height / 2))
        if metres > _SAME_PLACE_M:
            notices.append(
                f"{prj.name} beside {path.name} says another CRS, {metres:,.0f} m off: the file's own is taken. "
                "--crs EPSG:… says which is right"
            )
    return notices


def _aux_notices(dataset: DatasetReader, path: Path) -> list[str]:
    """Say where GDAL's .aux.xml lays a TIFF elsewhere than the TIFF itself: GDAL takes the former."""
    beside = path.with_name(f"{path.name}.aux.xml")
    if dataset.driver != "GTiff" or not beside.is_file():
        return []
    with rasterio.Env(GDAL_GEOREF_SOURCES="INTERNAL"), rasterio.open(path, driver="GTiff") as alone:
        own, corner = alone.transform, (dataset.width, dataset.height)
    if own.is_identity or own.is_degenerate:
        return []
    pixels = max(math.dist(~own * (dataset.transform * point), point) for point in ((0, 0), corner))
    if pixels <= _SAME_PIXELS:
        return []
    return [
        f"{beside.name} lays {path.name} {pixels:,.0f} pixels beside where the file itself says, and is taken: remove "
        "it if it is old"
    ]


def _world_file(path: Path, driver: str) -> Path | None:
    suffixes = {WORLD_FILES.get(driver, "wld"), "wld", f"{path.suffix[1:].lower()}w"}
    names = {f"{path.stem}.{suffix}".casefold() for suffix in suffixes}
    return next((file for file in sorted(path.parent.glob(f"{path.stem}.*w*")) if file.name.casefold() in names), None)


def _read_world_file(path: Path) -> Affine | None:
    """The map from pixels' corners to the CRS; None where the file holds no six numbers."""
    try:
        numbers = [float(text) for text in path.read_text(errors="replace").replace(",", ".").split()[:_WORLD_NUMBERS]]
    except (OSError, ValueError):
        return None
    if len(numbers) < _WORLD_NUMBERS:
        return None
    a, d, b, e, c, f = numbers
    return Affine(a, b, c - a / 2 - b / 2, d, e, f - d / 2 - e / 2)


def _apart_m(first: CRS, second: CRS, point: tuple[float, float]) -> float:
    """Metres between the places that one pair of numbers has in two CRSs; inf where it has none in the second."""
    places = []
    for crs in (first, second):
        (lon,), (lat,) = transform(crs, "EPSG:4326", [point[0]], [point[1]])
        places.append((lon, lat))
    return float(geo.distance_m(*places[0], *places[1]))
