"""Reference tiles cut on the fly out of an orthophoto, and any other view of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import ids, rotation, tiling
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine, RotatedView
from coarseloc.core.types import Failure, LonLat, ReferenceSet, Tile, View
from coarseloc.imagery.decode import blank_colour, content_digest
from coarseloc.imagery.file_names import resolve
from coarseloc.imagery.layout import MIN_GROUND, layout_tiles
from coarseloc.imagery.raster import Raster

MIN_TILE_PX, MAX_TILE_PX = 64, 1024

_DOUBTED = (
    "crs",
    "alpha_band",
    "ignores_alpha",
    "value_limits",
    "has_collar",
)  # parameters that are there where a file is doubted
_CUT_VERSION = 1  # raise it when the same parameters would give other pixels


class OrthophotoSource:
    """A TileSource that cuts its views out of one raster."""

    def __init__(
        self,
        reference_set: ReferenceSet,
        raster: Raster,
        tiles: Sequence[Tile],
        affines: NDArray[np.float64],
        side_px: int,
    ) -> None:
        """affines: float64 [tiles, 6], the maps from each tile's north-up pixels to the raster's."""
        self.reference_set = reference_set
        self.tiles = tiles
        self.failures: Sequence[Failure] = ()
        self.notices: Sequence[str] = raster.notices
        self.crs = raster.crs.to_string()[:120]  # an authority's code, or the beginning of its WKT
        self._raster = raster
        self._affines = {tile.index: row for tile, row in zip(tiles, affines, strict=True)}
        self._side_px = side_px
        self._fingerprint = _cut_fingerprint(raster, reference_set)

    def angles_of(self, tile: Tile) -> tuple[int, ...]:
        return self.reference_set.angles

    def source_fingerprint(self, tile: Tile, angle_deg: int) -> str:
        """Return the source's size and mtime, the cut's parameters and the place: another grid numbers otherwise."""
        return f"{self._fingerprint}:{tile.center.lon:.7f},{tile.center.lat:.7f}"

    def views(self, tile: Tile, angles: Sequence[int]) -> Iterator[View | Failure]:
        to_source = Affine(*self._affines[tile.index])
        try:
            views = self._raster.views(to_source, self._side_px, angles)
        except InputError as error:
            for angle in angles:
                yield Failure(f"tile {tile.index} at {angle:03d}", "read", "unreadable", str(error))
            return
        colour = blank_colour([view.pixels for view in views.values()])
        if colour is not None:
            message = f"tile {tile.index} is one colour {colour}: no ground is seen in it, so it is left out"
            yield Failure(f"tile {tile.index}", "read", "one-colour", message)
            return
        for angle in angles:
            pixels, ground = views[angle % 360]
            yield View(angle, pixels, content_digest(pixels), ground, None)


def open_orthophoto(
    path: Path,
    *,
    name: str | None = None,
    footprint_m: float | None = None,
    altitude_m: float | None = None,
    fov_deg: float | None = None,
    overlap: float = 0.5,
    angles: Sequence[int] = rotation.HEADINGS,
    tile_px: int | None = None,
    crs: str | None = None,
    border_is_ground: bool = False,
) -> OrthophotoSource:
    """Open a GeoTIFF in any CRS as reference tiles, upright by true north.

    A tile's side on the ground is `footprint_m`, or what `fov_deg` sees from `altitude_m` above ground; in
    pixels `tile_px`, or the source's own resolution within 64 … 1024. Tiles lie where the whole unturned
    footprint is inside the raster; those with less than half of ground are left out and counted
    (`parameters["outside"]`). crs: what the file's CRS is, such as EPSG:5174, where it says nothing, too little or
    another. border_is_ground: a border of one colour is ground, which it is not otherwise. What was chosen is in
    the source's `notices`. Raises InputError for a file that cannot be read or placed, and where no tile fits.
    """
    path = resolve(path)
    side_m = _footprint(footprint_m, altitude_m, fov_deg)
    headings = rotation.normalise_headings(angles)
    raster = Raster(path, crs, border_is_ground)
    gsd_m = raster.metres_per_pixel()
    side_px = _side_px(tile_px, side_m, gsd_m)
    tiles, affines, outside = layout_tiles(raster, side_m, overlap, side_px)
    if outside:
        raster.notices.append(
            f"{outside} of {outside + len(tiles)} places are left out: less than {MIN_GROUND:.0%} of each is ground"
        )
    parameters: dict[str, Any] = {
        "tile_px": side_px,
        "source_m_per_px": round(gsd_m, 6),
        "source_px": [raster.width, raster.height],
        "bands": list(raster.colours.bands),
        "stretch": list(raster.colours.stretch) if raster.colours.stretch else None,
        "fov_deg": fov_deg,
        "outside": outside,
    }
    limits = raster.value_limits
    doubts = {
        "crs": crs and crs.strip().upper(),
        "alpha_band": raster.alpha_band,
        "ignores_alpha": raster.ignores_alpha,
        "has_collar": raster.collar is not None,
        "border_is_ground": border_is_ground,
        "value_limits": limits and [limit if math.isfinite(limit) else None for limit in limits],
    }
    parameters |= {key: value for key, value in doubts.items() if value}
    size = f"{altitude_m:g}m" if altitude_m else f"w{side_m:g}m"
    set_name = name or f"{ids.set_name(path.stem)}-{size}-{round(overlap * 100, 3):g}"
    reference_set = ReferenceSet(set_name, "orthophoto", str(path), altitude_m, overlap, side_m, headings, parameters)
    return OrthophotoSource(reference_set, raster, tiles, affines, side_px)


def cut_view(source_path: Path, center: LonLat, footprint_m: float, heading_deg: float, side_px: int) -> RotatedView:
    """Cut one view of a GeoTIFF at any centre and heading: (uint8 [side, side, 3], ground_fraction).

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


