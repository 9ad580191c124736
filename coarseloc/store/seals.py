"""Seals: one digest of all rows that an answer is read from, written when they are finished and checked when they are
read. SQLite checks no row's content itself: a bit that flips in a position or a score would go unseen.

A set is its tiles and rotated tiles, a run its frames' hits with the tiles as they were, a localization its frames'
estimates, a flight its frames, a study its curves. Embeddings carry a digest in each row (`EmbeddingRow.row_digest`):
they are too many to read again at each write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import xxhash
from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from coarseloc.core.errors import StoreError
from coarseloc.store.tables import (
    Base,
    EmbeddingRow,
    FlightRow,
    FrameEstimateRow,
    FrameFixRow,
    FrameResultRow,
    FrameRow,
    HitRow,
    LocalizationRow,
    LocalizationRunRow,
    ReferenceSetRow,
    RotatedTileRow,
    RunRow,
    SealRow,
    SearchMapRow,
    SpecRow,
    StudyPointRow,
    StudyRow,
    TileRow,
    TileSnapshotRow,
    TrackEstimateRow,
)

SealKind = Literal["set", "flight", "run", "localization", "study"]
_MENDING: dict[SealKind, str] = {
    "set": "`coarseloc references delete` and ingest it again",
    "flight": "`coarseloc search` with its folder reads its frames anew",
    "run": "`coarseloc search` answers anew, and `coarseloc flights delete` forgets the flight with all its answers",
    "localization": "the command that made it answers anew",
    "study": "the command that made it answers anew",
}
_OWNERS: dict[SealKind, type[Base]] = {
    "set": ReferenceSetRow,
    "flight": FlightRow,
    "run": RunRow,
    "localization": LocalizationRow,
    "study": StudyRow,
}
_sound: set[tuple[str, str, int, str]] = set()  # of this process: (database, kind, owner, digest)


def unseal(session: Session, kind: SealKind, owner: int) -> None:
    """Say that rows are being written: they are not checked until they are sealed again."""
    session.execute(delete(SealRow).where(SealRow.kind == kind, SealRow.owner == owner))


def drop_orphans(session: Session) -> None:
    """Forget the seals of what is no longer there: its key may be given again."""
    for kind, table in _OWNERS.items():
        orphaned = SealRow.owner.not_in(select(table.__table__.c.id))
        session.execute(
            delete(SealRow).where(SealRow.kind == kind, orphaned).execution_options(synchronize_session=False)
        )


def seal(session: Session, kind: SealKind, owner: int) -> None:
    """Digest the rows as they are; where they are sealed already, do nothing."""
    session.flush()
    if session.get(SealRow, (kind, owner)) is None:
        session.add(SealRow(kind=kind, owner=owner, digest=rows_digest(session, kind, owner)))
        session.flush()


def check(session: Session, kind: SealKind, owner: int) -> None:
    """Raise StoreError where sealed rows are not as they were written; read once a process."""
    digest = session.scalar(select(SealRow.digest).where(SealRow.kind == kind, SealRow.owner == owner))
    if digest is None:
        return
    key = (str(session.get_bind().engine.url), kind, owner, digest)
    if key not in _sound:
        if not is_sound(session, kind, owner):
            raise StoreError(f"the database is damaged: {damage_text(session, kind, owner)}")
        _sound.add(key)


def is_sound(session: Session, kind: SealKind, owner: int) -> bool:
    """Whether sealed rows are as they were written; unsealed ones are taken as they are."""
    digest = session.scalar(select(SealRow.digest).where(SealRow.kind == kind, SealRow.owner == owner))
    try:
        return digest is None or digest == rows_digest(session, kind, owner)
    except (ValueError, TypeError):  # what a column holds is no JSON or no time any more
        return False


def damage_text(session: Session, kind: SealKind, owner: int) -> str:
    """Name damaged rows, and the command that mends them."""
    return (
        f"the rows of {kind} {_name(session, kind, owner)} are not as they were written. Stop everything that uses the "
        f"database and restore a back-up (docs/operations.md); without one, {_MENDING[kind]}"
    )


def seals(session: Session) -> list[tuple[SealKind, int]]:
    """List what is sealed."""
    rows = session.execute(select(SealRow.kind, SealRow.owner).order_by(SealRow.kind, SealRow.owner))
    return [(kind, row.owner) for row in rows for kind in get_args(SealKind) if kind == row.kind]


def unsealed(session: Session) -> dict[SealKind, int]:
    """Count finished owners without a seal: of an earlier version, or whose writing was cut off."""
    counts: dict[SealKind, int] = {}
    for kind, table in _OWNERS.items():
        query = select(table.__table__.c.id)
        if "finished_at" in table.__table__.c:
            query = query.where(table.__table__.c.finished_at.is_not(None))
        sealed = set(session.scalars(select(SealRow.owner).where(SealRow.kind == kind)))
        if missing := len(set(session.scalars(query)) - sealed):
            counts[kind] = missing
    return counts


def rows_digest(session: Session, kind: SealKind, owner: int) -> str:
    """xxh3_128 of the rows of one owner, in the order of their keys, hexadecimal."""
    state = xxhash.xxh3_128()
    for query in _queries(kind, owner):
        for row in session.execute(query.execution_options(yield_per=2000)):
            state.update(repr(tuple(row)).encode())
    return state.hexdigest()


def vector_digest(rotated_tile: int, spec: int, content_digest: str, vector: bytes) -> int:
    """xxh3_64 of what an embedding's row says, as the signed integer that a column holds."""
    unsigned = xxhash.xxh3_64_intdigest(f"{rotated_tile} {spec} {content_digest} ".encode() + vector)
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def damaged_embeddings(session: Session) -> tuple[int, list[int], int]:
    """(embeddings read, keys of those that are not as they were written, those of versions that wrote no digest)."""
    columns = (
        EmbeddingRow.id, EmbeddingRow.rotated_tile_id, EmbeddingRow.spec_id, EmbeddingRow.content_digest,
        EmbeddingRow.vector, EmbeddingRow.row_digest,
    )  # fmt: skip
    total, damaged, undigested = 0, [], 0
    rows = session.execute(select(*columns).execution_options(yield_per=2000))
    for pk, rotated_tile, spec, content_digest, vector, digest in rows:
        total += 1
        undigested += digest is None
        if digest is not None and vector_digest(rotated_tile, spec, content_digest, vector) != digest:
            damaged.append(pk)
    return total, damaged, undigested


