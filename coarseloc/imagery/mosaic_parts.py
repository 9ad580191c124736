"""The parts of a VRT mosaic that are not there: GDAL reads zeros in their place, and says so once at most."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from coarseloc.core.errors import InputError


class MissingPart(NamedTuple):
    """A file of a mosaic that cannot be opened, and the mosaic's pixels that it should fill."""

    path: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, left: float, top: float, right: float, bottom: float) -> bool:
        return self.left < right and left < self.right and self.top < bottom and top < self.bottom


def missing_parts(path: Path) -> tuple[str, tuple[MissingPart, ...]]:
    """(the mosaic's XML without the parts that cannot be opened, those parts); paths inside it absolute.

    Raises InputError where the file is no VRT.
    """
    try:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8-sig"))  # noqa: S314  (expat bounds its entities)
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a VRT: {error}. Is the file whole?") from error
    readable: dict[str, bool] = {}
    parts: dict[MissingPart, None] = {}
    for band in root.iter("VRTRasterBand"):
        for source, filename in list(_sources(band)):
            file = _absolute(path, filename)
            if file not in readable:
                readable[file] = _can_be_opened(file)
            if not readable[file]:
                parts[_part(source, file, root)] = None
                band.remove(source)
    for filename in root.iter("SourceFilename"):
        filename.text = _absolute(path, filename)
        filename.set("relativeToVRT", "0")
    return ElementTree.tostring(root, encoding="unicode"), tuple(parts)


def _sources(band: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    for source in band:
        filename = source.find("SourceFilename")
        if filename is not None and filename.text:
            yield source, filename


def _absolute(vrt: Path, filename: ElementTree.Element) -> str:
    text = (filename.text or "").strip()
    return str(vrt.resolve().parent / text) if filename.get("relativeToVRT") == "1" else text


def _can_be_opened(file: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            rasterio.open(file).close()
    except (RasterioError, OSError):
        return False
    return True


def _part(source: ElementTree.Element, file: str, root: ElementTree.Element) -> MissingPart:
    place = source.find("DstRect")
    if place is None:
        return MissingPart(file, 0, 0, float(root.get("rasterXSize", "inf")), float(root.get("rasterYSize", "inf")))
    left, top, width, height = (float(place.get(key, "nan")) for key in ("xOff", "yOff", "xSize", "ySize"))
    return MissingPart(file, left, top, left + width, top + height)
