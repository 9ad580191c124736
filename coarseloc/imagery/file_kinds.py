"""What a file is by its first bytes, for refusals that say so."""

from __future__ import annotations

from pathlib import Path

_HEAD_BYTES = 4096
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"EHFA_HEADER_TAG", "an ERDAS IMAGINE image (HFA)"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"msid", "a MrSID image"),
    (b"NITF", "a NITF image"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 or netCDF file"),
    (b"CDF\x01", "a netCDF file"),
    (b"CDF\x02", "a netCDF file"),
    (b"%PDF", "a PDF document"),
    (b"LASF", "a LAS or LAZ point cloud"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<VRTDataset", "a GDAL VRT"),
)
_PICTURES = ("a PNG picture", "a JPEG picture", "a GIF picture", "a BMP picture", "a WebP picture")


def foreign_kind(path: Path) -> str | None:
    """What a file is that is no TIFF, such as "a PNG picture"; None for a TIFF and for unknown content."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_TIFF):
        return None
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head.startswith(b"SQLite format 3\0"):
        # Both are SQLite; a GeoPackage's application id lies at byte 68.
        return "a GeoPackage" if head[68:72] in (b"GPKG", b"GP10", b"GP11") else "an SQLite file (MBTiles?)"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps of a download that was refused"
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def conversion_advice(path: Path, kind: str) -> str:
    """How a file of this kind becomes a GeoTIFF."""
    if kind.endswith("archive"):
        return "Unpack it and give the GeoTIFF in it."
    if any(word in kind for word in ("point cloud", "pointer", "HTML")):
        return "Give the orthophoto itself."
    if kind == "a GDAL VRT":
        return "Name it *.vrt."
    place = ""
    if kind in _PICTURES:
        place = " -a_srs EPSG:… (it holds no CRS; its world file, if there is one, gives the place)"
    return f"Convert it: gdal_translate -of GTiff{place} {path.name} {path.stem}.tif"