def _queries(kind: SealKind, owner: int) -> Iterator[Select[tuple[object, ...]]]:
    if kind == "set":
        yield _rows(ReferenceSetRow).where(ReferenceSetRow.id == owner)
        yield _rows(TileRow).where(TileRow.reference_set_id == owner)
        views = _rows(RotatedTileRow, without="stamp").join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        yield views.where(TileRow.reference_set_id == owner)
    elif kind == "flight":
        yield _rows(FlightRow).where(FlightRow.id == owner)
        yield _rows(FrameRow).where(FrameRow.flight_pk == owner)
    elif kind == "run":
        yield _rows(RunRow).where(RunRow.id == owner)
        yield _rows(SpecRow).join(RunRow, RunRow.spec_id == SpecRow.id).where(RunRow.id == owner)
        yield _rows(SearchMapRow).join(RunRow, RunRow.search_map_id == SearchMapRow.id).where(RunRow.id == owner)
        yield _rows(FrameResultRow).where(FrameResultRow.run_id == owner)
        yield _rows(HitRow).where(HitRow.run_id == owner)
        hits = select(HitRow.snapshot_id).where(HitRow.run_id == owner)
        yield _rows(TileSnapshotRow).where(TileSnapshotRow.id.in_(hits))
    elif kind == "localization":
        yield _rows(LocalizationRow).where(LocalizationRow.id == owner)
        for table in (LocalizationRunRow, FrameEstimateRow, FrameFixRow, TrackEstimateRow):
            yield _rows(table).where(table.localization_id == owner)
        named = select(FrameEstimateRow.snapshot_id).where(FrameEstimateRow.localization_id == owner)
        yield _rows(TileSnapshotRow).where(TileSnapshotRow.id.in_(named))
    else:
        yield _rows(StudyRow).where(StudyRow.id == owner)
        yield _rows(StudyPointRow).where(StudyPointRow.study_id == owner)


def _rows(table: type[Base], without: str = "") -> Select[tuple[object, ...]]:
    columns = [column for column in table.__table__.columns if column.name != without]
    return select(*columns).order_by(*table.__table__.primary_key)


def _name(session: Session, kind: SealKind, owner: int) -> str:
    labels = {"set": ReferenceSetRow.name, "flight": FlightRow.flight_id}
    if kind in labels:
        return repr(session.scalar(select(labels[kind]).where(_OWNERS[kind].__table__.c.id == owner)))
    flight = select(FlightRow.flight_id).join(_OWNERS[kind], _OWNERS[kind].__table__.c.flight_pk == FlightRow.id)
    if kind == "study":
        return str(owner)
    return f"{owner} of flight {session.scalar(flight.where(_OWNERS[kind].__table__.c.id == owner))!r}"
