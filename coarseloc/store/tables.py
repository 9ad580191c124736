"""The tables: the truth, and upserts. Vectors are here too; Qdrant and the FAISS mirrors are derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

VECTOR = np.dtype("<f4")  # of `EmbeddingRow.vector`
MAP_PLACE = np.dtype("<f8")  # of `SearchMapRow.data`: lon, lat, west, south, east, north in WGS84 degrees


def now() -> datetime:
    return datetime.now(UTC)


def new_uid() -> str:
    return uuid4().hex


def _owned_by(column: str) -> Any:
    return mapped_column(ForeignKey(column, ondelete="CASCADE"), index=True)


def _key_of(column: str, index: bool = False) -> Any:
    """A part of the primary key, that goes with its owner. index: of its own, where another part comes first."""
    owner = ForeignKey(column, ondelete="CASCADE")
    return mapped_column(owner, primary_key=True, autoincrement=False, index=index or None)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
        list[int]: JSON,
        list[list[str]]: JSON,
        datetime: DateTime(timezone=True),
    }


class CounterRow(Base):
    """`generation` only: the number of the latest write, so that every write has one of its own."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class IdentityRow(Base):
    """One row: which database this is. Vector stores that several databases share tell them apart by it."""

    __tablename__ = "database_identity"
    uid: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class ReferenceSetRow(Base):
    __tablename__ = "reference_sets"
    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), unique=True, default=new_uid)  # for good, whatever it is called
    name: Mapped[str] = mapped_column(String(200), unique=True)  # a label, NFC
    point_key: Mapped[str] = mapped_column(String(200), unique=True)  # what its point ids are made with, for good
    kind: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(Text)
    altitude_m: Mapped[float | None]
    overlap: Mapped[float]
    footprint_m: Mapped[float | None]
    angles: Mapped[list[int]]
    parameters: Mapped[dict[str, Any]]
    map_sd_m: Mapped[float | None]  # the map's own registration error, per axis; NULL where nobody said
    created_at: Mapped[datetime] = mapped_column(default=now)


class TileRow(Base):
    __tablename__ = "tiles"
    __table_args__ = (UniqueConstraint("reference_set_id", "index"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    reference_set_id: Mapped[int] = _owned_by("reference_sets.id")
    index: Mapped[int]
    place_id: Mapped[str] = mapped_column(String(40))
    lon: Mapped[float]
    lat: Mapped[float]
    west: Mapped[float]
    south: Mapped[float]
    east: Mapped[float]
    north: Mapped[float]


class RotatedTileRow(Base):
    __tablename__ = "rotated_tiles"
    __table_args__ = (UniqueConstraint("tile_id", "angle_deg"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tile_id: Mapped[int] = _owned_by("tiles.id")
    angle_deg: Mapped[int]
    point_id: Mapped[str] = mapped_column(String(36), unique=True)
    stamp: Mapped[str] = mapped_column(String(200))  # the source fingerprint: changes when the picture may have
    content_digest: Mapped[str] = mapped_column(String(64))
    ground_fraction: Mapped[float]
    path: Mapped[str | None] = mapped_column(Text)  # None: cut from an orthophoto, only the thumbnail exists


class SpecRow(Base):
    __tablename__ = "embedding_specs"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    backbone: Mapped[str] = mapped_column(String(100), index=True)
    dim: Mapped[int]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class EmbeddingRow(Base):
    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("rotated_tile_id", "spec_id"),
        # What the drain asks for stays as small as what is behind, however large the table grows. The generations are
        # in it so that counting needs no look at the rows, which hold vectors.
        Index(
            "ix_embeddings_behind",
            "spec_id",
            "id",
            "generation",
            "indexed_generation",
            sqlite_where=text("indexed_generation < generation"),
            postgresql_where=text("indexed_generation < generation"),
        ),
        Index("ix_embeddings_spec_id_indexed_generation", "spec_id", "indexed_generation"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    rotated_tile_id: Mapped[int] = mapped_column(ForeignKey("rotated_tiles.id", ondelete="CASCADE"))
    spec_id: Mapped[int] = mapped_column(ForeignKey("embedding_specs.id", ondelete="CASCADE"))
    content_digest: Mapped[str] = mapped_column(String(64))  # of the picture this vector was made from
    generation: Mapped[int] = mapped_column(BigInteger)
    indexed_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    deleted: Mapped[bool] = mapped_column(default=False)
    vector: Mapped[bytes] = mapped_column(LargeBinary)  # VECTOR [dim]
    row_digest: Mapped[int | None] = mapped_column(BigInteger)  # see `seals.vector_digest`; NULL: of earlier versions


class TallyRow(Base):
    """What a reference set holds of a spec, kept by every write to its embeddings: see `store.tallies`."""

    __tablename__ = "embedding_tallies"
    reference_set_id: Mapped[int] = _key_of("reference_sets.id")
    spec_id: Mapped[int] = _key_of("embedding_specs.id")
    live: Mapped[int]
    newest: Mapped[int] = mapped_column(BigInteger)


class SealRow(Base):
    """The digest of all rows that one answer is read from: see `store.seals`."""

    __tablename__ = "seals"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    owner: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(32))
    # {block of frames: its digest}; NULL of what has no frames, and of earlier versions
    blocks: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))


class FinishedIngestRow(Base):
    """What the latest ingest of a set was asked and read, where it left nothing to do: see `store.finished_ingests`."""

    __tablename__ = "finished_ingests"
    reference_set_id: Mapped[int] = _key_of("reference_sets.id")
    question: Mapped[str] = mapped_column(String(64))
    facts: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(64))  # of all of it


class FailureRow(Base):
    __tablename__ = "failures"
    __table_args__ = (UniqueConstraint("reference_set_id", "item", "stage"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    reference_set_id: Mapped[int] = _owned_by("reference_sets.id")
    item: Mapped[str] = mapped_column(String(1000))
    stage: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(40))
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)


class FlightRow(Base):
    __tablename__ = "flights"
    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), unique=True, default=new_uid)  # for good, whatever it is called
    flight_id: Mapped[str] = mapped_column(String(200), unique=True)  # a label, NFC
    path: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    truth_source: Mapped[str] = mapped_column(String(20))
    truth_sd_m: Mapped[float]  # of the truth, per axis
    time_source: Mapped[str | None] = mapped_column(String(20))  # of the frames' times; NULL: never recorded
    utc_offset_s: Mapped[int | None]  # the frames' times minus UTC
    interval_s: Mapped[float | None]


