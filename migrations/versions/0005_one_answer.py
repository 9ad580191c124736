"""answers stored once (localizations, frame estimates), snapshots of what runs answered with, identities for good

It stands alone: what later versions make of these rows must not change how old ones are brought here.
"""

import hashlib
import json
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import PurePath
from typing import Any
from uuid import uuid4

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BATCH = 5000
EARTH_RADIUS_M = 6_371_008.8


def upgrade() -> None:
    connection = op.get_bind()
    _create_tables()
    connection.execute(
        sa.text("INSERT INTO database_identity (uid, created_at) VALUES (:uid, :now)").bindparams(
            sa.bindparam("now", type_=sa.DateTime(timezone=True))
        ),
        {"uid": uuid4().hex, "now": datetime.now(UTC)},
    )
    _identify_reference_sets(connection)
    _identify_flights(connection)
    _identify_frames(connection)
    sets = _reference_sets(connection)
    _detach_runs(connection, sets)
    _detach_hits(connection, sets)
    _store_estimates(connection)
    # Collections carry the database's id from now on: all points are to be written once more.
    op.execute("UPDATE embeddings SET indexed_generation = 0")


def _create_tables() -> None:
    op.create_table(
        "database_identity",
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_database_identity")),
    )
    op.create_table(
        "tile_snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("reference_set_uid", sa.String(32), nullable=False),
        sa.Column("reference_set", sa.String(200), nullable=False),
        sa.Column("tile_index", sa.Integer(), nullable=False),
        sa.Column("point_id", sa.String(36), nullable=False),
        sa.Column("place_id", sa.String(40), nullable=False),
        sa.Column("angle_deg", sa.Integer(), nullable=False),
        sa.Column("altitude_m", sa.Double(), nullable=True),
        sa.Column("overlap", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("lon", "lat", "west", "south", "east", "north")),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tile_snapshots")),
        sa.UniqueConstraint("digest", name=op.f("uq_tile_snapshots_digest")),
    )
    op.create_table(
        "search_maps",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_maps")),
        sa.UniqueConstraint("digest", name=op.f("uq_search_maps_digest")),
    )
    op.create_table(
        "localizations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("flight_pk", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("reference_sets", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["flight_pk"], ["flights.id"], name=op.f("fk_localizations_flight_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_localizations")),
        sa.UniqueConstraint("flight_pk", "method", "digest", name=op.f("uq_localizations_flight_pk_method_digest")),
    )
    op.create_index(op.f("ix_localizations_flight_pk"), "localizations", ["flight_pk"])
    op.create_table(
        "localization_runs",
        sa.Column("localization_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["localization_id"],
            ["localizations.id"],
            name=op.f("fk_localization_runs_localization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["search_runs.id"], name=op.f("fk_localization_runs_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("localization_id", "run_id", name=op.f("pk_localization_runs")),
    )
    op.create_index(op.f("ix_localization_runs_run_id"), "localization_runs", ["run_id"])
    op.create_table(
        "frame_estimates",
        sa.Column("localization_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("lon", sa.Double(), nullable=False),
        sa.Column("lat", sa.Double(), nullable=False),
        *(
            sa.Column(name, sa.Double(), nullable=True)
            for name in ("heading_deg", "cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")
        ),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=True),
        sa.Column("margin_at_least", sa.Boolean(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("snapshot_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["localization_id"],
            ["localizations.id"],
            name=op.f("fk_frame_estimates_localization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["frame_id"], ["frames.id"], name=op.f("fk_frame_estimates_frame_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["snapshot_id"], ["tile_snapshots.id"], name=op.f("fk_frame_estimates_snapshot_id")),
        sa.PrimaryKeyConstraint("localization_id", "frame_id", name=op.f("pk_frame_estimates")),
    )
    op.create_index(op.f("ix_frame_estimates_frame_id"), "frame_estimates", ["frame_id"])


# --- identities ---------------------------------------------------------------------------------


def _identify_reference_sets(connection: sa.Connection) -> None:
    """An id for good; the name as NFC; the key that point ids were made with is the name as it was."""
    op.add_column("reference_sets", sa.Column("uid", sa.String(32), nullable=True))
    op.add_column("reference_sets", sa.Column("point_key", sa.String(200), nullable=True))
    labels: set[str] = set()
    for pk, name in _rows(connection, "SELECT id, name FROM reference_sets ORDER BY id"):
        connection.execute(
            sa.text("UPDATE reference_sets SET uid = :uid, name = :label, point_key = :name WHERE id = :pk"),
            {"uid": uuid4().hex, "label": _label(name, labels), "name": name, "pk": pk},
        )
    with op.batch_alter_table("reference_sets") as batch:
        batch.alter_column("uid", existing_type=sa.String(32), nullable=False)
        batch.alter_column("point_key", existing_type=sa.String(200), nullable=False)
        batch.create_unique_constraint(op.f("uq_reference_sets_uid"), ["uid"])
        batch.create_unique_constraint(op.f("uq_reference_sets_point_key"), ["point_key"])


def _identify_flights(connection: sa.Connection) -> None:
    op.add_column("flights", sa.Column("uid", sa.String(32), nullable=True))
    labels: set[str] = set()
    for pk, name in _rows(connection, "SELECT id, flight_id FROM flights ORDER BY id"):
        connection.execute(
            sa.text("UPDATE flights SET uid = :uid, flight_id = :label WHERE id = :pk"),
            {"uid": uuid4().hex, "label": _label(name, labels), "pk": pk},
        )
    with op.batch_alter_table("flights") as batch:
        batch.alter_column("uid", existing_type=sa.String(32), nullable=False)
        batch.create_unique_constraint(op.f("uq_flights_uid"), ["uid"])


def _identify_frames(connection: sa.Connection) -> None:
    """A frame is its file below the flight's folder; its number and its order stay as they were."""
    op.add_column("frames", sa.Column("relative_path", sa.Text(), nullable=True))
    op.add_column("frames", sa.Column("sequence", sa.Integer(), nullable=True))
    op.add_column("frames", sa.Column("fingerprint", sa.String(80), nullable=True))
    op.add_column("frames", sa.Column("missing", sa.Boolean(), nullable=True))
    op.add_column("frames", sa.Column("taken_at", sa.DateTime(timezone=False), nullable=True))
    query = (
        'SELECT f.id, f.flight_pk, f."index", f.path, g.path FROM frames f JOIN flights g ON g.id = f.flight_pk '
        'ORDER BY f.flight_pk, f."index"'
    )
    for _, frames in groupby(_rows(connection, query), key=lambda row: row[1]):
        paths: set[str] = set()
        for pk, _, index, path, folder in frames:
            connection.execute(
                sa.text(
                    "UPDATE frames SET relative_path = :relative, sequence = :index, missing = :no WHERE id = :pk"
                ).bindparams(sa.bindparam("no", type_=sa.Boolean())),
                {"relative": _label(_below(path, folder), paths), "index": index, "no": False, "pk": pk},
            )
    with op.batch_alter_table("frames") as batch:
        batch.alter_column("relative_path", existing_type=sa.Text(), nullable=False)
        batch.alter_column("sequence", existing_type=sa.Integer(), nullable=False)
        batch.alter_column("missing", existing_type=sa.Boolean(), nullable=False)
        batch.create_index("uq_frames_flight_pk_relative_path", ["flight_pk", "relative_path"], unique=True)


def _below(path: str, folder: str) -> str:
    try:
        return PurePath(path).relative_to(folder).as_posix()
    except ValueError:
        return PurePath(path).name


def _label(name: str, taken: set[str]) -> str:
    """NFC; numbered where two names differ in nothing but their normal form."""
    label, number = unicodedata.normalize("NFC", name), 1
    while label in taken:
        number += 1
        label = f"{unicodedata.normalize('NFC', name)} ({number})"
    taken.add(label)
    return label


# --- runs and what they searched ------------------------------------------------------------------


def _reference_sets(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    table = sa.table(
        "reference_sets",
        *(sa.column(name) for name in ("id", "uid", "name", "kind", "source", "altitude_m", "overlap", "footprint_m")),
        sa.column("angles", sa.JSON()),
        sa.column("parameters", sa.JSON()),
    )
    return {row["id"]: dict(row) for row in connection.execute(sa.select(table)).mappings()}


def _detach_runs(connection: sa.Connection, sets: Mapping[int, Mapping[str, Any]]) -> None:
    """A run says itself what it searched: its sets as they are now, and the places that its filters let through."""
    op.add_column("search_runs", sa.Column("reference_sets", sa.JSON(), nullable=True))
    op.add_column("search_runs", sa.Column("search_map_id", sa.Integer(), nullable=True))
    runs = sa.table(
        "search_runs",
        sa.column("id"),
        sa.column("reference_set_id"),
        sa.column("search_map_id"),
        sa.column("parameters", sa.JSON()),
        sa.column("reference_sets", sa.JSON()),
    )
    maps: dict[str, int] = {}
    places: dict[int, np.ndarray] = {}
    for run in connection.execute(sa.select(runs.c.id, runs.c.reference_set_id, runs.c.parameters)).all():
        of_set = sets[run.reference_set_id]
        if run.reference_set_id not in places:
            places[run.reference_set_id] = _places(connection, run.reference_set_id)
        searched = _matching(places[run.reference_set_id], of_set, run.parameters.get("where") or {})
        data = np.ascontiguousarray(searched[:, 1:], "<f8").tobytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest not in maps:
            maps[digest] = len(maps) + 1
            connection.execute(
                sa.text("INSERT INTO search_maps (id, digest, places, data) VALUES (:id, :digest, :places, :data)"),
                {"id": maps[digest], "digest": digest, "places": len(searched), "data": zlib.compress(data)},
            )
        snapshot = {name: value for name, value in of_set.items() if name != "id"}
        values = {"reference_sets": [snapshot], "search_map_id": maps[digest]}
        connection.execute(sa.update(runs).where(runs.c.id == run.id).values(**values))
    _restart_ids(connection, "search_maps")
    with op.batch_alter_table("search_runs") as batch:
        batch.drop_index("ix_search_runs_reference_set_id")
        batch.drop_constraint("fk_search_runs_reference_set_id", type_="foreignkey")
        batch.drop_column("reference_set_id")
        batch.alter_column("reference_sets", existing_type=sa.JSON(), nullable=False)
        batch.alter_column("search_map_id", existing_type=sa.Integer(), nullable=False)
        batch.create_foreign_key(op.f("fk_search_runs_search_map_id"), "search_maps", ["search_map_id"], ["id"])


def _places(connection: sa.Connection, reference_set_id: int) -> np.ndarray:
    """float64 [P, 7]: index, lon, lat, west, south, east, north of a set's tiles in index order."""
    query = (
        'SELECT "index", lon, lat, west, south, east, north FROM tiles WHERE reference_set_id = :pk ORDER BY "index"'
    )
    rows = connection.execute(sa.text(query), {"pk": reference_set_id}).all()
    return np.array([tuple(row) for row in rows], np.float64).reshape(-1, 7)


def _matching(places: np.ndarray, of_set: Mapping[str, Any], where: Mapping[str, Any]) -> np.ndarray:
    """The places that a run's filters let through, compared as 0004's code compared them."""
    keep = np.ones(len(places), np.bool_)
    _, lon, lat, *box = places.round(7).T
    if where.get("tile_id") is not None:
        keep &= np.array([f"{of_set['name']}/{int(index):05d}" == where["tile_id"] for index in places[:, 0]], np.bool_)
    if where.get("overlap_pct") is not None:
        keep &= round(of_set["overlap"] * 100) == where["overlap_pct"]
    if where.get("altitude_m"):
        low, high = where["altitude_m"]
        keep &= of_set["altitude_m"] is not None and low <= of_set["altitude_m"] <= high
    if where.get("bbox"):
        keep &= _touching(box, [round(float(degrees), 7) for degrees in where["bbox"]])
    if where.get("near"):
        near = where["near"]
        phi, phi0 = np.radians(lat), np.radians(near["lat"])
        h = np.sin((phi - phi0) / 2) ** 2
        h += np.cos(phi0) * np.cos(phi) * np.sin(np.radians(lon - near["lon"]) / 2) ** 2
        keep &= 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0, 1))) <= near["radius_m"]
    return places[keep]


def _touching(tiles: Sequence[np.ndarray], box: Sequence[float]) -> np.ndarray:
    west, south, east, north = tiles
    east = np.where(west > east, east + 360, east)
    left, low, right, high = box
    right = right + 360 if left > right else right
    beside = np.zeros(len(west), np.bool_)
    for turn in (0, 360, -360) if right >= 180 else (0, 360):
        beside |= (west <= right + turn) & (east >= left + turn)
    return beside & (south <= high) & (north >= low)


# --- hits -----------------------------------------------------------------------------------------


def _detach_hits(connection: sa.Connection, sets: Mapping[int, Mapping[str, Any]]) -> None:
    """Each hit keeps its tile as it is now, whatever becomes of the tile."""
    op.add_column("hits", sa.Column("snapshot_id", sa.Integer(), nullable=True))
    query = (
        "SELECT r.id, r.point_id, r.angle_deg, r.path, r.content_digest, t.reference_set_id, "
        't."index", t.place_id, t.lon, t.lat, t.west, t.south, t.east, t.north '
        "FROM rotated_tiles r JOIN tiles t ON t.id = r.tile_id "
        "WHERE r.id IN (SELECT DISTINCT rotated_tile_id FROM hits) ORDER BY r.id"
    )
    snapshots = []
    for row in connection.execute(sa.text(query)).mappings():
        of_set = sets[row["reference_set_id"]]
        facts = {
            "reference_set_uid": of_set["uid"],
            "reference_set": of_set["name"],
            "tile_index": row["index"],
            "altitude_m": of_set["altitude_m"],
            "overlap": of_set["overlap"],
            **{name: row[name] for name in ("point_id", "place_id", "angle_deg", "path", "content_digest")},
            **{name: row[name] for name in ("lon", "lat", "west", "south", "east", "north")},
        }
        snapshots.append({"id": row["id"], "digest": _digest(facts), **facts})  # one for each tile: its own id will do
    if snapshots:
        names = list(snapshots[0])
        insert = sa.text(f"INSERT INTO tile_snapshots ({', '.join(names)}) VALUES (:{', :'.join(names)})")  # noqa: S608
        for start in range(0, len(snapshots), BATCH):
            connection.execute(insert, snapshots[start : start + BATCH])
    op.execute("UPDATE hits SET snapshot_id = rotated_tile_id")
    _restart_ids(connection, "tile_snapshots")
    with op.batch_alter_table("hits") as batch:
        batch.drop_index("ix_hits_rotated_tile_id")
        batch.drop_constraint("fk_hits_rotated_tile_id", type_="foreignkey")
        batch.drop_column("rotated_tile_id")
        batch.alter_column("snapshot_id", existing_type=sa.Integer(), nullable=False)
        batch.create_foreign_key(op.f("fk_hits_snapshot_id"), "tile_snapshots", ["snapshot_id"], ["id"])


def _digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- estimates ------------------------------------------------------------------------------------


def _store_estimates(connection: sa.Connection) -> None:
    """The best place of every frame of every run, as the readers worked it out until now."""
    runs = sa.table(
        "search_runs",
        *(sa.column(name) for name in ("id", "flight_pk", "created_at", "finished_at")),
        sa.column("reference_sets", sa.JSON()),
    )
    localizations = sa.table(
        "localizations",
        *(sa.column(name) for name in ("id", "flight_pk", "method", "digest", "created_at", "finished_at")),
        sa.column("reference_sets", sa.JSON()),
        sa.column("parameters", sa.JSON()),
    )
    names = ("localization_id", "frame_id", "state", "lon", "lat", "heading_deg", "score", "margin", "margin_at_least",
             "snapshot_id")  # fmt: skip
    estimates = sa.table("frame_estimates", *(sa.column(name) for name in names))
    for number, run in enumerate(connection.execute(sa.select(runs).order_by(runs.c.id)).all(), start=1):
        values = {"id": number, "flight_pk": run.flight_pk, "method": "best-place"}
        values |= {"reference_sets": run.reference_sets, "parameters": {}, "digest": _digest({"runs": [run.id]})}
        values |= {"created_at": run.created_at, "finished_at": run.finished_at}
        connection.execute(sa.insert(localizations).values(**values))
        connection.execute(
            sa.text("INSERT INTO localization_runs (localization_id, run_id) VALUES (:number, :run)"),
            {"number": number, "run": run.id},
        )
        rows = [{"localization_id": number, **estimate} for estimate in _best_places(connection, run.id)]
        for start in range(0, len(rows), BATCH):
            connection.execute(sa.insert(estimates), rows[start : start + BATCH])
    _restart_ids(connection, "localizations")


def _best_places(connection: sa.Connection, run: int) -> Iterator[dict[str, Any]]:
    query = (
        "SELECT h.frame_id, h.score, s.id, s.place_id, s.lon, s.lat, s.angle_deg FROM hits h "
        'JOIN tile_snapshots s ON s.id = h.snapshot_id WHERE h.run_id = :run ORDER BY h.frame_id, h."rank"'
    )
    rows = connection.execute(sa.text(query), {"run": run}).all()
    for frame, of_frame in groupby(rows, key=lambda row: row.frame_id):
        hits = list(of_frame)
        best = hits[0]
        elsewhere = next((hit.score for hit in hits if hit.place_id != best.place_id), None)
        beaten = hits[-1].score if elsewhere is None else elsewhere
        yield {
            "frame_id": frame,
            "state": "located",
            "lon": best.lon,
            "lat": best.lat,
            "heading_deg": float(best.angle_deg),
            "score": best.score,
            "margin": None if len(hits) == 1 else best.score - beaten,
            "margin_at_least": elsewhere is None and len(hits) > 1,
            "snapshot_id": best.id,
        }


# --- helpers --------------------------------------------------------------------------------------


def _rows(connection: sa.Connection, query: str) -> list[Any]:
    return [tuple(row) for row in connection.execute(sa.text(query))]


def _restart_ids(connection: sa.Connection, table: str) -> None:
    """PostgreSQL numbers on from its sequence, which has not seen the numbers given here."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.text(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "  # noqa: S608
                f"GREATEST((SELECT COALESCE(MAX(id), 0) FROM {table}), 1))"
            )
        )


def downgrade() -> None:
    raise NotImplementedError("0005 cannot be undone: restore the copy that was made before the upgrade")
