"""A georeferenced raster that gives north-up or turned views of any place in it, from any thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFilter
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from coarseloc.core import geo, rotation
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine, RotatedView
from coarseloc.core.types import LonLat, UInt8
from coarseloc.imagery.bands import (
    alpha_full,
    choose_bands,
    false_alpha,
    odd_value_limits,
    undeclared_alpha,
    value_range,
)
from coarseloc.imagery.collars import Colour, blank, edge_colour, from_border, is_border_colour
from coarseloc.imagery.datum import Axes, check_area, check_datum, chosen_crs
from coarseloc.imagery.mosaic_parts import MissingPart
from coarseloc.imagery.raster_files import files_state, open_raster, raster_files
from coarseloc.imagery.side_files import WORLD_FILES, contradiction_notices, declared_crs

Bool = NDArray[np.bool_]
_ORIGIN_M = 20_000.0  # around a grid's origin, which grids have far outside the land that they are for
_NULL_DEG = 0.5  # around latitude 0, longitude 0 is sea alone
Float64 = NDArray[np.float64]

_OVERVIEW_PX = 1024
_SPECK_PX = 5
_COLLAR_EDGE = 0.02  # of the outermost pixels, which are black or white where there is a collar
_COLLAR_SHARE = 0.05  # of a raster: less may be a bright roof, a beach or a shadow at its edge
_LARGE_PICTURE_PX = 25_000_000


class Raster:
    """One raster file, checked when opened. Each thread reads through a handle of its own: GDAL's are not
    to be shared. Raises InputError where the file cannot be read or placed on the Earth."""

    def __init__(self, path: Path, crs: str | None = None, border_is_ground: bool = False) -> None:
        """crs: what the user says that its CRS is, such as EPSG:5174; the file's own by default. border_is_ground:
        a border of one colour is ground all the same."""
        self.path = path
        self._handles = threading.local()
        self._files = raster_files(path, crs)
        self._missing_parts = self._files.missing
        with _gdal(path):
            dataset = self._dataset
            self.width, self.height = dataset.width, dataset.height
            declared, crs_notice = declared_crs(dataset, path)
            self.crs = _check_placed(
                path, dataset, CRS.from_wkt(chosen_crs(crs)) if crs else declared, self._files.driver
            )
            self.files_state = files_state(path, dataset)
            self._to_crs = Affine(*tuple(dataset.transform)[:6])
            self._to_pixel = Affine(*tuple(~dataset.transform)[:6])
            self._middle_lon = _middle_of_wide_longitudes(self._to_crs, self.width, self.height, self.crs)
        self.notices = [*self._files.notices, *_missing_notices(path, self._missing_parts)]
        if crs_notice and not crs:
            self.notices.append(crs_notice)
        if not path.is_dir():
            self.notices += contradiction_notices(dataset, path)
        self.notices += _page_notices(path, dataset)
        self.notices += _slow_notices(path, dataset)
        self.notices += self._check_place(None if crs is None else crs.strip().upper(), declared)
        with _gdal(path):
            self.colours, band_notices = choose_bands(dataset, path.name)
            self.notices += band_notices
            dtype = np.dtype(dataset.dtypes[self.colours.bands[0] - 1])
            flags = {flag for band in dataset.mask_flag_enums for flag in band}
        self._has_mask = flags != {MaskFlags.all_valid}
        self._has_specks = MaskFlags.nodata in flags
        self._is_float = np.issubdtype(dtype, np.floating)
        self.alpha_band: int | None = None  # read as the mask where the file does not say so
        self.alpha_full: int | None = None  # where that is not the highest value of its type
        self.ignores_alpha = False
        self.value_limits: tuple[float, float] | None = None  # outside of them lies nodata that is not declared
        self._doubt_alpha(MaskFlags.alpha in flags)
        self.collar: Bool | None = None  # a small copy of where its border is of one colour
        self.collar_colour: Colour | None = None  # beside black and white
        if not border_is_ground and self.colours.palette is None:
            self._find_collar()
        if dtype != np.uint8 and self.colours.palette is None:
            self._choose_stretch()

    def _doubt_alpha(self, is_declared: bool) -> None:
        """See whether what is called alpha is, and whether the last band is alpha without being called so."""
        dataset = self._dataset
        if not is_declared and (self._has_mask or dataset.count not in (2, 4)):
            return
        window, shape = self._overview()
        with _gdal(self.path):
            values = dataset.read(window=window, out_shape=(dataset.count, *shape), resampling=Resampling.nearest)
            if is_declared:
                band = list(dataset.colorinterp).index(ColorInterp.alpha) + 1
                reason = false_alpha(dataset, values[band - 1], band)
                if reason:
                    self._has_mask, self.ignores_alpha = False, True
                    self.notices.append(
                        f"{self.path.name}: band {band} is called alpha and is not taken as such: {reason}"
                    )
                elif full := alpha_full(values[band - 1]):
                    self.alpha_band, self.alpha_full = band, full
                    self.notices.append(f"{self.path.name}: its alpha reaches {full}, which is taken as full")
                return
            self.alpha_band = undeclared_alpha(dataset, self.colours.bands, values)
        if self.alpha_band:
            self._has_mask = True
            self.notices.append(
                f"{self.path.name}: band {self.alpha_band} is taken as alpha, though it is not called so: it is 0 "
                "where the colours are blank, and full elsewhere"
            )

    def _find_collar(self) -> None:
        edge, mask = self._outermost_pixels()
        colour = edge_colour(edge[:, mask])
        if colour is None and self._blank_share(edge, mask, None) < _COLLAR_EDGE:
            return
        window, shape = self._overview()
        values, valid = self._read(window, shape, Resampling.nearest)
        usable = ~self._missing_cells(shape) if valid is None else valid & ~self._missing_cells(shape)
        if colour is not None and (self._is_odd(colour, values, valid) or not is_border_colour(values, usable, colour)):
            colour = None
        if self._blank_share(edge, mask, colour) < _COLLAR_EDGE:
            return
        empty = blank(values, colour) & ~self._missing_cells(shape)
        reached = from_border(empty if valid is None else empty | ~valid)
        collar = reached & empty & usable
        if collar.mean() < _COLLAR_SHARE:
            return
        self.collar_colour = colour
        self.collar = np.asarray(Image.fromarray(reached).convert("L").filter(ImageFilter.MaxFilter(3))) > 0
        kind = "black or white" if colour is None else f"one-coloured ({', '.join(f'{value:g}' for value in colour)})"
        self.notices.append(
            f"{self.path.name}: {collar.mean():.1%} of it is a {kind} border, which the file does not declare "
            "as nodata: taken as no ground. --border-is-ground takes it as ground"
        )

    def _outermost_pixels(self) -> tuple[NDArray[Any], Bool]:
        """(the raster's four edges [B, N], bool [N] where these are ground by its mask)."""
        wide, high = min(self.width, _OVERVIEW_PX), min(self.height, _OVERVIEW_PX)
        edges = [
            self._read(window, shape, Resampling.nearest)
            for window, shape in (
                (Window(0, 0, self.width, 1), (1, wide)),
                (Window(0, self.height - 1, self.width, 1), (1, wide)),
                (Window(0, 0, 1, self.height), (high, 1)),
                (Window(self.width - 1, 0, 1, self.height), (high, 1)),
            )
        ]
        masks = [np.ones(values[0].size, np.bool_) if valid is None else valid.ravel() for values, valid in edges]
        return np.concatenate([values.reshape(len(values), -1) for values, _ in edges], axis=1), np.concatenate(masks)

    @staticmethod
    def _blank_share(edge: NDArray[Any], seen: Bool, colour: Colour | None) -> float:
        """The share of the outermost pixels that are black, white or of a colour, or no ground."""
        return float((blank(edge[:, None], colour)[0] | ~seen).mean())

    @staticmethod
    def _is_odd(colour: Colour, values: NDArray[Any], valid: Bool | None) -> bool:
        """Whether a border's colour is an odd value, which is nodata wherever it is."""
        limits = None if values.dtype == np.uint8 else odd_value_limits(values, valid)
        return limits is not None and not bool(_all_within(limits, colour))

    def _choose_stretch(self) -> None:
        values, valid = self._read(*self._overview(), Resampling.nearest)
        name, limits = self.path.name, odd_value_limits(values, valid)
        if limits is not None:
            self.value_limits = limits
            inside = self._within_limits(values)
            odd = values[:, ~inside]
            self.notices.append(
                f"{name}: {(~inside).mean():.1%} of its pixels hold {np.nanmin(odd):g} … {np.nanmax(odd):g}, far off "
                "all others: taken as nodata, which the file does not declare"
            )
            valid = inside if valid is None else valid & inside
        low, high = value_range(values, valid)
        self.notices.append(f"{name}: its values {low:g} … {high:g} (0.5 to 99.5 % of them) are stretched to 0 … 255")
        is_white = self.colours.is_min_white
        self.colours = replace(self.colours, stretch=(high, low) if is_white else (low, high))

    def _within_limits(self, values: NDArray[Any]) -> Bool:
        return _all_within(self.value_limits or (-np.inf, np.inf), values)

    def __getstate__(self) -> dict[str, Any]:
        """Sent to another process, it opens handles of its own there."""
        return {name: value for name, value in vars(self).items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._handles = threading.local()

    # --- places and pixels -----------------------------------------------------------------------

    def pixels_of(self, lon: ArrayLike, lat: ArrayLike) -> tuple[Float64, Float64]:
        """WGS84 degrees → continuous pixel coordinates (x, y), same shape; inf where it has no image."""
        lons, lats = np.asarray(lon, float), np.asarray(lat, float)
        if lons.size == 0:
            return lons, lats
        with _gdal(self.path):
            xs, ys = rasterio.warp.transform("EPSG:4326", self.crs, lons.ravel(), lats.ravel())
        if self._middle_lon is not None:
            xs = self._middle_lon + (np.asarray(xs) - self._middle_lon + 180) % 360 - 180
        return _apply(self._to_pixel, np.reshape(xs, lons.shape), np.reshape(ys, lons.shape))

    def positions_of(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
        """Continuous pixel coordinates → WGS84 degrees (lon, lat), same shape."""
        xs, ys = _apply(self._to_crs, np.asarray(x, float), np.asarray(y, float))
        if self._middle_lon is not None:
            xs = _wrapped(xs)
        with _gdal(self.path):
            lons, lats = rasterio.warp.transform(self.crs, "EPSG:4326", xs.ravel(), ys.ravel())
        return np.reshape(lons, xs.shape), np.reshape(lats, xs.shape)

    def affines(self, centres: Sequence[LonLat] | Float64, footprint_m: float, side_px: int) -> Float64:
        """float64 [N, 6]: for each centre the map from its north-up view's pixels to this raster's, an Affine
        fitted to nine points.

        The points are laid in metres east and north, so the view's top is true north whatever the raster's
        projection, grid convergence, rotation or pixel shape.
        """
        u, v = (part.ravel() for part in np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]))
        east, north = (u - 0.5) * footprint_m, (0.5 - v) * footprint_m
        lon, lat = np.asarray(centres, float).reshape(-1, 2, 1).swapaxes(0, 1)  # [N, 1] each
        per_lon, per_lat = geo.degree_lengths(lat)
        x, y = self.pixels_of((lon + east / per_lon + 180) % 360 - 180, lat + north / per_lat)
        solve = np.linalg.pinv(np.stack([u * side_px, v * side_px, np.ones_like(u)], axis=1))
        return np.concatenate([x @ solve.T, y @ solve.T], axis=1)

    def metres_per_pixel(self) -> float:
        """Ground size of a pixel in the raster's middle: the side of a square of equal area."""
        lon, lat = self.positions_of([self.width / 2], [self.height / 2])
        to_pixel = Affine(*self.affines([LonLat(float(lon[0]), float(lat[0]))], 1.0, 1)[0])
        return float(1 / np.sqrt(abs(to_pixel.a * to_pixel.e - to_pixel.b * to_pixel.d)))

    def _check_place(self, code: str | None, declared: CRS | None) -> list[str]:
        """Notices of the CRS and of where the raster lies by it; raises InputError where it is not tied to WGS84."""
        name, wkt = self.path.name, self.crs.to_wkt(version="WKT2_2019")
        x, y = (float(value) for value in self._to_crs(self.width / 2, self.height / 2))
        try:
            lon, lat = (float(value) for value in self.positions_of(self.width / 2, self.height / 2))
        except InputError:
            raise InputError(
                f"{name}: its middle {x:.6g}, {y:.6g} lies nowhere in its CRS {self.crs.to_string()[:60]}: is that the "
                "right one, and its unit (millimetres, feet)? --crs EPSG:… gives another"
            ) from None
        notices = []
        corners = [self._to_crs(column, row) for column in (0, self.width) for row in (0, self.height)]
        if self.crs.is_projected and np.abs(corners).max() < _ORIGIN_M:
            notices.append(
                f"{name} lies at the origin of its grid, {x:.6g}, {y:.6g}, which is {lat:.4f}, {lon:.4f}: was its "
                "georeference lost, or is it a local grid?"
            )
        if code and declared is not None and declared != self.crs:
            notices.append(f"{name} declares {declared.to_string()[:80]}: taken as {code}, as --crs says")
        if self._middle_lon is not None:
            notices.append(f"{name}: its longitudes run beyond 180, as from 0 to 360: {x:.4f} is taken as {lon:.4f}")
        elif self.crs.is_geographic:
            x, y = lon, lat
        middle = LonLat(lon, lat)
        if max(abs(lon), abs(lat)) < _NULL_DEG:
            notices.append(
                f"{name} lies at {lat:.4f}, {lon:.4f}, at sea where latitude and longitude are 0: was its "
                "georeference lost?"
            )
        return notices + check_datum(name, wkt, middle) + check_area(name, wkt, middle, Axes(x, y))

    # --- reading ---------------------------------------------------------------------------------

    def views(self, to_source: Affine, side_px: int, angles: Iterable[int]) -> dict[int, RotatedView]:
        """One read of the window that all `angles` need; see rotation.affine_views."""
        headings = rotation.normalise_headings(angles)
        reading = self._read_for_view(to_source, side_px, headings)
        if reading is None:
            return {angle: _black_view(side_px) for angle in headings}
        window, valid, to_window = reading
        return rotation.affine_views(window, to_window, side_px, headings, valid)

    def view(self, center: LonLat, footprint_m: float, heading_deg: float, side_px: int) -> RotatedView:
        """What is seen of `footprint_m` metres around any centre at any heading."""
        to_source = Affine(*self.affines([center], footprint_m, side_px)[0].tolist())
        reading = self._read_for_view(to_source, side_px, [heading_deg])
        if reading is None:
            return _black_view(side_px)
        window, valid, to_window = reading
        return rotation.affine_view(window, to_window, side_px, heading_deg, valid)

    def window(self, to_source: Affine, side_px: int) -> tuple[UInt8, Bool | None, Affine] | None:
        """What a north-up view of `side_px` pixels needs, at its resolution: (pixels uint8 [H, W, 3], where they are
        ground bool [H, W] or None for all, the view's pixels → these); None off the raster."""
        return self._read_for_view(to_source, side_px, [0.0])

    def ground_mask(self) -> Bool | None:
        """A small bool copy [h, w] of where the raster holds ground, or None where all of it does."""
        whole, shape = self._overview()
        mask = (
            self._read(whole, shape, Resampling.nearest)[1]
            if self._is_float or self.value_limits or self.collar is not None
            else self._mask(whole, shape)
        )
        if mask is not None:
            mask |= self._missing_cells(shape)  # ground all the same: its tiles are told of, one by one
        return mask

    def _missing_cells(self, shape: tuple[int, int]) -> Bool:
        """Where in a small copy of the raster parts of a VRT are missing."""
        cells = np.zeros(shape, np.bool_)
        scale_x, scale_y = shape[1] / self.width, shape[0] / self.height
        for part in self._missing_parts:
            rows = slice(int(part.top * scale_y), math.ceil(part.bottom * scale_y))
            cells[rows, int(part.left * scale_x) : math.ceil(part.right * scale_x)] = True
        return cells

    def _read_for_view(
        self, to_source: Affine, side_px: int, headings: Iterable[float]
    ) -> tuple[UInt8, Bool | None, Affine] | None:
        """(window uint8 [H, W, 3], its valid mask, view pixels → window pixels), or None off the raster.

        Where the raster is finer than the view, the window is read smaller by averaging: Pillow's bicubic
        samples, it does not average.
        """
        scale_x = max(1.0, float(np.hypot(to_source.a, to_source.b)))  # raster pixels per view pixel
        scale_y = max(1.0, float(np.hypot(to_source.d, to_source.e)))
        bounds = rotation.source_bounds(to_source, side_px, headings)
        if not np.isfinite(bounds).all():
            return None
        left, top = int(bounds[0] - 2 * scale_x), int(bounds[1] - 2 * scale_y)  # 2: the reach of bicubic
        right, bottom = int(bounds[2] + 2 * scale_x) + 1, int(bounds[3] + 2 * scale_y) + 1
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, self.width), min(bottom, self.height)
        if left >= right or top >= bottom:
            return None
        width, height = max(1, round((right - left) / scale_x)), max(1, round((bottom - top) / scale_y))
        for part in self._missing_parts:
            if part.meets(left, top, right, bottom):
                raise InputError(f"a part of {self.path.name} that lies here cannot be opened: {part.path}")
        values, valid = self._read(Window(left, top, right - left, bottom - top), (height, width))
        fx, fy = width / (right - left), height / (bottom - top)
        to_window = Affine(fx, 0.0, -left * fx, 0.0, fy, -top * fy)
        return self.colours.rgb(values), valid, to_window.after(to_source)

    def _read(
        self, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.average
    ) -> tuple[NDArray[Any], Bool | None]:
        """([B, h, w] of the raster's own type, bool [h, w] or None where all is ground)."""
        if self.colours.palette is not None:
            resampling = Resampling.nearest  # there is no mean of two numbers of colours
        bands = list(self.colours.bands)
        with _gdal(self.path):
            values = self._dataset.read(bands, window=window, out_shape=(len(bands), *shape), resampling=resampling)
        valid = self._mask(window, shape)
        if self._is_float and not np.isfinite(values).all():
            finite = np.isfinite(values).all(axis=0)
            valid = finite if valid is None else valid & finite
        if self.value_limits is not None:
            inside = self._within_limits(values)
            if not inside.all():
                valid = inside if valid is None else valid & inside
        if self.collar is not None:
            ground = ~(blank(values, self.collar_colour) & self._on_collar(window, shape))
            if not ground.all():
                valid = ground if valid is None else valid & ground
        return values, valid

    def _on_collar(self, window: Window, shape: tuple[int, int]) -> Bool:
        collar = self.collar if self.collar is not None else np.zeros((1, 1), np.bool_)
        rows = window.row_off + (np.arange(shape[0]) + 0.5) * window.height / shape[0]
        columns = window.col_off + (np.arange(shape[1]) + 0.5) * window.width / shape[1]
        row = (rows * collar.shape[0] / self.height).astype(int).clip(0, collar.shape[0] - 1)
        column = (columns * collar.shape[1] / self.width).astype(int).clip(0, collar.shape[1] - 1)
        return np.asarray(collar[row[:, None], column])

    def _mask(self, window: Window, shape: tuple[int, int]) -> Bool | None:
        if not self._has_mask:
            return None
        with _gdal(self.path):
            if self.alpha_band:
                alpha = self._dataset.read(self.alpha_band, window=window, out_shape=shape)
                valid: Bool = alpha > (self.alpha_full or np.iinfo(alpha.dtype).max) // 2
            else:
                valid = self._dataset.dataset_mask(window=window, out_shape=shape) >= 128
        if self._has_specks and not valid.all():
            valid = _fill_specks(valid)
        return None if valid.all() else valid

    @property
    def _dataset(self) -> DatasetReader:
        if not hasattr(self._handles, "dataset"):
            self._handles.dataset = open_raster(self._files.name, self._files.driver)
        dataset: DatasetReader = self._handles.dataset
        return dataset

    def _overview(self) -> tuple[Window, tuple[int, int]]:
        """The whole raster, and the shape of a small copy of it."""
        factor = max(1.0, max(self.width, self.height) / _OVERVIEW_PX)
        shape = max(1, round(self.height / factor)), max(1, round(self.width / factor))
        return Window(0, 0, self.width, self.height), shape


