"""A drawn area, its reference tiles, two flights and their searches, written through the store's own functions.

What the pages show without a model: hits are made up (near the truth for large backbones, farther for small
ones), deterministic, and every picture exists. `python tests/support/gallery_sample.py FOLDER --scale` makes
one of the users' size.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from databases import settings_of
from PIL import Image, ImageDraw
from recorded_runs import record_fixes, record_run, record_track

from coarseloc.core import geo
from coarseloc.core.camera import ALTITUDE_AND_FOV
from coarseloc.core.config import CustomBackbone, Settings
from coarseloc.core.fixes import METHOD, FixConditions, FrameFix, NoMatch, NotVerified, Pose2D, RunnerUp
from coarseloc.core.tracks import AlternativePlace, TrackEstimate, TrackMode, TrackState
from coarseloc.core.types import (
    Covariance,
    EmbeddingSpec,
    Failure,
    Flight,
    Frame,
    LonLat,
    Pose,
    ReferenceSet,
    Tile,
    Timing,
    View,
)
from coarseloc.imagery.decode import content_digest, thumbnail_path, write_thumbnail
from coarseloc.localize.tracking.motion import Displacement
from coarseloc.store import Database, embeddings, flights, open_database, references, studies
from coarseloc.store.studies import CurvePoint
from search.evaluation.studies.rotation import EIGHT_HEADINGS, EIGHT_QUERIES, FOUR_HEADINGS, KNOWN_YAW, ONE_HEADING
from search.tracking.flight_track import TrackRequest
from search.tracking.frames import RecordedEvidence

ORIGIN = LonLat(127.0276, 37.4979)  # the area's centre
ANGLES = tuple(range(0, 360, 45))
BACKBONES = {  # name: (dim, embed ms, search ms, typical error in tiles)
    "vits16": (384, 53.9, 1.19, 2.2),
    "vits16+": (384, 59.2, 0.41, 1.7),
    "vitb16": (768, 91.4, 0.57, 1.1),
    "vitl16": (1024, 188.7, 3.92, 0.5),
    "vitl16sat": (1024, 189.2, 4.13, 0.4),
    "vith16+": (1280, 366.5, 4.45, 0.9),
}
VERIFIED = ("vitl16sat", "vith16+")  # the backbones whose frames were looked for on the map
SOURCE_GONE = "area.tif is no longer where it was: bring it back, or ingest it again"


@dataclass(frozen=True)
class Shape:
    """How large a sample is."""

    columns: int = 6
    rows: int = 5
    frames: int = 12
    flights: Sequence[str] = ("251124155712", "251125101500")
    dim: int | None = None  # the backbones' own
    footprint_m: float = 300.0
    pixels: int = 96  # of a tile
    own_pictures: bool = True  # False: all tiles share a few pictures' bytes
    specs: Mapping[str, EmbeddingSpec] | None = None  # in place of made-up ones, by backbone
    verified: Sequence[str] = VERIFIED

    @property
    def stride_m(self) -> float:
        return self.footprint_m / 2

    def spec(self, name: str) -> EmbeddingSpec:
        return self.specs[name] if self.specs else spec(name, self.dim)


SMALL = Shape()
# A flight of 10,000 frames that six backbones have answered by two methods.
LONG = Shape(24, 20, 10_000, ("251126120000",), dim=8, own_pictures=False, verified=tuple(BACKBONES))
USERS = Shape(columns=72, rows=64, frames=500, dim=8, pixels=96, own_pictures=False)  # 36,864 rotated tiles


def make_gallery(data_dir: Path, shape: Shape = SMALL) -> Settings:
    """Fill `data_dir`; returns the settings that open it."""
    settings = settings_of(data_dir)
    random = np.random.default_rng(7)
    area = _Area(shape, random)
    database = open_database(settings.database)
    with database.write() as session:
        stored = references.save_reference_set(
            session, ReferenceSet("gangnam-300m", "orthophoto", "area.tif", 300.0, 0.5, shape.footprint_m, ANGLES)
        )
    tiles = [area.tile(index) for index in range(1, shape.columns * shape.rows + 1)]
    keys = _write_tiles(database, settings, stored, area, tiles, shape)
    _write_embeddings(database, shape, keys, random)
    for number, flight_id in enumerate(shape.flights):
        _fly(database, stored, data_dir / "flights" / flight_id, area, tiles, keys, number, random)
    with database.write() as session:
        references.save_failures(
            session,
            stored.id,
            [Failure("tile 12 at 045", "read", "unreadable", "area.tif: strip 7 is damaged or cut short")],
        )
    database.close()
    return settings


def add_embedded(data_dir: Path, backbone: CustomBackbone) -> Path:
    """Add the set `drawn-200m`, cut from a GeoTIFF and embedded by a small model, so that uploads can be searched;
    register the model in `coarseloc.toml`. Returns a picture of its tile 5 at heading 90."""
    from coarseloc.embedding import specs, weights
    from coarseloc.embedding.backbone import embedding_spec, load_backbone
    from coarseloc.imagery.geotiff import write_rgb
    from coarseloc.imagery.orthophoto import open_orthophoto
    from ingest.worker import run

    settings = settings_of(data_dir)
    drawing = np.asarray(_draw(420, 420, np.random.default_rng(11)))
    photo = write_rgb(data_dir / "drawn.tif", drawing, center=ORIGIN, gsd_m=1.0)
    source = open_orthophoto(
        photo, name="drawn-200m", footprint_m=200.0, altitude_m=200.0, overlap=0.5, angles=(0, 90, 180, 270), tile_px=96
    )
    found = weights.require(specs.row(backbone.name, specs.table([backbone])), settings.weights)
    cache = data_dir / "cache"
    database = open_database(settings.database)
    run(
        database,
        source,
        [embedding_spec(found, input_px=64, cache_dir=cache)],
        lambda one: load_backbone(found, input_px=one.input_px, device="cpu", cache_dir=cache, threads=1),
        settings.thumbnails,
    )
    database.close()
    toml = f"input_px = 64\ndevice = 'cpu'\n[[backbones]]\nname = {backbone.name!r}\npath = {str(backbone.path)!r}\n"
    (data_dir / "coarseloc.toml").write_text(toml, encoding="utf-8")
    query = data_dir / "query.png"
    (view,) = source.views(source.tiles[4], [90])
    Image.fromarray(view.pixels).save(query)
    return query


def record_rotation(settings: Settings) -> int:
    """A finished rotation study; its numbers are made up. Returns its number."""
    ways = [ONE_HEADING, FOUR_HEADINGS, EIGHT_HEADINGS, EIGHT_QUERIES, KNOWN_YAW]
    database = open_database(settings.database)
    with database.write() as session:
        asked = {"ground": {"source": "area.tif", "footprint_m": 300, "stride_m": 150}, "step": 45,
                 "backbones": {"vits16": "d" * 64}}  # fmt: skip
        study = studies.start_study(session, "rotation", asked, {"device": "cpu", "warm_up": 3}).id
        points = [
            CurvePoint("vits16", curve, float(turn), round(1 - turn * (360 - turn) / 80_000 * weight, 4), None, None, 9)
            for curve, weight in [("cosine", 1.0), ("cosine_other", 2.0)]
            + [(f"{name}@{k}", 1.0) for name in ("recall", "margin") for k in (1, 4, 8)]
            for turn in range(0, 360, 45)
        ]
        way = dict.fromkeys(("recall", "low", "high"), 0.5) | dict.fromkeys(("gain", "gain_low", "gain_high"), 0.0)
        way |= {"error_m": 90.0, "heading_error_deg": 9.0, "embed_ms": 50.0, "search_ms": 0.1}
        way |= {"index_bytes": 10_000, "n": 9}
        found = {"ways": {"vits16": [way | {"name": name} for name in ways]}, "frames": 9, "references": 9}
        studies.finish_study(session, study, points, found)
    database.close()
    return study


def record_sample_track(
    settings: Settings,
    flight_id: str,
    *,
    online: bool = False,
    runs: Sequence[int] = (),
    request: TrackRequest | None = None,
) -> None:
    """A track of a flight of the sample: acquiring at frame 1, lost in a cloud at 3 and 4, off the map from 9 to 10 and
    from 15 to 16, and so on; recovered at the frame after. The smoothed track knows the first frame, and no more."""
    database = open_database(settings.database)
    with database.read() as session:
        frames = flights.find_flight(session, flight_id).flight.frames
    causal, smoothed, evidence = {}, {}, {}
    for number, frame in enumerate(frames):
        place = frame.truth.location or geo.offset(ORIGIN, 80.0 * number, 40.0 * number)
        causal[frame.index] = _track_estimate(frame.index, place, "causal")
        smoothed[frame.index] = _track_estimate(frame.index, place, "smoothed")
        cloud = frame.index in (1, 3, 4)
        motion = None if cloud else Displacement(0.0, 80.0, 5.0, 0.0, np.eye(4))
        evidence[frame.index] = RecordedEvidence(aspect=1.0, motion=motion)
    record_track(database, flight_id, causal, {} if online else smoothed, evidence, request=request, runs=runs)
    database.close()


def _track_estimate(index: int, place: LonLat, mode: TrackMode) -> TrackEstimate:
    states: dict[int, TrackState] = {3: "lost", 4: "lost", 5: "recovered"}
    state: TrackState = "acquiring" if index == 1 and mode == "causal" else states.get(index % 6, "tracking")
    claimed, beyond = state in ("tracking", "recovered"), state == "lost" and index > 6
    other = AlternativePlace(geo.offset(place, -300.0, 200.0), 90.0, 0.3)
    return TrackEstimate(
        index=index,
        mode=mode,
        state=state,
        ground=geo.offset(place, 3.0 if mode == "causal" else 1.0, -2.0) if claimed else None,
        ground_covariance_m2=Covariance(16.0, 4.0, 9.0) if claimed else None,
        heading_deg=45.0 if claimed else None,
        heading_sd_deg=0.2 if claimed else None,
        scale=1.01 if claimed else None,
        speed_mps=None,
        probability=0.97 if claimed else 0.35,
        p_off_map=0.8 if beyond else 0.01,
        p_blind=0.02,
        odometry="frames",
        reset_counter=1 + (index + 1) // 6,
        measured=claimed,
        searched="nearby" if claimed else "map" if state == "acquiring" else None,
        alternatives=(other, other) if state == "acquiring" else (),
    )


class _Area:
    """Fields, water, houses and roads, drawn once; tiles and frames are cut out of it."""

    def __init__(self, shape: Shape, random: np.random.Generator) -> None:
        self.shape = shape
        self.east_m = (shape.columns + 1) * shape.stride_m
        self.north_m = (shape.rows + 1) * shape.stride_m
        self.metres_per_pixel = shape.footprint_m / shape.pixels
        if not shape.own_pictures:
            self.metres_per_pixel *= 4
        self.picture = _draw(
            round(self.east_m / self.metres_per_pixel), round(self.north_m / self.metres_per_pixel), random
        )

    def tile(self, index: int) -> Tile:
        row, column = divmod(index - 1, self.shape.columns)
        center = geo.offset(
            ORIGIN,
            (column + 1) * self.shape.stride_m - self.east_m / 2,
            self.north_m / 2 - (row + 1) * self.shape.stride_m,
        )
        return Tile(index, center, geo.square(center, self.shape.footprint_m))

    def cut(self, center: LonLat, heading_deg: float, side_m: float, pixels: int) -> np.ndarray:
        """A square picture around `center` whose upper edge faces `heading_deg`."""
        per_lon, per_lat = geo.metres_per_degree(ORIGIN.lat)
        x = ((center.lon - ORIGIN.lon) * per_lon + self.east_m / 2) / self.metres_per_pixel
        y = (self.north_m / 2 - (center.lat - ORIGIN.lat) * per_lat) / self.metres_per_pixel
        step = side_m / self.metres_per_pixel / pixels
        cos, sin = math.cos(math.radians(heading_deg)) * step, math.sin(math.radians(heading_deg)) * step
        half = pixels / 2
        turned = (cos, -sin, x - (cos - sin) * half, sin, cos, y - (sin + cos) * half)
        cut = self.picture.transform((pixels, pixels), Image.Transform.AFFINE, turned, Image.Resampling.BILINEAR)
        return np.asarray(cut)


def _draw(width: int, height: int, random: np.random.Generator) -> Image.Image:
    margin = 80  # tiles at the edge look over it when turned
    image = Image.new("RGB", (width + 2 * margin, height + 2 * margin), (126, 140, 96))
    pen = ImageDraw.Draw(image)
    for _ in range(width * height // 1500):
        x, y = random.integers(0, image.width), random.integers(0, image.height)
        w, h = random.integers(16, 60, 2)
        shade = random.integers(-24, 24)
        base = [(150, 158, 100), (98, 120, 72), (176, 164, 124), (116, 134, 88)][random.integers(4)]
        pen.rectangle((x, y, x + w, y + h), tuple(int(c + shade) for c in base))
    for _ in range(max(2, width * height // 90_000)):
        x, y, r = random.integers(0, image.width), random.integers(0, image.height), random.integers(14, 40)
        pen.ellipse((x, y, x + 2 * r, y + r), (58, 92, 112))
    for _ in range(max(6, (width + height) // 70)):
        a = (int(random.integers(0, image.width)), 0)
        b = (int(random.integers(0, image.width)), image.height)
        if random.random() < 0.5:
            a, b = (0, int(random.integers(0, image.height))), (image.width, int(random.integers(0, image.height)))
        pen.line((a, b), (188, 184, 176), int(random.integers(2, 6)))
    for _ in range(width * height // 420):
        x, y = random.integers(0, image.width), random.integers(0, image.height)
        w, h = random.integers(3, 9, 2)
        roof = [(168, 92, 72), (120, 118, 120), (202, 198, 190)][random.integers(3)]
        pen.rectangle((x + 1, y + 1, x + w + 1, y + h + 1), (60, 64, 56))
        pen.rectangle((x, y, x + w, y + h), roof)
    return image.crop((margin, margin, margin + width, margin + height))


def _write_tiles(
    database: Database,
    settings: Settings,
    stored: references.StoredReferenceSet,
    area: _Area,
    tiles: Sequence[Tile],
    shape: Shape,
) -> dict[tuple[int, int], int]:
    with database.write() as session:
        tile_keys = references.save_tiles(session, stored.id, tiles)
    keys: dict[tuple[int, int], int] = {}
    for start in range(0, len(tiles), 250):
        views = [
            (tile, _view(settings, area, tile, angle, shape), "sample")
            for tile in tiles[start : start + 250]
            for angle in ANGLES
        ]
        with database.write() as session:
            keys |= references.save_views(session, stored.name, tile_keys, views)
    return keys


def _view(settings: Settings, area: _Area, tile: Tile, angle: int, shape: Shape) -> View:
    pixels = area.cut(tile.center, angle, shape.footprint_m, shape.pixels if shape.own_pictures else 48)
    digest = content_digest(pixels)
    if not shape.own_pictures:
        digest = hashlib.sha256(f"{tile.index}/{angle}".encode()).hexdigest()
    picture = thumbnail_path(settings.thumbnails, digest)
    if shape.own_pictures or angle == 0:
        write_thumbnail(pixels, picture)
    else:  # at the users' size a turned tile shows its unturned picture
        unturned = thumbnail_path(settings.thumbnails, hashlib.sha256(f"{tile.index}/0".encode()).hexdigest())
        picture.parent.mkdir(parents=True, exist_ok=True)
        if not picture.exists():
            os.link(unturned, picture)
    return View(angle, pixels, digest, 1.0, None)


def spec(name: str, dim: int | None = None) -> EmbeddingSpec:
    return EmbeddingSpec(name, dim or BACKBONES[name][0], f"sample-{name}", 224, (0.5,) * 3, (0.5,) * 3, "cls")


def _write_embeddings(
    database: Database, shape: Shape, keys: dict[tuple[int, int], int], random: np.random.Generator
) -> None:
    for name in BACKBONES:
        one = shape.spec(name)
        vectors = random.standard_normal((len(keys), one.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = list(zip(keys.items(), vectors, strict=True))
        for start in range(0, len(rows), 4000):
            with database.write() as session:
                stored = embeddings.save_spec(session, one)
                embeddings.write_embeddings(
                    session,
                    [(key, stored.id, "sample", vector) for (_, key), vector in rows[start : start + 4000]],
                )


def _fly(
    database: Database,
    reference_set: references.StoredReferenceSet,
    folder: Path,
    area: _Area,
    tiles: Sequence[Tile],
    keys: dict[tuple[int, int], int],
    number: int,
    random: np.random.Generator,
) -> None:
    shape = area.shape
    folder.mkdir(parents=True)
    frames = []
    for index in range(1, shape.frames + 1):
        center, yaw = _pose(area, index / shape.frames, number)
        path = folder / f"{folder.name}_{index:05d}.jpg"
        if shape.own_pictures or index <= 40:
            Image.fromarray(area.cut(center, yaw, shape.footprint_m, 240)).save(path, quality=88)
        else:
            os.link(folder / f"{folder.name}_{index % 40 + 1:05d}.jpg", path)
        frames.append(Frame(index, path, path.name, Pose(center, 340.0, yaw) if number == 0 else Pose()))
    source = "labels" if number == 0 else "none"
    flight = Flight(folder.name, folder, tuple(frames), None, source)
    centers = np.array([tile.center for tile in tiles])
    for name, (_, embed_ms, search_ms, typical_error) in BACKBONES.items():
        with database.write() as session:
            saved = embeddings.save_spec(session, shape.spec(name))
        found: dict[int, Any] = {}
        for frame in frames:
            center, yaw = _pose(area, frame.index / shape.frames, number)
            hits = _hits(center, yaw, centers, keys, typical_error, shape, random)
            times = Timing(8.0, embed_ms * random.normal(1, 0.03), search_ms * random.lognormal(0, 0.15))
            found[frame.index] = (times, hits)
        run = record_run(
            database, flight, reference_set, saved,
            {"k": 10, "where": {}, "batch": 1, "angle_deg": None, "index_version": "sample"},
            {"backend": "faiss-cpu", "device": "cpu", "warm_up": 3},
            found, count=len(keys),
        )  # fmt: skip
        if name in shape.verified:
            poses = {frame.index: _pose(area, frame.index / shape.frames, number) for frame in frames}
            record_fixes(database, run, {index: sample_fix(index, *pose, shape) for index, pose in poses.items()})


def sample_fix(index: int, center: LonLat, yaw: float, shape: Shape) -> FrameFix:
    """Every sixth frame from the fourth has no match, from the fifth was not verified; the others lie 4 m off, seen by
    a camera so tilted that their corners are no parallelogram's."""
    conditions = FixConditions(
        shape.footprint_m, ALTITUDE_AND_FOV, "gangnam-300m", shape.footprint_m / shape.pixels, 1.5, "given", 350.0
    )
    if index % 6 == 4:
        return FrameFix(NoMatch("ambiguous", 0.21, 0.01, 0.04, "c" * 64), conditions)
    if index % 6 == 5:
        return FrameFix(NotVerified(SOURCE_GONE))
    ground = geo.offset(center, 9.0, -6.0)
    upper_left, upper_right, lower_right, lower_left = (
        _on_ground(ground, yaw, across * shape.footprint_m / 2, ahead * shape.footprint_m / 2)
        for across, ahead in ((-1, 1), (1, 1), (1, -1), (-1, -1))
    )
    pose = Pose2D(
        ground=ground,
        ground_covariance_m2=Covariance(4.0, 1.0, 2.5),
        aircraft=geo.offset(center, 4.0, 0.0),
        aircraft_covariance_m2=Covariance(32.0, 6.0, 20.0),
        heading_deg=(yaw + 0.4) % 360.0,
        heading_sd_deg=0.05,
        tilt_deg=2.1,
        tilt_sd_deg=1.0,
        scale=1.01,
        score=0.71,
        margin=0.48,
        hypotheses=9,
        probability=0.9 + 0.099 * (index % 3) / 2,
        attitude="label",
        method=METHOD,
        fit_digest="c" * 64,
        corners=(upper_left, upper_right, lower_right, lower_left),
        runner_up=RunnerUp(geo.offset(ground, -400.0, 300.0), (yaw + 90.0) % 360.0, 0.23),
    )
    return FrameFix(pose, conditions)


