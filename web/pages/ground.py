"""The ground below the pages' maps, as tiles of the web's map grid: `/tiles/<reference set>/<z>/<x>/<y>.webp`.

A set's orthophoto is cut at its own resolution, captures are laid together; where their files are gone, thumbnails
are. Far views come from one picture of the whole set. QGIS takes the same addresses as "XYZ tiles".
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import BoundedSemaphore, Lock

import numpy as np
from flask import Blueprint, Response, request, url_for
from PIL import Image
from pydantic import Field, RootModel
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import geo, ids
from coarseloc.core.errors import CoarselocError
from coarseloc.core.types import BBox, LonLat
from coarseloc.core.windows import WindowSource
from coarseloc.imagery.base_map import image_type
from coarseloc.imagery.decode import read_image, thumbnail_path, write_thumbnail
from coarseloc.imagery.map_tiles import FORMATS, MapTile, encode, picture_tile, window_tile, zoom_range
from coarseloc.imagery.mosaics import CaptureWindows, PlacedPicture
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.store import gallery, references
from coarseloc.store.gallery import GroundTile
from coarseloc.store.references import StoredReferenceSet
from search.export.grid import grid_polynomials
from search.export.records import Heading
from search.reference_map import reference_map
from web.language import _
from web.models import AnswerModel, GroundLayer, json_response
from web.pages.images import decoded_file, send_picture, tile_url
from web.problems import Problem
from web.selection import stored_set
from web.state import WebState, current_state

LONGEST_PX = 2048  # of the picture of a whole set
_COVERED = 0.98  # of a tile's pixels: it is not read then, its neighbours have shown it all
_BACKGROUND = (128, 128, 128)
THUMBNAIL_PX = 256  # of a side at least: sets of earlier versions do not tell their pictures' size

_FOR_EVER = "private, max-age=31536000, immutable"
_CUTTING = BoundedSemaphore(2)  # tiles at once: other pages want threads too
_KEPT_PICTURES = 8  # decoded captures: neighbouring tiles are laid together from the same ones

routes = Blueprint("ground", __name__)
_building = Lock()


class PlacePicture(RootModel[tuple[float, float, str]]):
    """Longitude and latitude of a place's centre, and its picture's address."""


class GroundPlaces(AnswerModel):
    """Every place of a set once."""

    angle_deg: int = Heading
    tiles: list[PlacePicture]


class MapGrid(AnswerModel):
    """x and y of a projected CRS as polynomials: the sum of c[k] u^i v^j over `powers` [i, j], with u and v from -1 to
    1 over the extent's longitudes and latitudes; within 5 cm in the extent."""

    crs: str
    extent: list[float] = Field(min_length=4, max_length=4, description="[west, south, east, north]")
    powers: list[list[int]] = Field(description="pairs [i, j]")
    x: list[float]
    y: list[float]


def ground_layer(state: WebState, stored: StoredReferenceSet, extent: BBox) -> GroundLayer:
    """Where a set's map tiles are, and between which zooms they are worth asking for."""
    facts = stored.reference_set
    footprint_m = facts.footprint_m or geo.box_size_m(extent)[0]
    width_px = facts.picture_px[0] if facts.picture_px else 0
    gsd_m = float(facts.parameters.get("source_m_per_px") or footprint_m / max(width_px, THUMBNAIL_PX))
    low, high = zoom_range(extent, gsd_m)
    sample = url_for("ground.map_tile", name=stored.name, zoom=0, x=0, y=0, form="webp", v=_version(state, stored))
    return GroundLayer(
        name=stored.name,
        extent=extent,
        url=sample.replace("/0/0/0.webp", "/{z}/{x}/{y}.webp"),
        min_zoom=low,
        max_zoom=high,
        grid=url_for("ground.grid", name=stored.name),
    )


@routes.get("/tiles/<path:name>/<int:zoom>/<int:x>/<int:y>.<form>")
def map_tile(name: str, zoom: int, x: int, y: int, form: str) -> AnyResponse:
    """A tile of a set's ground, 256 pixels a side, transparent where the set shows nothing; 404 outside its bounds."""
    tile = MapTile(zoom, x, y)
    if form not in FORMATS or not tile.exists:
        raise _no_tile()
    state = current_state()
    stored = stored_set(state.database, ids.label(name))
    extent = set_extent(state, stored)
    if extent is None or not tile.meets(extent):
        raise _no_tile()
    version = _version(state, stored)
    key = ("map tile", stored.uid, version, tile, form)
    data = state.map_tiles.recall(key, lambda: _cut(state, stored, version, extent, tile, form))
    return send_tile(data, f"image/{form}")


def send_tile(data: bytes, mimetype: str) -> AnyResponse:
    response = Response(data, mimetype=mimetype)
    response.headers["Cache-Control"] = _FOR_EVER if "v" in request.args else "private, max-age=300"
    response.set_etag(hashlib.sha256(data).hexdigest()[:32])
    return response.make_conditional(request)