@contextmanager
def _gdal(path: Path) -> Iterator[None]:
    """Turn whatever GDAL raises about this file into an InputError. Not all of it is a RasterioError: CRS errors are
    ValueErrors, and a damaged file brings up private classes."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as a raster: {error}. Is the file whole?") from error


def _page_notices(path: Path, dataset: DatasetReader) -> list[str]:
    pages = len(dataset.subdatasets) if dataset.driver == "GTiff" else 0
    return [f"{path.name} holds {pages} pictures (pages): the first is taken"] if pages > 1 else []


def _check_placed(path: Path, dataset: DatasetReader, crs: CRS | None, driver: str) -> CRS:
    """Return a raster's CRS. Raises InputError unless it says where on the Earth it lies."""
    name = path.name
    if dataset.transform.is_identity and dataset.gcps[0]:
        raise InputError(f"{name} has ground control points only: warp it first (gdalwarp -t_srs EPSG:4326 …)")
    kind = {"PNG": " (a PNG picture)", "JPEG": " (a JPEG picture)"}.get(driver, "")
    world_file = f"{path.stem}.{WORLD_FILES[driver]}" if driver in WORLD_FILES else "a world file"
    if dataset.transform.is_degenerate:
        raise InputError(f"{name} has pixels of no size (geotransform {tuple(dataset.transform)[:6]})")
    if dataset.transform.is_identity:
        system = "" if crs else ", nor a coordinate reference system"
        raise InputError(
            f"{name}{kind} has no geotransform (pixel size and corner){system}: expected a georeferenced raster. "
            f"Export it again with its georeference, or lay its world file ({world_file}) beside it and say the CRS by "
            "--crs EPSG:… (gdal_translate -a_srs EPSG:… -a_ullr WEST NORTH EAST SOUTH "
            f"{name} {path.stem}-placed.tif writes both)."
        )
    if crs is not None and crs.to_wkt(version="WKT2_2019").startswith("ENGCRS"):
        raise InputError(
            f"{name} lies in a local CRS ({crs.to_string()[:60]}), which says nothing of where on the Earth it is: "
            "export it in a grid of maps, or say by --crs EPSG:… which one its numbers are of"
        )
    if crs is None:
        advice = (
            f"a copy, as a picture cannot hold it (gdal_translate -a_srs EPSG:… {name} {path.stem}-placed.tif)"
            if kind
            else "the file (gdal_edit.py -a_srs EPSG:… FILE, or rio edit-info --crs EPSG:… FILE)"
        )
        raise InputError(
            f"{name}{kind} has no coordinate reference system: expected a georeferenced raster. If you know its "
            f"CRS, give it by --crs EPSG:…, as {path.stem}.prj beside it, or write it into {advice}."
        )
    west, south, east, north = _box(Affine(*tuple(dataset.transform)[:6]), dataset.width, dataset.height)
    far_x, far_y = max(abs(west), abs(east)), max(abs(south), abs(north))
    if not crs.is_geographic or (far_x <= 360.01 and far_y <= 90.01 and east - west <= 360.01):
        return crs
    reach = (
        f"{name} declares {crs.to_string()[:60]}, whose unit is the degree, but reaches from ({west:.1f}, {south:.1f}) "
        f"to ({east:.1f}, {north:.1f})"
    )
    if far_x <= 90.01 and far_y <= 360.01:
        raise InputError(
            f"{reach}: its axes are exchanged, x holds latitudes and y longitudes. Write it again with x as longitude "
            "and y as latitude (exchange the two corner coordinates and the two pixel sizes; a picture that is "
            "transposed too is to be turned)."
        )
    raise InputError(
        f"{reach}, beyond ±180, ±90: these are metres of a projected CRS. Give the true one by --crs EPSG:…, or write "
        "it into the file (gdal_edit.py -a_srs EPSG:… FILE)."
    )


