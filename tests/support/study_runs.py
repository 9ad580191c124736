"""SearchRuns made up in a database: as many backbones, frames and hits as asked for, with a known truth.

No model and no search: scores fall with the distance to the truth, and each backbone adds more noise than the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from recorded_runs import places_of, record_run

from coarseloc.core import geo
from coarseloc.core.types import EmbeddingSpec, Flight, Frame, LonLat, Pose, ReferenceSet, Tile, Timing, View
from coarseloc.imagery.decode import thumbnail_path, write_thumbnail
from coarseloc.store import Database, embeddings, references

ORIGIN = LonLat(127.03, 37.50)
FOOTPRINT_M, OVERLAP = 300.0, 0.5
ANGLES = (0, 45, 90, 135, 180, 225, 270, 315)
NAMES = ("vits16", "vits16+", "vitb16", "vitl16", "vitl16sat", "vith16+")
FLIGHT = "251124155712"
ENVIRONMENT = {
    "backend": "faiss-cpu",
    "device": "cpu",
    "cpu": "made up",
    "cpu_count": 2,
    "warm_up": 3,
    "versions": {"coarseloc": "0.1.0", "torch": "none: times are made up"},
}


def make_runs(
    db: Database,
    folder: Path,
    *,
    backbones: int,
    frames: int,
    columns: int,
    rows: int,
    k: int,
    where: Mapping[str, Any] | None = None,
    seed: int = 1,
) -> list[int]:
    """The ids of one run per backbone. Frames 1, 2 have failed; 3, 4, 5 have no truth; 6 … 9 are off the map."""
    rng = np.random.default_rng(seed)
    stride = FOOTPRINT_M * (1 - OVERLAP)
    centres = [geo.offset(ORIGIN, c * stride, -r * stride) for r in range(rows) for c in range(columns)]
    tiles = [Tile(i, centre, geo.square(centre, FOOTPRINT_M)) for i, centre in enumerate(centres, 1)]
    flight = _flight(folder, frames, columns * stride, rows * stride, rng)
    with db.write() as session:
        reference_set = ReferenceSet("made-up", "captures", "nowhere", 300.0, OVERLAP, FOOTPRINT_M, ANGLES)
        stored_set = references.save_reference_set(session, reference_set)
        keys = references.save_tiles(session, stored_set.id, tiles)
        views = [(t, _view(folder, t, angle, rng), "stamp") for t in tiles for angle in ANGLES]
        rotated = references.save_views(session, "made-up", keys, views)
    return [_run(db, flight, stored_set, NAMES[b], b, tiles, rotated, k, where or {}, rng) for b in range(backbones)]


def _run(
    db: Database,
    flight: Flight,
    stored_set: references.StoredReferenceSet,
    name: str,
    level: int,
    tiles: list[Tile],
    rotated: Mapping[tuple[int, int], int],
    k: int,
    where: Mapping[str, Any],
    rng: np.random.Generator,
) -> int:
    lon, lat = np.array([tile.center for tile in tiles]).T
    dim = (384, 384, 768, 1024, 1024, 1280)[level]
    spec = EmbeddingSpec(name, dim, f"made-up-{name}", 224, (0.5,) * 3, (0.5,) * 3, "cls")
    parameters = {"k": k, "where": dict(where), "batch": 1, "index_version": "1", "angle_deg": None}
    with db.write() as session:
        stored_spec = embeddings.save_spec(session, spec)
    outcomes: dict[int, Any] = {}
    for frame in flight.frames:
        if frame.index <= 2:
            outcomes[frame.index] = "cannot be read"
            continue
        at = frame.truth.location or ORIGIN
        off = geo.distance_m(at.lon, at.lat, lon, lat) / 1000 + rng.normal(0, 0.04 * (1 + 2 * level), len(tiles))
        turn = np.array([geo.heading_difference(a, frame.truth.yaw_deg or 0.0) for a in ANGLES]) / 180
        score = 0.975 - 0.02 * (off[:, None] + 0.3 * turn + rng.normal(0, 0.02, (len(tiles), 8)))
        best = np.argsort(-score.ravel(), kind="stable")[:k]
        hits = [(rotated[tiles[i // 8].index, ANGLES[i % 8]], float(score.ravel()[i])) for i in best]
        times = rng.lognormal(0, 0.12, 3) * (18.0, (54, 59, 91, 189, 189, 367)[level], 0.4 + 0.6 * level)
        outcomes[frame.index] = (Timing(*map(float, times)), hits)
    places = places_of(db, stored_set)
    if near := where.get("near"):
        places = places[geo.distance_m(near["lon"], near["lat"], places[:, 0], places[:, 1]) <= near["radius_m"]]
    return record_run(
        db, flight, stored_set, stored_spec, parameters, ENVIRONMENT, outcomes,
        places=places, index_build_ms=12.0 + level, count=len(rotated),
    )  # fmt: skip


def _flight(folder: Path, frames: int, width_m: float, height_m: float, rng: np.random.Generator) -> Flight:
    root = folder / FLIGHT
    root.mkdir(parents=True, exist_ok=True)
    flight_frames = []
    for index in range(1, frames + 1):
        along = index / frames
        at = geo.offset(ORIGIN, 0.8 * width_m * along, -0.6 * height_m * (0.5 + 0.4 * np.sin(6 * along)))
        if 6 <= index <= 9:
            at = geo.offset(ORIGIN, -5000.0, 0.0)
        path = root / f"{FLIGHT}_{index:05d}.jpg"
        Image.fromarray(_picture(rng)).save(path, quality=80)
        location = None if 3 <= index <= 5 else at
        flight_frames.append(Frame(index, path, path.name, Pose(location, 300.0, float(rng.uniform(0, 360)), 0.0, 0.0)))
    return Flight(FLIGHT, root, tuple(flight_frames), None, "labels")


def _view(folder: Path, tile: Tile, angle: int, rng: np.random.Generator) -> View:
    digest = f"{tile.index:056d}{angle:08d}"
    write_thumbnail(_picture(rng), thumbnail_path(folder / "thumbnails", digest))
    return View(angle, np.zeros((1, 1, 3), np.uint8), digest, 1.0, None)


def _picture(rng: np.random.Generator) -> np.ndarray:
    return np.kron(rng.integers(60, 200, (6, 6, 3), np.uint8), np.ones((24, 24, 1), np.uint8))
