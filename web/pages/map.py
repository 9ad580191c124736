"""The ground as the references show it: one picture of a whole reference set, and its tiles by position.

The picture is put together from thumbnails of the unturned tiles at the first look and kept with them; it is
named by the content of those tiles, so that another ingest makes another picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from flask import Blueprint, Response, request, url_for
from PIL import Image
from pydantic import RootModel
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import geo, ids
from coarseloc.core.fixes import FrameFix
from coarseloc.core.types import BBox, LonLat
from coarseloc.imagery.decode import read_image, thumbnail_path, write_thumbnail
from coarseloc.store import gallery, references, snapshots
from coarseloc.store.gallery import GroundTile
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from search.export.records import Heading
from web.language import _
from web.models import AnswerModel, GroundMap, MapBounds, json_response, location_of
from web.pages.images import send_picture, tile_url
from web.problems import Problem
from web.state import WebState, current_state

LONGEST_PX = 2048
_COVERED = 0.98  # of a tile's pixels: it is not read then, its neighbours have shown it all
_BACKGROUND = (128, 128, 128)

routes = Blueprint("map", __name__)
_building = Lock()


class PlacePicture(RootModel[tuple[float, float, str]]):
    """Longitude and latitude of a place's centre, and its picture's address."""


class GroundPlaces(AnswerModel):
    """Every place of a set once."""

    angle_deg: int = Heading
    tiles: list[PlacePicture]


def run_map(state: WebState, run: StoredRun) -> GroundMap | MapBounds | None:
    """What a map of a run needs: the ground of the first of its sets that is still here, else the bounds of what it
    searched."""
    with state.database.read() as session:
        live = {stored.uid: stored for stored in references.reference_sets(session)}
        if searched := [live[uid] for uid in run.set_uids if uid in live]:
            return ground_map(state, searched[0])
        places = snapshots.search_map(session, run.search_map)
    return map_bounds(geo.bounds(places[:, [2, 4]], places[:, [3, 5]])) if len(places) else None


def fix_map(state: WebState, run: StoredRun, fix: FrameFix) -> GroundMap | MapBounds | None:
    """What a map of a fix needs: the ground of the set that it lies on, where that is still here; None without one."""
    if fix.pose is None or fix.conditions is None:
        return None
    with state.database.read() as session:
        live = {stored.name: stored for stored in references.reference_sets(session) if stored.uid in run.set_uids}
    named = live.get(fix.conditions.map_name)
    return ground_map(state, named) if named else run_map(state, run)


def ground_map(state: WebState, reference_set: StoredReferenceSet) -> GroundMap | None:
    """What a map of this set needs: its bounds, metres per degree at its centre, and where ground and tiles are."""
    extent = state.remember_until_write(
        ("extent", reference_set.id, reference_set.created_at),
        lambda session: gallery.extent(session, reference_set.id),
    )
    if extent is None:
        return None
    name = reference_set.name
    return GroundMap(
        **dict(map_bounds(extent)),
        reference_set=name,
        footprint_m=reference_set.reference_set.footprint_m,
        ground=url_for("map.picture", name=name),
        tiles=url_for("map.tiles", name=name),
    )


def map_bounds(extent: BBox) -> MapBounds:
    origin = geo.box_center(extent)
    per_lon, per_lat = geo.metres_per_degree(origin.lat)
    return MapBounds(extent=extent, origin=location_of(origin), metres_per_degree={"lon": per_lon, "lat": per_lat})


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
    angle, ground = _ground(state, name)
    if not ground or angle % 90:
        raise Problem(404, _("This reference set has no north-up tiles to lay out."))
    digest = hashlib.sha256("".join(tile.content_digest for tile in ground).encode()).hexdigest()
    mosaic_path = thumbnail_path(state.settings.thumbnails / "grounds", digest)
    with _building:  # one at a time: it reads thousands of thumbnails
        if not mosaic_path.exists():
            mosaic, gaps = _mosaic(state.settings.thumbnails, ground, angle)
            if gaps:  # it is made again at every look until the next ingest has brought the pictures back
                mosaic_path = mosaic_path.with_suffix(".gaps.jpg")
            write_thumbnail(mosaic, mosaic_path, LONGEST_PX)
    return send_picture(mosaic_path)


def _ground(state: WebState, name: str) -> tuple[int, list[GroundTile]]:
    """The heading nearest to north-up by quarter turns, and the set's tiles at it."""
    with state.database.read() as session:
        for stored in references.reference_sets(session):
            if stored.name == ids.label(name):
                angle = min(stored.reference_set.angles or (0,), key=lambda angle: (angle % 90 != 0, angle))
                return angle, gallery.tiles_at_heading(session, stored.id, angle)
    raise Problem(404, _("There is no reference set {name}.", name=name))


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
            upright = Image.fromarray(read_image(Path(tile.path)))
        else:
            return None
    except Exception:  # a damaged picture leaves a gap, it does not take the map away
        return None
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    return upright.transpose(turns[angle_deg]) if angle_deg else upright


def _center(bbox: BBox) -> LonLat:
    lon, lat = geo.box_center(bbox)
    return LonLat(round(lon, 6), round(lat, 6))