class FrameRow(Base):
    """A frame is its file within the flight's folder; the number it was given once stays its own."""

    __tablename__ = "frames"
    __table_args__ = (
        UniqueConstraint("flight_pk", "index"),
        Index("uq_frames_flight_pk_relative_path", "flight_pk", "relative_path", unique=True),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    flight_pk: Mapped[int] = _owned_by("flights.id")
    index: Mapped[int]
    relative_path: Mapped[str] = mapped_column(Text)  # POSIX, NFC, below the flight's folder
    sequence: Mapped[int]  # place in the flight: by time, else by name; frames that come later move it
    fingerprint: Mapped[str | None] = mapped_column(String(80))  # of the file; None where it was never taken
    missing: Mapped[bool] = mapped_column(default=False)  # no longer in the folder; its results stay
    taken_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    path: Mapped[str] = mapped_column(Text)
    lon: Mapped[float | None]
    lat: Mapped[float | None]
    altitude_label_m: Mapped[float | None]
    altitude_datum: Mapped[str] = mapped_column(String(20))
    yaw_deg: Mapped[float | None]
    pitch_deg: Mapped[float | None]
    roll_deg: Mapped[float | None]


class FrameTagRow(Base):
    """A tag that somebody gave a frame: it is the frame's, whatever is searched."""

    __tablename__ = "frame_tags"
    frame_id: Mapped[int] = _key_of("frames.id")
    tag: Mapped[str] = mapped_column(String(80), primary_key=True, index=True)  # of `core.marks.parse_tags`


class FrameNoteRow(Base):
    """What somebody wrote on a frame."""

    __tablename__ = "frame_notes"
    frame_id: Mapped[int] = _key_of("frames.id")
    text: Mapped[str] = mapped_column(Text)


class TileSnapshotRow(Base):
    """A rotated tile as it was when a search answered with it. Never changed, never deleted with its reference set:
    results stay what they were. Equal snapshots are one row."""

    __tablename__ = "tile_snapshots"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # of all that follows
    reference_set_uid: Mapped[str] = mapped_column(String(32))
    reference_set: Mapped[str] = mapped_column(String(200))
    tile_index: Mapped[int]
    point_id: Mapped[str] = mapped_column(String(36))
    place_id: Mapped[str] = mapped_column(String(40))
    angle_deg: Mapped[int]
    altitude_m: Mapped[float | None]
    overlap: Mapped[float]
    lon: Mapped[float]
    lat: Mapped[float]
    west: Mapped[float]
    south: Mapped[float]
    east: Mapped[float]
    north: Mapped[float]
    path: Mapped[str | None] = mapped_column(Text)
    content_digest: Mapped[str] = mapped_column(String(64))


class SearchMapRow(Base):
    """The places that a run searched, as they were. Equal maps are one row."""

    __tablename__ = "search_maps"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # of `data`, before compression
    places: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)  # zlib of MAP_PLACE [places, 6]