def _no_tile() -> Problem:
    return Problem(404, _("There is no map tile at this address."))


def set_extent(state: WebState, stored: StoredReferenceSet) -> BBox | None:
    """The bounds of a set's tiles, remembered until a write; None for an empty set."""
    return state.remember_until_write(
        ("extent", stored.id, stored.created_at), lambda session: gallery.extent(session, stored.id)
    )


def _version(state: WebState, stored: StoredReferenceSet) -> str:
    with state.database.read() as session:
        return ids.digest({"set": stored.uid, "generation": gallery.generation(session)})[:12]


def _cut(state: WebState, stored: StoredReferenceSet, version: str, extent: BBox, tile: MapTile, form: str) -> bytes:
    """From the sources where the tile is sharper than the picture of the whole set, else from that."""
    with _CUTTING:
        source = _source(state, stored, version)
        if source is not None and tile.pixel_m < max(geo.box_size_m(extent)) / LONGEST_PX:
            try:
                return encode(window_tile(source, tile), form)
            except CoarselocError:  # a part that cannot be read: the picture of all shows what was there
                pass
        key = ("mosaic path", stored.uid, version)  # no older than the tiles that are kept
        path = state.memory.recall(key, lambda: _path_by_content(state, stored.name))
        mosaic_path = _laid_mosaic(state, stored.name, path)
        if mosaic_path is None:  # no heading is a quarter turn
            return encode(window_tile(source, tile) if source else np.zeros((256, 256, 4), np.uint8), form)
        mosaic = state.map_tiles.recall(("mosaic", mosaic_path), lambda: read_image(mosaic_path))
        return encode(picture_tile(mosaic, extent, tile), form)


def _source(state: WebState, stored: StoredReferenceSet, version: str) -> WindowSource | None:
    """The set's own map; thumbnails laid together where its files are gone; None without either."""

    def open_source() -> WindowSource | None:
        with state.database.read() as session:
            captures = references.captures(session, stored.id)
        try:
            return reference_map(stored.reference_set, captures, functools.lru_cache(_KEPT_PICTURES)(read_image))
        except CoarselocError:
            return _laid_thumbnails(state, stored)

    return state.memory.recall(("ground source", stored.uid, version), open_source)


def _laid_thumbnails(state: WebState, stored: StoredReferenceSet) -> WindowSource | None:
    angle, ground = _ground(state, stored.name)
    pictures = [
        PlacedPicture(path, geo.box_center(tile.bbox), angle, stored.reference_set.footprint_m or width_m)
        for tile in ground
        if (path := thumbnail_path(state.settings.thumbnails, tile.content_digest)).exists()
        and (width_m := geo.box_size_m(tile.bbox)[0])
    ]
    if not pictures:
        return None
    width_px = read_image(pictures[0].path).shape[1]
    return CaptureWindows(pictures, pictures[0].width_m / width_px, functools.lru_cache(4 * _KEPT_PICTURES)(read_image))


# --- the base map of the server ------------------------------------------------------------------


def base_layers(state: WebState) -> list[GroundLayer]:
    """The base map that `coarseloc serve --base-map` names; none without."""
    base = state.base_map
    if base is None:
        return []
    sample = url_for("ground.base_tile", zoom=0, x=0, y=0, v=base.version)
    return [
        GroundLayer(
            name=base.path.name,
            extent=base.bounds,
            url=sample.replace("/0/0/0", "/{z}/{x}/{y}"),
            min_zoom=base.min_zoom,
            max_zoom=base.max_zoom,
        )
    ]


@routes.get("/base-map/<int:zoom>/<int:x>/<int:y>")
def base_tile(zoom: int, x: int, y: int) -> AnyResponse:
    """A tile of the base map as its file holds it, or cut out of it; 404 where there is none."""
    base, tile = current_state().base_map, MapTile(zoom, x, y)
    data = base.tile(tile) if base is not None and tile.exists else None
    if data is None:
        raise _no_tile()
    return send_tile(data, image_type(data))


# --- coordinates ---------------------------------------------------------------------------------


@routes.get("/references/<path:name>/grid.json")
def grid(name: str) -> AnyResponse:
    """The set's projected CRS, or the UTM zone of its middle, for coordinates under a map's pointer."""
    state = current_state()
    stored = stored_set(state.database, ids.label(name))
    extent = set_extent(state, stored)
    source = _source(state, stored, _version(state, stored))
    crs = source.crs if isinstance(source, OrthophotoWindows) else None
    fit = extent and state.memory.recall(("map grid", crs, extent), lambda: grid_polynomials(crs, extent))
    if not extent or not fit:
        raise Problem(404, _("This reference set has no projected coordinates."))
    return json_response(MapGrid.model_validate({"extent": list(extent), **asdict(fit)}))


