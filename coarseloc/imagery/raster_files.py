"""Which files a raster is read from: one of several kinds, with its world file, or a folder of sheets as one mosaic."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from coarseloc.core.errors import InputError
from coarseloc.imagery.bands import false_alpha
from coarseloc.imagery.file_kinds import conversion_advice, foreign_kind
from coarseloc.imagery.file_names import natural_order
from coarseloc.imagery.mosaic_parts import MissingPart, missing_parts
from coarseloc.imagery.side_files import WORLD_FILES, contradiction_notices, declared_crs

RASTER_KINDS = "GeoTIFF, VRT, JPEG 2000, ERDAS IMAGINE, GeoPackage, MBTiles, or JPEG and PNG with a world file"
_DRIVERS = {
    None: "GTiff",  # a TIFF and unknown content; COG is GTiff
    "a PNG picture": "PNG",
    "a JPEG picture": "JPEG",
    "a JPEG 2000 image": "JP2OpenJPEG",
    "an ERDAS IMAGINE image (HFA)": "HFA",
    "a GeoPackage": "GPKG",
    "an SQLite file (MBTiles?)": "MBTiles",
}
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
_SHEETS = (".tif", ".tiff", ".jp2", ".img", ".png", ".jpg", ".jpeg")
_BESIDE = (".aux.xml", ".ovr")  # that GIS programs write, without a change of what is seen
_SAME_SIZE = 0.01  # of a pixel's side in two sheets: less is rounding
_SAME_PLACE = 0.9  # of two sheets' ground: more is a copy, or another year's
_CELLS = 512  # a side: where gaps and overlaps of sheets are counted
_SPARSE = 50  # times the sheets' own area that their common box may have
_SCATTERED = "the sheets of {} lie far apart: their common box has {:.0f} times their area. The farthest is {}: {}"


class RasterFiles(NamedTuple):
    """What GDAL opens as one raster."""

    name: str  # a path, or the XML of a VRT
    driver: str
    missing: tuple[MissingPart, ...] = ()
    notices: tuple[str, ...] = ()


def raster_files(path: Path, crs: str | None) -> RasterFiles:
    """Tell how a raster is opened. Raises InputError where the path is none, with what it is instead."""
    if path.is_dir():
        return _sheets(path, crs)
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a raster ({RASTER_KINDS}) or a folder of its sheets")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): expected a raster ({RASTER_KINDS})")
    if path.suffix.lower() == ".vrt":
        xml, missing = missing_parts(path)
        return RasterFiles(xml, "VRT", missing)
    return RasterFiles(str(path), driver_of(path))


def driver_of(path: Path) -> str:
    """GDAL's driver for a file, by its first bytes: no other is tried on a file of unknown content."""
    kind = foreign_kind(path)
    if kind not in _DRIVERS:
        raise InputError(f"{path} is {kind}: expected a raster ({RASTER_KINDS}). {conversion_advice(path, str(kind))}")
    return _DRIVERS[kind]


