"""A small world for every test of search: six places at four headings, embedded, and a flight over them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from databases import SERVER, database_url
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.types import Backbone, Flight, Frame, LonLat, Pose, ReferenceSet, Tile, UInt8, View
from coarseloc.imagery.decode import content_digest
from coarseloc.store import Database, embeddings, open_database, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet

ORIGIN = LonLat(127.03, 37.50)
FOOTPRINT_M = 300.0
ANGLES = (0, 90, 180, 270)
PLACES = 6


def picture(place: int, angle_deg: int = 0) -> UInt8:
    """What lies at a place, with `angle_deg` at its upper edge."""
    blocks = np.random.default_rng(place).integers(0, 256, (8, 8, 3), np.uint8)
    north_up = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return np.ascontiguousarray(np.rot90(north_up, angle_deg // 90))


@dataclass
class World:
    """A database with a reference set, and where its derived files go."""

    db: Database
    folder: Path
    reference_set: StoredReferenceSet
    origin: LonLat = ORIGIN  # of the first place, the north-west corner

    @property
    def mirrors(self) -> Path:
        return self.folder / "mirrors"

    @property
    def thumbnails(self) -> Path:
        return self.folder / "thumbnails"

    def centre(self, place: int) -> LonLat:
        return geo.offset(self.origin, 150.0 * (place % 3), -150.0 * (place // 3))

    def embed(self, backbone: Backbone, places: range = range(PLACES), shift: int = 0) -> StoredSpec:
        """Write the tiles' embeddings; another `shift` changes every picture."""
        name, stored = self.reference_set.name, self.reference_set
        tiles = [Tile(i + 1, self.centre(i), geo.square(self.centre(i), FOOTPRINT_M)) for i in places]
        seen = [(tile, a, picture(tile.index - 1 + shift, a)) for tile in tiles for a in stored.reference_set.angles]
        with self.db.write() as session:
            spec = embeddings.save_spec(session, backbone.spec)
            keys = references.save_tiles(session, stored.id, tiles)
            views = [
                (tile, View(a, pixels, content_digest(pixels), 1.0, self._path(tile, a)), "stamp")
                for tile, a, pixels in seen
            ]
            rotated = references.save_views(session, name, keys, views)
            vectors = backbone.embed(np.stack([pixels for _, _, pixels in seen]))
            rows = [
                (rotated[tile.index, view.angle_deg], spec.id, view.content_digest, vector)
                for (tile, view, _), vector in zip(views, vectors, strict=True)
            ]
            embeddings.write_embeddings(session, rows)
        return spec

    def _path(self, tile: Tile, angle: int) -> Path | None:
        if self.reference_set.reference_set.kind == "orthophoto":
            return None
        return Path(f"/captures/251210182149_300_50_0_{angle:03d}_{tile.index:05d}.jpg")

    def add_reference_set(self, name: str, kind: str = "captures") -> World:
        facts = ReferenceSet(name, kind, "made up", 300.0, 0.5, FOOTPRINT_M, ANGLES)
        with self.db.write() as session:
            return replace(self, reference_set=references.save_reference_set(session, facts))

    def flight(self, frames: int = PLACES, truth: bool = True, flight_id: str = "251124155712") -> Flight:
        """Frame i is taken over place i, 30 m east of its centre, flying east."""
        folder = self.folder / flight_id
        folder.mkdir(exist_ok=True)
        made = []
        for i in range(frames):
            path = folder / f"{flight_id}_{i + 1:05d}.png"
            Image.fromarray(picture(i % PLACES, 90)).save(path)
            where = geo.offset(self.centre(i % PLACES), 30.0, 0.0)
            pose = Pose(LonLat(*where), 300.0, yaw_deg=80.0) if truth else Pose()
            made.append(Frame(i + 1, path, path.name, pose))
        return Flight(flight_id, folder, tuple(made), None, "labels" if truth else "none")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied: migrating takes longer than most tests here."""
    path = tmp_path_factory.mktemp("empty") / "coarseloc.db"
    open_database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def world(tmp_path: Path, empty_database: Path) -> Iterator[World]:
    """Nothing is embedded yet: `world.embed(backbone)` does."""
    if not SERVER:
        shutil.copy(empty_database, tmp_path / "coarseloc.db")
    db = open_database(database_url(tmp_path))
    empty = World(db, tmp_path, None)  # type: ignore[arg-type]
    yield empty.add_reference_set("gangnam-300m")
    db.close()