# --- places and the picture of a whole set -------------------------------------------------------


@routes.get("/references/<path:name>/ground.json")
def tiles(name: str) -> AnyResponse:
    """Every place of the set, once: its centre and the address of its picture, which is at `angle_deg`."""
    angle, ground = _ground(current_state(), name)
    pictures = [(*_center(tile.bbox), tile_url(tile.rotated_tile, tile.content_digest)) for tile in ground]
    response = json_response(GroundPlaces.model_validate({"angle_deg": angle, "tiles": pictures}))
    response.add_etag()
    return response.make_conditional(request)


@routes.get("/references/<path:name>/ground.jpg")
def picture(name: str) -> Response:
    state = current_state()
    path = _laid_mosaic(state, name, _path_by_content(state, name))
    if path is None:
        raise Problem(404, _("This reference set has no north-up tiles to lay out."))
    return send_picture(path)


def _path_by_content(state: WebState, name: str) -> Path | None:
    """Where the picture of a whole set belongs, named by the content of its tiles; None where no heading is a quarter
    turn. Raises Problem 404 for an unknown set."""
    angle, ground = _ground(state, name)
    if not ground or angle % 90:
        return None
    digest = hashlib.sha256("".join(tile.content_digest for tile in ground).encode()).hexdigest()
    return thumbnail_path(state.settings.thumbnails / "grounds", digest)


def _laid_mosaic(state: WebState, name: str, path: Path | None) -> Path | None:
    """The picture of a whole set, made at the first look where it belongs, `path`; beside it while pictures of tiles
    are gone."""
    if path is None:
        return None
    with _building:  # one at a time: it reads thousands of thumbnails
        if not path.exists():
            angle, ground = _ground(state, name)
            mosaic, gaps = _mosaic(state.settings.thumbnails, ground, angle)
            if gaps:  # it is made again at every look until the next ingest has brought the pictures back
                path = path.with_suffix(".gaps.jpg")
            write_thumbnail(mosaic, path, LONGEST_PX)
    return path


def _ground(state: WebState, name: str) -> tuple[int, list[GroundTile]]:
    """The heading nearest to north-up by quarter turns, and the set's tiles at it."""
    stored = stored_set(state.database, ids.label(name))
    angle = min(stored.reference_set.angles or (0,), key=lambda angle: (angle % 90 != 0, angle))
    with state.database.read() as session:
        return angle, gallery.tiles_at_heading(session, stored.id, angle)


def _mosaic(thumbnails: Path, ground: Sequence[GroundTile], angle_deg: int) -> tuple[np.ndarray, int]:
    """(uint8 [H, W, 3], north up, of tiles at a quarter turn; how many of their pictures are gone). Tiles whose ground
    is there already are left out."""
    boxes = np.array([tile.bbox for tile in ground])
    west, south, east, north = geo.bounds(boxes[:, [0, 2]], boxes[:, [1, 3]])
    per_lon, per_lat = geo.metres_per_degree((south + north) / 2)
    across = (east - west) % 360.0 * per_lon
    scale = LONGEST_PX / max(across, (north - south) * per_lat, 1e-6)
    width = max(1, math.ceil(across * scale))
    height = max(1, math.ceil((north - south) * per_lat * scale))
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    covered, gaps = np.zeros((height, width), np.bool_), 0
    for tile in ground:
        left, right = (round((lon - west) % 360.0 * per_lon * scale) for lon in (tile.bbox.west, tile.bbox.east))
        top, bottom = (round((north - lat) * per_lat * scale) for lat in (tile.bbox.north, tile.bbox.south))
        area = covered[top:bottom, left:right]
        if area.size == 0 or area.mean() > _COVERED:
            continue
        view = _thumbnail(thumbnails, tile, angle_deg, right - left)
        if view is None:
            gaps += 1
        else:
            canvas.paste(view.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))
            area[:] = True
    return np.asarray(canvas), gaps


def _thumbnail(thumbnails: Path, tile: GroundTile, angle_deg: int, wanted_px: int) -> Image.Image | None:
    """The tile north up, decoded no larger than needed; None where its picture is gone."""
    path = thumbnail_path(thumbnails, tile.content_digest)
    try:
        if path.exists():
            with Image.open(path, formats=["JPEG"]) as file:
                file.draft("RGB", (wanted_px, wanted_px))
                upright = file.convert("RGB")
        elif tile.path:
            with decoded_file(Path(tile.path)) as pixels:
                upright = Image.fromarray(pixels)
        else:
            return None
    except Exception:  # a damaged picture leaves a gap, it does not take the map away
        return None
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    return upright.transpose(turns[angle_deg]) if angle_deg else upright


def _center(bbox: BBox) -> LonLat:
    lon, lat = geo.box_center(bbox)
    return LonLat(round(lon, 6), round(lat, 6))