class RunRow(Base):
    """One SearchRun: flight x backbone x parameters."""

    __tablename__ = "search_runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    flight_pk: Mapped[int] = _owned_by("flights.id")
    reference_sets: Mapped[list[dict[str, Any]]]  # what was searched, as it was: the sets may be gone
    search_map_id: Mapped[int] = mapped_column(ForeignKey("search_maps.id"))
    spec_id: Mapped[int] = _owned_by("embedding_specs.id")
    parameters: Mapped[dict[str, Any]]  # k, where, per-angle heading, batch: what the user asked
    parameters_digest: Mapped[str] = mapped_column(String(64))
    environment: Mapped[dict[str, Any]]  # backend, device, versions, warm-up: what answered
    index_build_ms: Mapped[float]
    references: Mapped[int]  # rotated tiles searched
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class FrameResultRow(Base):
    __tablename__ = "frame_results"
    run_id: Mapped[int] = _key_of("search_runs.id")
    frame_id: Mapped[int] = _key_of("frames.id")
    decode_ms: Mapped[float | None]
    embed_ms: Mapped[float | None]
    search_ms: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)


class HitRow(Base):
    __tablename__ = "hits"
    run_id: Mapped[int] = _key_of("search_runs.id")
    frame_id: Mapped[int] = _key_of("frames.id")
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("tile_snapshots.id"))
    score: Mapped[float]


class LocalizationRow(Base):
    """One answer for a flight: by one method, from one run or several."""

    __tablename__ = "localizations"
    __table_args__ = (UniqueConstraint("flight_pk", "method", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    flight_pk: Mapped[int] = _owned_by("flights.id")
    method: Mapped[str] = mapped_column(String(40))
    reference_sets: Mapped[list[dict[str, Any]]]  # as of its runs
    parameters: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(64))  # of parameters and runs: the same question has one answer
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class LocalizationRunRow(Base):
    __tablename__ = "localization_runs"
    localization_id: Mapped[int] = _key_of("localizations.id")
    run_id: Mapped[int] = _key_of("search_runs.id", index=True)


class FrameEstimateRow(Base):
    """Where a frame was taken, and facing where; `state` says whether the position is to be used."""

    __tablename__ = "frame_estimates"
    localization_id: Mapped[int] = _key_of("localizations.id")
    frame_id: Mapped[int] = _key_of("frames.id", index=True)
    state: Mapped[str] = mapped_column(String(20))
    lon: Mapped[float]
    lat: Mapped[float]
    heading_deg: Mapped[float | None]
    cov_east_east_m2: Mapped[float | None]
    cov_east_north_m2: Mapped[float | None]
    cov_north_north_m2: Mapped[float | None]
    score: Mapped[float]
    margin: Mapped[float | None]
    margin_at_least: Mapped[bool]
    probability: Mapped[float | None]
    snapshot_id: Mapped[int | None] = mapped_column(
        ForeignKey("tile_snapshots.id")
    )  # the best tile, where there is one


class GroundAndAircraft:
    """Columns of a frame's place: the ground under its middle, and the aircraft above it."""

    lon: Mapped[float | None]  # of the ground
    lat: Mapped[float | None]
    cov_east_east_m2: Mapped[float | None]
    cov_east_north_m2: Mapped[float | None]
    cov_north_north_m2: Mapped[float | None]
    aircraft_lon: Mapped[float | None]
    aircraft_lat: Mapped[float | None]
    aircraft_cov_east_east_m2: Mapped[float | None]
    aircraft_cov_east_north_m2: Mapped[float | None]
    aircraft_cov_north_north_m2: Mapped[float | None]


class FrameFixRow(GroundAndAircraft, Base):
    """A frame looked for on the map in metres. `match` is NULL where it could not be, and no position is stored where
    it is not true."""

    __tablename__ = "frame_fixes"
    localization_id: Mapped[int] = _key_of("localizations.id")
    frame_id: Mapped[int] = _key_of("frames.id", index=True)
    match: Mapped[bool | None]
    reason: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None]
    margin: Mapped[float | None]
    probability: Mapped[float | None]
    fit_digest: Mapped[str | None] = mapped_column(String(64))  # of the constants behind probability and covariance
    conditions: Mapped[dict[str, Any] | None]  # core.fixes.FixConditions
    heading_deg: Mapped[float | None]
    pose: Mapped[dict[str, Any] | None]  # the rest of core.fixes.Pose2D


