"""Reference tiles cut on the fly out of an orthophoto, and any other view of it."""

from __future__ import annotations

import functools
from pathlib import Path

from coarseloc.errors import InputError
from coarseloc.imagery.raster import Raster
from coarseloc.rotation import Turned
from coarseloc.types import LonLat


def cut_view(source_path: Path, center: LonLat, footprint_m: float, heading_deg: float, side_px: int) -> Turned:
    """One view of a GeoTIFF at any centre and heading: (uint8 [side, side, 3], ground_fraction).

    Black where the source ends; ground_fraction is 0.0 off it. Safe to call from threads; the file stays
    open between calls. Raises InputError for a file that cannot be read or placed, or an impossible size.
    """
    if not footprint_m > 0 or side_px < 1:
        raise InputError(f"a view of {footprint_m} m in {side_px} px: expected both above 0")
    status = source_path.stat() if source_path.exists() else None
    raster = _raster(source_path, status and (status.st_size, status.st_mtime_ns))
    return raster.view(center, footprint_m, heading_deg, side_px)


@functools.lru_cache(maxsize=4)
def _raster(path: Path, _version: tuple[int, int] | None) -> Raster:
    return Raster(path)
