"""What the torture kills, and what must hold afterwards. Each command runs in a forked child of `kills.py`.

A command acknowledges what it has committed, line by line; whatever was acknowledged must be there after the kill.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from databases import database_url, empty, settings_of
from PIL import Image
from sqlalchemy import Connection, inspect, text
from whole import whole

import web
from coarseloc.core import geo
from coarseloc.core.config import Settings
from coarseloc.core.types import LonLat
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.decode import content_digest
from coarseloc.imagery.flights import open_flight
from coarseloc.store import Database, embeddings, open_database, references, runs, tallies
from coarseloc.store.session import open_engine
from coarseloc.vectors import open_store, sync
from ingest import worker
from search import flight as flight_search
from search import recorder

COLUMNS, ROWS, ANGLES, FRAMES = 8, 5, (0, 45, 90), 30
STAMP, FLIGHT, OTHER = "251210182149", "251124155712", "other"
ORIGIN, STRIDE_M = LonLat(127.03, 37.50), 150.0

Ack = Callable[[object], None]

# Small steps, so that a kill finds one half-way.
worker.COMMIT_SECONDS, worker.COMMIT_ROWS = 0.02, 24
sync.BATCH, sync.PER_FLUSH = 10, 20
recorder.COMMIT_EVERY_S = 0.02

_found = importlib.util.spec_from_file_location("shared_conftest", Path(__file__).parents[1] / "conftest.py")
assert _found and _found.loader
shared = importlib.util.module_from_spec(_found)
_found.loader.exec_module(shared)
BACKBONES = {b.spec.digest: b for b in (shared.FakeBackbone("one"), shared.FakeBackbone("two", dim=8))}
SPECS = [b.spec for b in BACKBONES.values()]


class World:
    """A folder with captures, a flight and a state; its pictures are known, so every vector can be foretold."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        self.state, self.captures, self.other = root / "state", root / "captures", root / OTHER
        self.flight, self.old = root / "flights" / FLIGHT, root / "old"
        self.url, self.old_url = database_url(self.state), database_url(self.old)
        self.pictures: dict[str, Any] = {}  # content digest → pixels
        self.asked = {"k": 3}
        _write_captures(self, self.captures, COLUMNS, ROWS)
        _write_captures(self, self.other, 3, 2)
        self.flight.mkdir(parents=True)
        for frame in range(1, FRAMES + 1):
            self.draw(self.flight / f"{FLIGHT}_{frame:05d}.png")

    def draw(self, path: Path) -> None:
        """A new picture at `path`, lossless."""
        coarse = np.frombuffer(self.rng.randbytes(192), np.uint8).reshape(8, 8, 3)
        pixels = np.kron(coarse, np.ones((6, 6, 1), np.uint8))
        Image.fromarray(pixels).save(path)
        self.pictures[content_digest(pixels)] = pixels

    @property
    def settings(self) -> Settings:
        return settings_of(self.state)

    def open(self) -> Database:
        return open_database(self.url)


def _write_captures(world: World, root: Path, columns: int, rows: int) -> None:
    for angle in ANGLES:
        capture = f"{STAMP}_300_50_0_{angle:03d}"
        (root / capture).mkdir(parents=True)
        labels = []
        for i in range(columns * rows):
            row, column = divmod(i, columns)
            at = geo.offset(ORIGIN, column * STRIDE_M, -row * STRIDE_M)
            name = f"{capture}_{i + 1:05d}.png"
            world.draw(root / capture / name)
            labels.append({"imageref": name, "position": {"longitude": at.lon, "latitude": at.lat}})
        (root / f"{capture}.json").write_text(json.dumps({"images": labels}), encoding="utf-8")


# --- the commands: what is to be done before, the command, what it acknowledges -----------------


def before_ingest(world: World) -> None:
    """Some pictures change."""
    files = sorted(world.captures.rglob("*.png"))
    for path in world.rng.sample(files, world.rng.randint(1, len(files))):
        world.draw(path)


def ingest(world: World, ack: Ack, root: Path | None = None) -> None:
    commit = worker._Writer.commit

    def committed(writer: Any) -> None:
        seen = {(tile.index, view.angle_deg): view.content_digest for tile, view, _ in writer._views}
        done = [[*key[:2], key[2], seen[key[:2]]] for key in writer._vectors]
        commit(writer)
        if root is None:
            ack(["embedded", done])

    worker._Writer.commit = committed
    db = world.open()
    source = open_captures(root or world.captures)[0]
    worker.run(db, source, SPECS, lambda spec: BACKBONES[spec.digest], world.state / "thumbnails")
    _drain(world, db, ack)