class TrackEstimateRow(GroundAndAircraft, Base):
    """A frame of a track. No position is stored unless the state claims one."""

    __tablename__ = "track_estimates"
    localization_id: Mapped[int] = _key_of("localizations.id")
    frame_id: Mapped[int] = _key_of("frames.id", index=True)
    state: Mapped[str] = mapped_column(String(20))
    heading_deg: Mapped[float | None]
    heading_sd_deg: Mapped[float | None]
    scale: Mapped[float | None]
    speed_mps: Mapped[float | None]
    probability: Mapped[float]
    p_off_map: Mapped[float]
    p_blind: Mapped[float]
    odometry: Mapped[str] = mapped_column(String(20))
    reset_counter: Mapped[int]
    measured: Mapped[bool]
    searched: Mapped[str | None] = mapped_column(String(20))
    alternatives: Mapped[list[dict[str, Any]]]
    evidence: Mapped[dict[str, Any] | None]  # motion and measurements, to go on with; None of a smoothed one


class StudyRow(Base):
    """One piece of long work with curves for an answer: a rotation or altitude laboratory, or a run's evaluation."""

    __tablename__ = "studies"
    __table_args__ = (UniqueConstraint("kind", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), index=True)
    digest: Mapped[str] = mapped_column(String(64))  # of what was asked: the same question goes on, or is answered
    run_id: Mapped[int | None] = mapped_column(ForeignKey("search_runs.id", ondelete="CASCADE"), index=True)
    parameters: Mapped[dict[str, Any]]
    environment: Mapped[dict[str, Any]]
    findings: Mapped[dict[str, Any]]  # tables and sentences made of the curves; {} until finished
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class StudyPartRow(Base):
    """What an unfinished study has worked out so far; dropped when it is finished."""

    __tablename__ = "study_parts"
    study_id: Mapped[int] = _key_of("studies.id")
    part: Mapped[str] = mapped_column(String(200), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class StudyPointRow(Base):
    """One point of one curve of one backbone, with its interval where it has one."""

    __tablename__ = "study_points"
    study_id: Mapped[int] = _key_of("studies.id")
    backbone: Mapped[str] = mapped_column(String(100), primary_key=True)
    curve: Mapped[str] = mapped_column(String(60), primary_key=True)
    x: Mapped[float] = mapped_column(primary_key=True)
    y: Mapped[float | None]  # None where it cannot be said: JSON and SQL have no NaN
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]


class JobRow(Base):
    """One piece of long work: what was asked, how far it is, how it ended. The process that does it writes it."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    steps: Mapped[list[list[str]]]  # arguments of `coarseloc`, one command after the other
    folder: Mapped[str] = mapped_column(Text)  # that relative paths among them start from
    wish: Mapped[str] = mapped_column(String(10), default="run")  # run, pause or stop: what its reader wants
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int | None]  # NULL until the process has begun
    label: Mapped[str] = mapped_column(String(300), default="")
    completed: Mapped[int | None]
    total: Mapped[int | None]
    unit: Mapped[str] = mapped_column(String(40), default="")
    exit_code: Mapped[int | None]
    message: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime] = mapped_column(default=now)  # of the latest start
    heartbeat_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


def _insert(dialect: str, table: Table) -> Any:
    """Begin an `INSERT … ON CONFLICT`; a dialect that is not in use is not imported."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def upsert(session: Session, table: type[Base], rows: Iterable[dict[str, Any]], keys: Sequence[str]) -> None:
    """Insert rows, all of the same columns, or update their other columns where `keys` are there already.

    One statement run for many rows: one that names them all is compiled anew each time, which takes longer than
    writing them. SQLite and PostgreSQL spell `INSERT … ON CONFLICT DO UPDATE` alike.
    """
    records = list(rows)
    if not records:
        return
    assert isinstance(table.__table__, Table)  # noqa: S101 - for the type checker
    statement = _insert(session.get_bind().dialect.name, table.__table__)
    updated = {name: statement.excluded[name] for name in records[0] if name not in keys}
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=list(keys), set_=updated)
        if updated
        else statement.on_conflict_do_nothing(index_elements=list(keys)),
        records,
    )
