"""Small rasters, capture trees and flights, made on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from PIL import Image
from rasterio.transform import Affine as Transform

from coarseloc.core import geo
from coarseloc.core.types import LonLat

GANGNAM = LonLat(127.02765, 37.49792)

WriteRaster = Callable[..., Path]
WriteCaptures = Callable[..., Path]


@pytest.fixture
def shared_data() -> Path:
    """Real imagery beside the checkout, or the test is skipped."""
    folder = Path(os.environ.get("COARSELOC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real imagery in {folder}: set COARSELOC_SHARED_DATA to its folder")
    return folder


@pytest.fixture
def compass(tmp_path: Path) -> WriteRaster:
    """Write a GeoTIFF that tells where each of its pixels lies: red grows by `per_level_m` metres a level to the
    east of `center`, green to the north, blue is 50. So any view of it can be checked against geometry."""

    def write(
        crs: str, transform: Transform, width: int, height: int, center: LonLat = GANGNAM, per_level_m: float = 4.0
    ) -> Path:
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        x = transform.a * columns + transform.b * rows + transform.c
        y = transform.d * columns + transform.e * rows + transform.f
        lon, lat = rasterio.warp.transform(crs, "EPSG:4326", x.ravel(), y.ravel())
        per_lon, per_lat = geo.metres_per_degree(center.lat)
        east = (np.reshape(lon, x.shape) - center.lon) * per_lon
        north = (np.reshape(lat, y.shape) - center.lat) * per_lat
        levels = [128 + east / per_level_m, 128 + north / per_level_m, np.full(x.shape, 50.0)]
        path = tmp_path / f"compass-{len(list(tmp_path.iterdir()))}.tif"
        return _write_tiff(path, np.clip(np.round(levels), 0, 255).astype(np.uint8), crs, transform)

    return write


def _write_tiff(path: Path, values: np.ndarray, crs: str | None, transform: Transform | None, **profile: Any) -> Path:
    """[B, H, W] as a GeoTIFF."""
    count, height, width = values.shape
    placed = {"crs": crs, "transform": transform} if transform is not None else {"crs": crs}
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=values.dtype, **placed, **profile
    ) as file:
        file.write(values)
    return path


@pytest.fixture
def tiff(tmp_path: Path) -> Callable[..., Path]:
    """Write an array [B, H, W] as a GeoTIFF of 1 m pixels in UTM zone 52N around GANGNAM."""

    def write(
        values: np.ndarray, crs: str | None = "EPSG:32652", transform: Transform | None = None, **profile: Any
    ) -> Path:
        _, height, width = values.shape
        path = tmp_path / f"raster-{len(list(tmp_path.iterdir()))}.tif"
        if crs is not None and transform is None:
            (east,), (north,) = rasterio.warp.transform("EPSG:4326", crs, [GANGNAM.lon], [GANGNAM.lat])
            transform = Transform(1, 0, east - width / 2, 0, -1, north + height / 2)
        return _write_tiff(path, values, crs, transform, **profile)

    return write


@pytest.fixture
def capture_tree(tmp_path: Path) -> WriteCaptures:
    """Write `<root>/<capture>/<capture>_<index>.png` for a grid of places, with `labels.json` in the root.

    Each picture is 8 px of (index, angle / 2, altitude / 10), but for a white pixel, so that a view tells which it is.
    """

    def write(
        root: Path | None = None,
        *,
        angles: Sequence[int] = (0, 45),
        columns: int = 3,
        rows: int = 2,
        stride_m: float = 100.0,
        row_stride_m: float | None = None,
        picture_px: tuple[int, int] = (8, 8),
        altitude: int = 300,
        overlap: int = 50,
        pad: int = 5,
        labelled: bool = True,
        stamp: str = "251210182149",
        corner: LonLat = GANGNAM,
    ) -> Path:
        root = root or tmp_path / "Refs"
        images = []
        for angle in angles:
            capture = f"{stamp}_{altitude}_{overlap}_0_{angle:03d}"
            (root / capture).mkdir(parents=True)
            for index in range(1, columns * rows + 1):
                name = f"{capture}_{index:0{pad}d}.png"
                picture = Image.new("RGB", picture_px, (index, angle // 2, altitude // 10))
                picture.putpixel((picture_px[0] // 2, picture_px[1] // 2), (255, 255, 255))
                picture.save(root / capture / name)
                row, column = divmod(index - 1, columns)
                images.append(_label(name, geo.offset(corner, column * stride_m, -row * (row_stride_m or stride_m))))
        if labelled:
            more = "" if stamp == "251210182149" else f"-{stamp}"
            _write_labels(root / f"labels-{altitude}{more}.json", images)
        return root

    return write


def _label(name: str, place: LonLat, **attitude: Any) -> dict[str, Any]:
    """An entry of a label JSON."""
    position = {"x": None, "y": None, "z": None, "latitude": place.lat, "longitude": place.lon, "altitude": 300.0}
    return {"imageref": name, "position": position, "attitude": {"yaw": None, "pitch": None, "roll": None} | attitude}


def _write_labels(path: Path, images: Sequence[Any], bom: bool = False) -> Path:
    path.write_text(json.dumps({"images": list(images)}), encoding="utf-8-sig" if bom else "utf-8")
    return path


@pytest.fixture
def label() -> Callable[..., dict[str, Any]]:
    """Make an entry of a label JSON of a file name, a place and its attitude."""
    return _label


@pytest.fixture
def write_labels() -> Callable[..., Path]:
    """Write such entries as a label JSON, with or without a byte order mark."""
    return _write_labels


@pytest.fixture(scope="module")
def single_thread() -> Iterator[None]:
    """Small transforms wait for each other's threads longer than they take, beside other tests' processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