def _drain(world: World, db: Database, ack: Ack) -> None:
    with open_store(world.state, db.identity) as store:
        sync.drain(db, store)
    ack(["drained"])


def before_drain(world: World) -> None:
    """The vector store lacks points and knows it, or has lost a collection altogether."""
    with open_store(world.state, world.open().identity) as store:
        for collection in store.collections():
            points = sorted(store.ids(collection))
            lacking = world.rng.sample(points, world.rng.randint(0, len(points)))
            store.delete(collection, lacking)
            store.flush(collection)
            if lacking:
                with open_engine(world.url).begin() as connection:
                    connection.execute(
                        text(
                            "UPDATE embeddings SET indexed_generation = 0 WHERE"
                            " rotated_tile_id IN (SELECT id FROM rotated_tiles WHERE point_id = :point)"
                            " AND spec_id IN (SELECT id FROM embedding_specs WHERE dim = :dim)"
                        ),
                        [{"point": point, "dim": 8 if collection.startswith("two") else 16} for point in lacking],
                    )
    if world.rng.random() < 0.3:
        shutil.rmtree(world.rng.choice([p for p in (world.state / "vectors").glob("*/*") if p.is_dir()]))


def drain(world: World, ack: Ack) -> None:
    _drain(world, world.open(), ack)


def rebuild(world: World, ack: Ack) -> None:
    db = world.open()
    with open_store(world.state, db.identity) as store:
        sync.rebuild(db, store)
    ack(["rebuilt"])


def forget(world: World, ack: Ack) -> None:
    """Delete the other reference set everywhere; one that is gone already is the end of the work."""
    db = world.open()
    with db.read() as session:
        names = [one.name for one in references.reference_sets(session)]
    if f"{OTHER}-300m-50" in names:
        with open_store(world.state, db.identity) as store:
            sync.delete_reference_set(db, store, f"{OTHER}-300m-50")
    ack(["forgotten"])


def before_search(world: World) -> None:
    """Another question, so that it is a new run; now and then the mirrors are gone."""
    world.asked = {"k": world.rng.randint(1, 50)}
    if world.rng.random() < 0.5:
        shutil.rmtree(world.state / "mirrors", ignore_errors=True)


def search(world: World, ack: Ack) -> None:
    save = flight_search._save

    def saved(db: Any, started: Any, frame_keys: Any, outcomes: Any) -> None:
        save(db, started, frame_keys, outcomes)
        ack(["searched", started[0].id, [outcome.frame.index for outcome in outcomes]])

    flight_search._save = saved
    db = world.open()
    flight = open_flight(world.flight)
    with db.read() as session:
        found = references.find_reference_set(session, "captures-300m-50")
    for backbone in BACKBONES.values():
        (run,) = flight_search.run_search(db, world.state / "mirrors", flight, [found], backbone, **world.asked)
        ack(["finished", run])


def before_migrate(world: World) -> None:
    """A database of the first schema with something in it, or none at all."""
    empty(world.old)
    if world.rng.random() < 0.3:
        return
    from alembic import command

    from coarseloc.store.session import _alembic_config

    config = _alembic_config()
    with open_engine(world.old_url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO flights (flight_id, path, truth_source) VALUES ('kept', '/somewhere', 'none')"
        )


def migrate(world: World, ack: Ack) -> None:
    open_database(world.old_url).close()
    ack(["migrated"])


def serve(world: World, ack: Ack) -> None:
    web.serve(world.settings, port=0, ready=lambda url: ack(["ready", url]))


def before_serve(world: World) -> None:
    """Pictures must be made anew while it is killed."""
    shutil.rmtree(world.state / "thumbnails", ignore_errors=True)


# --- what must hold -------------------------------------------------------------------------------


def check_truth(world: World, acknowledged: list[Any]) -> None:
    """The database is sound, holds no half of anything, and all that was acknowledged."""
    with open_engine(world.url).connect() as connection:
        if not inspect(connection).get_table_names():
            assert not acknowledged
            return
        _check_file(connection)
    db = world.open()
    with db.read() as session:
        assert tallies.miscounts(session) == {}
        stored_specs = {s.id: s.embedding_spec for s in embeddings.specs(session)}
        held: dict[tuple[str, int, int, int], str] = {}
        for one in references.reference_sets(session):
            for spec_id, spec in stored_specs.items():
                found = whole(session, one.id, spec_id)
                facts = embeddings.facts_by_key(session, [int(k) for k in found.rotated_tile_ids])
                made_of = embeddings.embedded_contents(session, one.id, spec_id)
                for key, fact, vector in zip(found.rotated_tile_ids, found.facts, found.vectors, strict=True):
                    content = made_of[int(key)]
                    expected = BACKBONES[spec.digest].embed(world.pictures[content][None])[0]
                    np.testing.assert_allclose(vector, expected, atol=1e-6)
                    held[one.name, int(fact.tile_id[-5:]), fact.angle_deg, spec_id] = content
                    assert len(facts[int(key)][2]) == 64
        for kind, *what in acknowledged:
            if kind == "embedded":
                for tile, angle, spec_id, content in what[0]:
                    assert held["captures-300m-50", tile, angle, spec_id] == content, "an acknowledged vector is lost"
            elif kind == "searched":
                answered = {r.frame.index for r in runs.results(session, what[0])}
                assert answered >= set(what[1]), "an acknowledged answer is lost"
            elif kind == "finished":
                _check_run(world, session, what[0])
    db.close()