def open_raster(name: str, driver: str) -> DatasetReader:
    """Open a path, or a VRT's XML. Raises InputError where the file holds several rasters, or none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `Raster` says it better
        dataset = rasterio.open(name, driver=driver)
    if dataset.count == 0:
        tables = [table.rpartition(":")[2] for table in dataset.subdatasets]
        dataset.close()
        tail = (
            f"{len(tables)} rasters ({', '.join(tables[:5])}): write one of them out (gdal_translate -of GTiff "
            f"{driver}:{name}:{tables[0]} {tables[0]}.tif)"
            if tables
            else "no raster (vectors alone?)"
        )
        raise InputError(f"{name} holds {tail}")
    return dataset


def files_state(path: Path, dataset: DatasetReader) -> str:
    """Sizes and times of change of all files that a raster is read from: of a single one as `size:mtime_ns`."""
    status = path.stat()
    state = [] if path.is_dir() else [f"{status.st_size}:{status.st_mtime_ns}"]
    for part in sorted(set(dataset.files)):
        file = Path(part)
        if not part.endswith(_BESIDE) and file.is_file() and not file.samefile(path):
            status = file.stat()
            state.append(f"{status.st_size}:{status.st_mtime_ns}")
    return ",".join(state)


# --- a folder of sheets --------------------------------------------------------------------------


class _Sheet(NamedTuple):
    path: Path
    driver: str
    crs: CRS | None
    left: float
    top: float
    pixel_x: float
    pixel_y: float  # downwards, above 0
    width: int
    height: int
    types: tuple[str, ...]
    meanings: tuple[ColorInterp, ...]
    descriptions: tuple[str | None, ...]
    is_masked: bool
    false_alpha: str  # why its band called alpha is none
    is_min_white: bool

    @property
    def right(self) -> float:
        return self.left + self.width * self.pixel_x

    @property
    def bottom(self) -> float:
        return self.top - self.height * self.pixel_y

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def _sheets(folder: Path, crs: str | None) -> RasterFiles:
    entries = [path for path in folder.iterdir() if path.suffix.lower() in _SHEETS and not path.name.startswith(".")]
    paths = [path for path in entries if path.is_file()]
    paths.sort(key=lambda path: natural_order(path.name))
    if not paths:
        raise InputError(f"{folder} is a folder without rasters: expected sheets ({', '.join(_SHEETS)}) in it")
    notices: dict[str, None] = {}
    sheets = [_sheet(path, notices) for path in paths]
    _check_alike(folder, sheets, crs is not None)
    doubted = next((sheet for sheet in sheets if sheet.false_alpha), None)
    if doubted:
        notices.setdefault(
            f"{folder.name}: its sheets' band called alpha is not taken as such: in {doubted.path.name} "
            f"{doubted.false_alpha}"
        )
        sheets = [sheet._replace(is_masked=False) for sheet in sheets]
    box = _common_box(folder, sheets)
    return RasterFiles(_mosaic(sheets, box), "VRT", (), (*_sheet_notices(folder, sheets, box), *notices))


def _sheet(path: Path, notices: dict[str, None]) -> _Sheet:
    driver = driver_of(path)
    with _readable(path), open_raster(str(path), driver) as dataset:
        crs, notice = declared_crs(dataset, path)
        if notice:
            notices.setdefault(f"{notice}, and so are other sheets'" if notices else notice)
        for contradiction in contradiction_notices(dataset, path)[: not notices]:
            notices.setdefault(contradiction)
        to_crs = dataset.transform
        if to_crs.is_identity:
            world = WORLD_FILES.get(driver, "wld")
            raise InputError(
                f"{path} says nothing of where it lies: expected each file of a folder of sheets to be georeferenced, "
                f"or beside its world file ({path.stem}.{world}). Move other pictures away"
            )
        if to_crs.b or to_crs.d or to_crs.a <= 0 or to_crs.e >= 0:
            raise InputError(f"{path} is turned or upside down, as sheets of one map are not: gdalwarp it first")
        flags = {flag for band in dataset.mask_flag_enums for flag in band}
        return _Sheet(
            path, driver, crs, to_crs.c, to_crs.f, to_crs.a, -to_crs.e, dataset.width, dataset.height,
            dataset.dtypes, dataset.colorinterp, dataset.descriptions, flags != {MaskFlags.all_valid},
            _doubted_alpha(dataset),
            dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE", "").upper() == "YES",
        )  # fmt: skip


def _doubted_alpha(dataset: DatasetReader) -> str:
    if ColorInterp.alpha not in dataset.colorinterp:
        return ""
    band = dataset.colorinterp.index(ColorInterp.alpha) + 1
    shape = tuple(min(side, _CELLS) for side in dataset.shape)
    return false_alpha(dataset, dataset.read(band, out_shape=shape), band) or ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # see raster._gdal
        raise InputError(f"{path} cannot be read: {error}. Is the file whole? Move it away to go without") from error


def _check_alike(folder: Path, sheets: Sequence[_Sheet], is_crs_given: bool) -> None:
    systems = Counter("none" if sheet.crs is None else sheet.crs.to_string()[:60] for sheet in sheets)
    if len(systems) > 1 and not is_crs_given:
        (main, _), *minor = systems.most_common()
        odd = next(s for s in sheets if ("none" if s.crs is None else s.crs.to_string()[:60]) == minor[0][0])
        counts = ", ".join(f"{count} in {name}" for name, count in systems.most_common())
        raise InputError(
            f"the {len(sheets)} sheets of {folder} do not share one CRS ({counts}; first other {odd.path.name}): warp "
            f"the others (gdalwarp -t_srs {main} {odd.path.name} …), ingest them from a folder of their own, or say "
            "by --crs what all of them are"
        )
    properties: dict[str, list[Hashable]] = {
        "bands": [(sheet.types, sheet.meanings) for sheet in sheets],
        "tones (min-is-white)": [sheet.is_min_white for sheet in sheets],
    }
    for trait, values in properties.items():
        (main, _), *minor = Counter(values).most_common()
        if minor:
            usual, odd = sheets[values.index(main)], sheets[values.index(minor[0][0])]
            raise InputError(
                f"the sheets of {folder} differ in their {trait}: {odd.path.name} has {_bands(odd)}, {usual.path.name} "
                f"{_bands(usual)}. Ingest them from folders of their own"
            )


def _bands(sheet: _Sheet) -> str:
    return ", ".join(f"{meaning.name} ({dtype})" for meaning, dtype in zip(sheet.meanings, sheet.types, strict=True))


def _common_box(folder: Path, sheets: Sequence[_Sheet]) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) around all sheets."""
    box = (
        min(sheet.left for sheet in sheets),
        min(sheet.bottom for sheet in sheets),
        max(sheet.right for sheet in sheets),
        max(sheet.top for sheet in sheets),
    )
    times = (box[2] - box[0]) * (box[3] - box[1]) / sum(sheet.area for sheet in sheets)
    if times > _SPARSE:
        x = np.array([(sheet.left + sheet.right) / 2 for sheet in sheets])
        y = np.array([(sheet.top + sheet.bottom) / 2 for sheet in sheets])
        farthest = int(np.hypot(x - np.median(x), y - np.median(y)).argmax())
        advice = "ingest areas from folders of their own, and see whether its world file is right"
        raise InputError(_SCATTERED.format(folder, times, sheets[farthest].path.name, advice))
    return box