# --- sizes --------------------------------------------------------------------------------------


def _footprint(footprint_m: float | None, altitude_m: float | None, fov_deg: float | None) -> float:
    if altitude_m is not None and not altitude_m > 0:
        raise InputError(f"altitude is {altitude_m} m: expected metres above ground, more than 0")
    if footprint_m is not None and fov_deg is not None:
        raise InputError("both a footprint and a field of view are given: give the one or the other")
    if footprint_m is not None:
        return float(tiling.check_footprint(footprint_m))  # 400 and 400.0 are one cut
    if altitude_m is None or fov_deg is None:
        raise InputError("the size of a tile is not given: give a footprint, or an altitude and a field of view")
    return tiling.footprint_from_fov(altitude_m, fov_deg)


def _side_px(tile_px: int | None, footprint_m: float, gsd_m: float) -> int:
    if footprint_m < 8 * gsd_m:
        raise InputError(
            f"a footprint of {footprint_m:g} m is {footprint_m / gsd_m:.1f} pixels of this raster "
            f"({gsd_m:g} m a pixel): expected at least 8"
        )
    if tile_px is None:
        return min(max(round(footprint_m / gsd_m), MIN_TILE_PX), MAX_TILE_PX)
    if not 16 <= tile_px <= 4096:
        raise InputError(f"a tile of {tile_px} px: expected 16 … 4096")
    return tile_px


def _cut_fingerprint(raster: Raster, reference_set: ReferenceSet) -> str:
    """Digest what decides a tile's pixels beside its place: the file, and how it is cut."""
    keys = ("tile_px", "bands", "stretch")
    cut = {key: reference_set.parameters[key] for key in keys}
    cut |= {key: reference_set.parameters[key] for key in _DOUBTED if key in reference_set.parameters}
    cut |= {"footprint_m": reference_set.footprint_m, "version": _CUT_VERSION}
    return f"{raster.files_state}:{ids.digest(cut)[:16]}"