def _check_file(connection: Connection) -> None:
    """SQLite finds nothing wrong with its own file; a server looks after that itself."""
    if connection.dialect.name == "sqlite":
        assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def _check_run(world: World, session: Any, run: int) -> None:
    """Every frame once, its hits as brute force gives them until k places are reached, its estimate the best one."""
    found = runs.results(session, run)
    assert [r.frame.index for r in found] == list(range(1, FRAMES + 1))
    (stored,) = (one for one in runs.runs(session, FLIGHT) if one.id == run)
    (searched,) = (one for one in references.reference_sets(session) if one.uid in stored.set_uids)
    truth, k = whole(session, searched.id, stored.spec.id), stored.parameters["k"]
    backbone = BACKBONES[stored.spec.digest]
    for result in found:
        pixels = np.asarray(Image.open(result.frame.path))
        scores = np.sort(truth.vectors @ backbone.embed(pixels[None])[0])[::-1]
        given = [hit.score for hit in result.hits]
        np.testing.assert_allclose(given, scores[: len(given)], atol=1e-5)
        assert len(given) >= k and len({hit.tile.place_id for hit in result.hits}) == min(k, COLUMNS * ROWS)
        assert result.estimate is not None and result.estimate.tile == result.hits[0].tile, "a frame without its answer"


def check_index(world: World) -> None:
    """`reconcile` is clean, and nothing is pending."""
    db = world.open()
    with open_store(world.state, db.identity) as store:
        for difference in sync.reconcile(db, store):
            assert not (difference.missing or difference.orphaned or difference.differing), difference
    with db.read() as session:
        assert embeddings.pending_counts(session) == {}


def check_claims(world: World) -> None:
    """Right after a kill: what the database calls indexed is there, or its collection is gone and will be replayed."""
    db = world.open()
    with open_store(world.state, db.identity) as store:
        there = store.collections()
        for difference in sync.reconcile(db, store):
            if difference.collection in there:
                assert not (difference.missing or difference.differing), difference


def check_migrated(world: World, finished: bool) -> None:
    with open_engine(world.old_url).connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables:
            assert not finished
            return
        _check_file(connection)
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        assert ("studies" in tables) == (revision != "0001"), "a schema half-way between two"
        assert not finished or "studies" in tables


def browse(world: World, url: str, seed: int, whole: bool) -> None:
    """A client: pages and pictures at random until the server is gone, or each once and all of them sound."""
    rng = random.Random(seed)
    with world.open().read() as session:
        tiles = [int(k) for k in references_keys(session)]
    paths = ["flights.json", f"flights/{FLIGHT}.json", f"flights/{FLIGHT}", f"flights/{FLIGHT}/1", "readyz"]
    paths += [f"images/tiles/{key}.jpg?size={rng.choice(['thumb', 'full'])}" for key in tiles]
    paths += [f"images/frames/{FLIGHT}/{frame}.jpg?size=view" for frame in range(1, FRAMES + 1)]
    rng.shuffle(paths)
    for path in paths if whole else (rng.choice(paths) for _ in range(10_000)):
        try:
            with urllib.request.urlopen(url + path, timeout=30) as answer:
                body = answer.read()
                kind = answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            assert error.code < 500 and not whole, f"{path}: {error.code} {error.read()[:300]!r}"
            continue
        except OSError:
            assert not whole, f"{path}: no answer"
            return
        except Exception:  # cut off in the middle of an answer
            assert not whole
            return
        if kind == "image/jpeg":
            Image.open(BytesIO(body)).load()  # a picture is whole, or not there


def references_keys(session: Any) -> list[int]:
    return [
        row.id
        for one in references.reference_sets(session)
        for row in references.rotated_tiles(session, one.id).values()
    ]