def _box(to_crs: Affine, width: int, height: int) -> tuple[float, float, float, float]:
    xs, ys = zip(*(to_crs(x, y) for x in (0, width) for y in (0, height)), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _middle_of_wide_longitudes(to_crs: Affine, width: int, height: int, crs: CRS) -> float | None:
    """The middle longitude of a raster in degrees that reaches beyond ±180; None for any that does not."""
    west, _, east, _ = _box(to_crs, width, height)
    return (west + east) / 2 if crs.is_geographic and max(abs(west), abs(east)) > 180.01 else None


def _wrapped(lon: Float64) -> Float64:
    return (lon + 180) % 360 - 180


def _missing_notices(path: Path, parts: Sequence[MissingPart]) -> list[str]:
    if not parts:
        return []
    files = sorted({part.path for part in parts})
    return [
        f"{path.name}: {len(files)} of its parts cannot be opened, such as {files[0]}: tiles that reach into them are "
        "listed as failures"
    ]


def _slow_notices(path: Path, dataset: DatasetReader) -> list[str]:
    if dataset.driver not in ("PNG", "JPEG") or dataset.width * dataset.height <= _LARGE_PICTURE_PX:
        return []
    return [
        f"{path.name} is one large {dataset.driver} picture, which each tile decodes from its beginning: "
        f"gdal_translate -of COG {path.name} {path.stem}.tif makes it fast"
    ]


def _all_within(limits: tuple[float, float], values: NDArray[Any]) -> Bool:
    """Where values [B, …] are within the limits in all bands; bool […]."""
    return np.asarray(((values >= limits[0]) & (values <= limits[1])).all(axis=0))


def _apply(affine: Affine, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _fill_specks(valid: Bool) -> Bool:
    """Count specks of nodata thinner than a few pixels as ground: a white roof or a black shadow has that value too."""
    mask = Image.fromarray(valid.view(np.uint8))
    closed = mask.filter(ImageFilter.MaxFilter(_SPECK_PX)).filter(ImageFilter.MinFilter(_SPECK_PX))
    return np.asarray(closed) > 0


def _black_view(side_px: int) -> RotatedView:
    return RotatedView(np.zeros((side_px, side_px, 3), np.uint8), 0.0)
