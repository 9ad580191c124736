"""Ground seen from any heading: an orthophoto, or pictures, that a study cuts its views from.

Views always come out of a larger window, so that their corners are ground and not black at every heading.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.core import geo, rotation
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.rotation import Affine
from coarseloc.core.types import LonLat, UInt8
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.file_names import image_names
from coarseloc.imagery.orthophoto import cut_view, open_orthophoto
from coarseloc.store import Database, gallery, references

MIN_GROUND_FRACTION = 0.999
TURNING_ROOM = math.sqrt(2)  # sides of the square that holds a view at every heading
MIN_CORRELATION = 0.98  # another compression or resampling stays above, another day's light does not
TIFF = (".tif", ".tiff", ".vrt")
_MAX_TRIES = 200  # for each random place


@dataclass(frozen=True)
class OrthophotoGround:
    """An orthophoto: any place at any heading and size."""

    path: Path
    footprint_m: float
    stride_m: float
    side_px: int
    centres: tuple[LonLat, ...]  # of the reference places

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the pixels, for a study's identity."""
        status = self.path.stat()
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        geometry = {"footprint_m": self.footprint_m, "stride_m": self.stride_m, "side_px": self.side_px}
        return {"source": str(self.path), "stamp": stamp, **geometry, "places": len(self.centres)}

    def view(self, centre: LonLat, heading_deg: float, footprint_m: float | None = None) -> UInt8:
        """uint8 [side, side, 3]: the ground around a place, its upper edge facing the heading."""
        return cut_view(self.path, centre, footprint_m or self.footprint_m, heading_deg, self.side_px).pixels

    def holds(self, centre: LonLat, side_m: float) -> bool:
        """Whether the square of this side around a place, north up, is all ground."""
        return cut_view(self.path, centre, side_m, 0.0, 64).ground_fraction >= MIN_GROUND_FRACTION


@dataclass(frozen=True)
class PictureGround:
    """Pictures without a map: each is a place of its own, seen through its central square."""

    paths: tuple[Path, ...]
    centres: tuple[LonLat, ...] = ()  # where they are known

    @property
    def facts(self) -> dict[str, Any]:
        stamps = [f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in self.paths]
        return {"pictures": stamps}

    def view(self, index: int, heading_deg: float) -> UInt8:
        """uint8 [side, side, 3]: the largest square that holds picture at every heading, turned clockwise."""
        picture = read_image(self.paths[index])
        height, width = picture.shape[:2]
        side = int(min(height, width) / math.sqrt(2))
        to_source = Affine(1.0, 0.0, (width - side) / 2, 0.0, 1.0, (height - side) / 2)
        return rotation.affine_view(picture, to_source, side, heading_deg).pixels


def open_ground(
    db: Database,
    source: str,
    *,
    footprint_m: float | None,
    overlap: float,
    tile_px: int | None,
    max_places: int,
    turned: bool = True,
) -> OrthophotoGround | PictureGround:
    """Open a reference set by name, a GeoTIFF, or a folder of pictures: `max_places` places nearest the middle.
    `turned`: whether places are seen from every heading, or facing north alone.

    Raises InputError saying what was found.
    """
    path = Path(source)
    if path.is_dir():
        return _picture_folder(path, max_places)
    if path.suffix.lower() in TIFF:
        if footprint_m is None:
            raise InputError(f"{path} is an orthophoto: give --footprint-m, the side on the ground that a frame sees")
        orthophoto = open_orthophoto(path, footprint_m=footprint_m, overlap=overlap, angles=[0], tile_px=tile_px)
        side = int(orthophoto.reference_set.parameters["tile_px"])
        return orthophoto_ground(
            path.resolve(), footprint_m, overlap, side, [tile.center for tile in orthophoto.tiles], max_places, turned
        )
    with db.read() as session:
        try:
            stored = references.find_reference_set(session, source)
        except StoreError as error:
            raise InputError(f"{source!r} is no GeoTIFF (.tif) and no folder here; {error}") from None
        tiles = references.tiles(session, stored.id)
        pictures = gallery.tiles_at_heading(session, stored.id, min(stored.reference_set.angles, default=0))
    reference_set = stored.reference_set
    if reference_set.kind == "orthophoto" and reference_set.footprint_m is not None:
        side = tile_px or int(reference_set.parameters.get("tile_px", 224))
        centres = [tile.center for tile in tiles]
        return orthophoto_ground(
            Path(reference_set.source),
            reference_set.footprint_m,
            reference_set.overlap,
            side,
            centres,
            max_places,
            turned,
        )
    tiles_on_disk = [tile for tile in pictures if tile.path and Path(tile.path).is_file()]
    if len(tiles_on_disk) < 2:
        raise InputError(
            f"reference set {source!r} has {len(tiles_on_disk)} pictures left on disk: expected at least 2"
        )
    centres = [geo.box_center(tile.bbox) for tile in tiles_on_disk]
    indices = _nearest_middle(centres, max_places)
    return PictureGround(tuple(Path(tiles_on_disk[i].path or "") for i in indices), tuple(centres[i] for i in indices))