def _sheet_notices(folder: Path, sheets: Sequence[_Sheet], box: tuple[float, float, float, float]) -> list[str]:
    covers = _covers(sheets, box)
    text = f"{folder.name}: its {len(sheets)} sheets are taken as one map"
    if (covers == 0).any():
        text += f"; {(covers == 0).mean():.1%} of their box is on none of them (no ground)"
    if (covers > 1).any():
        text += f"; {(covers > 1).mean():.1%} on several (of these the last by name is seen)"
    notices = [text]
    for index, sheet in enumerate(sheets):
        copy = next((twin for twin in sheets[:index] if _shared(sheet, twin) > _SAME_PLACE), None)
        if copy:
            notices.append(
                f"{copy.path.name} and {sheet.path.name} show the same ground: {sheet.path.name} is seen. Are they two "
                "years' or a copy?"
            )
            break
    sizes = [sheet.pixel_x for sheet in sheets]
    if max(sizes) > min(sizes) * (1 + _SAME_SIZE):
        notices.append(
            f"{folder.name}: its sheets' pixels have sides of {min(sizes):.6g} to {max(sizes):.6g}: all are brought to "
            f"{min(sizes):.6g}"
        )
    return notices


def _covers(sheets: Sequence[_Sheet], box: tuple[float, float, float, float]) -> NDArray[np.int32]:
    """How many sheets cover each cell of their box, int32 [_CELLS, _CELLS]."""
    covers = np.zeros((_CELLS, _CELLS), np.int32)
    x = box[0] + (np.arange(_CELLS) + 0.5) / _CELLS * (box[2] - box[0])
    y = box[3] - (np.arange(_CELLS) + 0.5) / _CELLS * (box[3] - box[1])
    for sheet in sheets:
        covers += ((y < sheet.top) & (y > sheet.bottom))[:, None] & ((x > sheet.left) & (x < sheet.right))
    return covers