def _on_ground(center: LonLat, yaw: float, right_m: float, ahead_m: float) -> LonLat:
    """Where the corner of a frame lies that a camera pitched up sees: the farther ahead, the wider."""
    widening = 1.0 + 0.0006 * ahead_m
    return geo.offset(center, *geo.turned_m(right_m * widening, ahead_m * widening, yaw))


def _pose(area: _Area, along: float, number: int) -> tuple[LonLat, float]:
    """A slow curve over the area, another one for each flight."""
    turn = 2 * math.pi * along
    east = 0.36 * area.east_m * math.sin(turn * (1 + number))
    north = 0.34 * area.north_m * math.cos(turn)
    d_east, d_north = math.cos(turn * (1 + number)) * (1 + number) * area.east_m, -math.sin(turn) * area.north_m
    return geo.offset(ORIGIN, east, north), math.degrees(math.atan2(d_east, d_north)) % 360


def _hits(
    center: LonLat,
    yaw: float,
    centers: np.ndarray,
    keys: dict[tuple[int, int], int],
    typical_error: float,
    shape: Shape,
    random: np.random.Generator,
) -> list[tuple[int, float]]:
    """Ten distinct rotated tiles around where this backbone believes to be, best first."""
    astray = random.exponential(typical_error) * shape.stride_m if random.random() < 0.6 else 0.0
    direction = random.uniform(0, 2 * math.pi)
    believed = geo.offset(center, astray * math.cos(direction), astray * math.sin(direction))
    far = geo.distance_m(believed.lon, believed.lat, centers[:, 0], centers[:, 1])
    nearest = np.argsort(far)[:6]
    angle = min(ANGLES, key=lambda a: geo.heading_difference(a, yaw))
    ranked = [(int(tile) + 1, (angle + turn) % 360) for turn in (0, 45, 315) for tile in nearest][:10]
    scores = 0.995 - 0.012 * random.random() - np.cumsum(np.r_[0, random.exponential(0.0015, 9)])
    return [(keys[key], float(score)) for key, score in zip(ranked, scores, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", action="store_true", help="36,864 rotated tiles, two flights of 500 frames")
    parser.add_argument("--long", action="store_true", help="a flight of 10,000 frames, each verified by each backbone")
    asked = parser.parse_args()
    print(make_gallery(asked.folder, LONG if asked.long else USERS if asked.scale else SMALL).database)