def orthophoto_ground(
    path: Path,
    footprint_m: float,
    overlap: float,
    side_px: int,
    centres: Sequence[LonLat],
    max_places: int,
    turned: bool = True,
) -> OrthophotoGround:
    """An orthophoto with its reference places: those that are ground at all headings (or facing north alone where not
    `turned`), nearest the middle."""
    if not path.is_file():
        raise InputError(f"{path} is no longer there: expected the orthophoto the references were cut from")
    ground = OrthophotoGround(path, footprint_m, footprint_m * (1 - overlap), side_px, ())
    side_m = footprint_m * (TURNING_ROOM if turned else 1.0)
    usable = [centre for centre in centres if ground.holds(centre, side_m)]
    if len(usable) < 2:
        raise InputError(
            f"{path} has room for {len(usable)} places of {footprint_m:g} m that are ground "
            f"{'at every heading' if turned else 'facing north'}: expected at least 2. Give a smaller footprint or a "
            "larger orthophoto."
        )
    return OrthophotoGround(
        path, footprint_m, ground.stride_m, side_px, tuple(usable[i] for i in _nearest_middle(usable, max_places))
    )


def random_places(
    ground: OrthophotoGround, frame_ground: OrthophotoGround, count: int, side_m: float, seed: int
) -> list[LonLat]:
    """`count` random places among the reference places, off their grid, where a square of `side_m` is all ground; of
    them those where it is so in `frame_ground` too, the orthophoto that frames are cut from.

    Raises InputError where there is too little ground.
    """
    places = _off_grid(ground, count, side_m, seed)
    if frame_ground is not ground:
        places = [place for place in places if frame_ground.holds(place, side_m)]
        if not places:
            raise InputError(f"{frame_ground.path} shows none of the {count} places: expected the same area")
    return places


def shared_pixels(views: Iterable[tuple[UInt8, UInt8, UInt8]]) -> dict[str, int]:
    """How many frames are cut from the references' own image (`own_pixels`), and how many are a reference, pixel for
    pixel (`matched`). `views`: for each frame its own view, what the references' source shows at the same place and
    heading, and the reference nearest to it; uint8 [side, side, 3] each."""
    own_pixels = matched = 0
    for frame, source, reference in views:
        own_pixels += _is_same_picture(frame, source)
        matched += bool(np.array_equal(frame, reference))
    return {"own_pixels": own_pixels, "matched": matched}


def _is_same_picture(a: UInt8, b: UInt8) -> bool:
    """Whether two views of equal shape show the same image, apart from its compression or resampling."""
    first, second = (view.astype(float).ravel() - view.mean() for view in (a, b))
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return bool(np.array_equal(a, b)) if scale == 0 else float(first @ second) / scale >= MIN_CORRELATION


def _off_grid(ground: OrthophotoGround, count: int, side_m: float, seed: int) -> list[LonLat]:
    rng = np.random.default_rng([seed, 45])
    places: list[LonLat] = []
    for _ in range(_MAX_TRIES * count):
        if len(places) == count:
            return places
        base = ground.centres[rng.integers(len(ground.centres))]
        east, north = rng.uniform(-0.5, 0.5, 2) * ground.stride_m
        centre = geo.offset(base, float(east), float(north))
        if ground.holds(centre, side_m):
            places.append(centre)
    if len(places) == count:
        return places
    raise InputError(
        f"{ground.path} has room for {len(places)} of {count} frames with {side_m:.0f} m of ground around them: give a "
        "smaller footprint, or a larger orthophoto"
    )


def _picture_folder(path: Path, max_places: int) -> PictureGround:
    names = sorted(image_names(path))
    if len(names) < 2:
        raise InputError(f"{path} holds {len(names)} image(s): expected at least 2 to tell places apart")
    step = max(1, len(names) // max_places)
    return PictureGround(tuple(path / name for name in names[::step][:max_places]))


def _nearest_middle(centres: Sequence[LonLat], max_places: int) -> list[int]:
    """The indices, in order, of the `max_places` places nearest the middle of all: a map with no holes."""
    if len(centres) <= max_places:
        return list(range(len(centres)))
    lon, lat = np.array(centres).T
    lon = np.where(lon < lon.max() - 180.0, lon + 360.0, lon)  # without a jump, where they lie across the antimeridian
    distance_m = geo.distance_m(np.median(lon), np.median(lat), lon, lat)
    return sorted(np.argsort(distance_m, kind="stable")[:max_places].tolist())