def _shared(a: _Sheet, b: _Sheet) -> float:
    """The share of the smaller sheet that is on the other too."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.top, b.top) - max(a.bottom, b.bottom)
    return max(width, 0.0) * max(height, 0.0) / min(a.area, b.area)


def _mosaic(sheets: Sequence[_Sheet], box: tuple[float, float, float, float]) -> str:
    """The XML of a VRT over all sheets, with a mask that is 0 in gaps and where a sheet holds no ground."""
    first = sheets[0]
    pixel_x, pixel_y = min(sheet.pixel_x for sheet in sheets), min(sheet.pixel_y for sheet in sheets)
    size = round((box[2] - box[0]) / pixel_x), round((box[3] - box[1]) / pixel_y)
    root = ElementTree.Element("VRTDataset", rasterXSize=str(size[0]), rasterYSize=str(size[1]))
    if first.crs is not None:
        _text(root, "SRS", first.crs.to_wkt())
    _text(root, "GeoTransform", f"{box[0]!r}, {pixel_x!r}, 0, {box[3]!r}, 0, {-pixel_y!r}")
    if first.is_min_white:
        structure = ElementTree.SubElement(root, "Metadata", domain="IMAGE_STRUCTURE")
        _text(structure, "MDI", "YES", key="MINISWHITE")
    is_palette = first.meanings[0] == ColorInterp.palette
    bands = [1, 2, 3] if is_palette else [i for i, m in enumerate(first.meanings, 1) if m != ColorInterp.alpha]
    for number, band in enumerate(bands, 1):
        dtype = "uint8" if is_palette else first.types[band - 1]
        element = ElementTree.SubElement(root, "VRTRasterBand", dataType=_GDAL_TYPES[dtype], band=str(number))
        meaning = (
            (ColorInterp.red, ColorInterp.green, ColorInterp.blue)[band - 1] if is_palette else first.meanings[band - 1]
        )
        _text(element, "ColorInterp", meaning.name.capitalize())
        if not is_palette and (description := first.descriptions[band - 1]):
            _text(element, "Description", description)
        for sheet in sheets:
            source = _source(element, sheet, str(1 if is_palette else band), box, (pixel_x, pixel_y))
            if is_palette:
                _text(source, "ColorTableComponent", str(band))
            if sheet.is_masked:
                _text(source, "UseMaskBand", "true")
    if not any(sheet.is_masked for sheet in sheets) and _covers(sheets, box).min() > 0:
        return ElementTree.tostring(root, encoding="unicode")
    mask = ElementTree.SubElement(ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
    for sheet in sheets:
        source = _source(mask, sheet, "mask,1" if sheet.is_masked else "1", box, (pixel_x, pixel_y))
        if sheet.is_masked:
            _text(source, "NODATA", "0")  # one sheet's collar hides no other's ground
        else:
            _text(source, "ScaleOffset", "255")
            _text(source, "ScaleRatio", "0")
    return ElementTree.tostring(root, encoding="unicode")


def _source(
    band: ElementTree.Element,
    sheet: _Sheet,
    number: str,
    box: tuple[float, float, float, float],
    pixel: tuple[float, float],
) -> ElementTree.Element:
    source = ElementTree.SubElement(band, "ComplexSource", resampling="nearest")
    _text(source, "SourceFilename", str(sheet.path.resolve()), relativeToVRT="0")
    _text(source, "SourceBand", number)
    width, height = str(sheet.width), str(sheet.height)
    ElementTree.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    ElementTree.SubElement(
        source,
        "DstRect",
        xOff=repr((sheet.left - box[0]) / pixel[0]),
        yOff=repr((box[3] - sheet.top) / pixel[1]),
        xSize=repr(sheet.width * sheet.pixel_x / pixel[0]),
        ySize=repr(sheet.height * sheet.pixel_y / pixel[1]),
    )
    return source


def _text(parent: ElementTree.Element, tag: str, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, tag, attributes).text = text
