"""Seals: one digest of all rows that an answer is read from, written when they are finished and checked when they are
read. SQLite checks no row's content itself: a bit that flips in a position or a score would go unseen.

A set is its tiles and rotated tiles, a run its frames' hits with the tiles as they were, a localization its frames'
estimates, a flight its frames, a study its curves. Embeddings carry a digest in each row (`EmbeddingRow.row_digest`):
they are too many to read again at each write.

Of a flight, a run and a localization the rows are digested in blocks of frames, so that whoever reads a few frames
checks those blocks and not the whole flight; the seal's digest is that of all blocks. Seals of earlier versions have no
blocks: their rows are checked as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import xxhash
from sqlalchemy import ColumnElement, ScalarSelect, Select, delete, select
from sqlalchemy.orm import InstrumentedAttribute, Session

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
_BLOCK = 256  # neighbouring keys of frames whose rows one digest covers
_HEAD = "head"  # names the block of the rows that belong to no frame
_Part = str | None  # the name of a block; None: all rows
_sound: set[tuple[str, str, int, str, _Part]] = set()  # of this process: (database, kind, owner, digest, part)


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
        blocks = {name: block_digest(session, kind, owner, name) for name in _block_names(session, kind, owner)}
        digest = _digest_of_blocks(blocks) if blocks else rows_digest(session, kind, owner)
        session.add(SealRow(kind=kind, owner=owner, digest=digest, blocks=blocks or None))
        session.flush()


def check(session: Session, kind: SealKind, owner: int, frame_indices: Sequence[int] | None = None) -> None:
    """Raise StoreError where sealed rows are not as they were written; read once a process. frame_indices: the frames
    whose rows are about to be read, where not all are; the blocks that hold none of them are left alone."""
    stored = _stored_seal(session, kind, owner)
    if stored is None:
        return
    digest, blocks = stored
    key = (str(session.get_bind().engine.url), kind, owner, digest)
    if (*key, None) in _sound:
        return
    for part in _parts_to_check(session, kind, owner, blocks, frame_indices):
        if (*key, part) not in _sound:
            if not _is_sound(session, kind, owner, digest, blocks, part):
                raise StoreError(f"the database is damaged: {damage_text(session, kind, owner)}")
            _sound.add((*key, part))


def is_sound(session: Session, kind: SealKind, owner: int) -> bool:
    """Whether sealed rows are as they were written; unsealed ones are taken as they are."""
    stored = _stored_seal(session, kind, owner)
    return stored is None or _is_sound(session, kind, owner, *stored, part=None)


def _stored_seal(session: Session, kind: SealKind, owner: int) -> tuple[str, Mapping[str, str]] | None:
    """(digest, {name of a block: its digest}, empty where an earlier version wrote it)."""
    query = select(SealRow.digest, SealRow.blocks).where(SealRow.kind == kind, SealRow.owner == owner)
    try:
        row = session.execute(query).one_or_none()
    except ValueError:  # its blocks are no JSON any more: no rows have this digest
        return "", {}
    return None if row is None else (row.digest, row.blocks or {})


def _is_sound(
    session: Session, kind: SealKind, owner: int, digest: str, blocks: Mapping[str, str], part: _Part
) -> bool:
    try:
        if not blocks:
            return digest == rows_digest(session, kind, owner)
        names = blocks if part is None else (part,)
        return digest == _digest_of_blocks(blocks) and all(
            blocks[name] == block_digest(session, kind, owner, name) for name in names
        )
    except (ValueError, TypeError):  # what a column holds is no JSON or no time any more
        return False


def _parts_to_check(
    session: Session, kind: SealKind, owner: int, blocks: Mapping[str, str], frame_indices: Sequence[int] | None
) -> Sequence[_Part]:
    """The blocks of a few frames; all rows where a frame is not found or has no block."""
    if not blocks or frame_indices is None or len(frame_indices) > _BLOCK:
        return (None,)
    keys = session.scalars(_frame_keys(kind, owner).where(FrameRow.index.in_(frame_indices))).all()
    names = {_HEAD, *(str(key // _BLOCK) for key in keys)}
    return sorted(names) if len(keys) == len(set(frame_indices)) and names <= blocks.keys() else (None,)


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
    return _digest(session, [*_rows_without_frame(kind, owner), *_rows_of_frames(kind, owner)])


def block_digest(session: Session, kind: SealKind, owner: int, name: str) -> str:
    """xxh3_128 of one block of them: of the rows of neighbouring frames, or of those that belong to no frame."""
    if name == _HEAD:
        return _digest(session, _rows_without_frame(kind, owner))
    return _digest(session, _rows_of_frames(kind, owner, int(name)))


def _digest(session: Session, queries: Iterable[Select[tuple[object, ...]]]) -> str:
    state = xxhash.xxh3_128()
    for query in queries:
        # Of the connection, not of the session: there may be 100,000 hits.
        for rows in session.connection().execute(query.execution_options(yield_per=2000)).partitions():
            state.update("".join([repr(tuple(row)) for row in rows]).encode())
    return state.hexdigest()


def _digest_of_blocks(blocks: Mapping[str, str]) -> str:
    return xxhash.xxh3_128_hexdigest(repr(sorted(blocks.items())).encode())


def _block_names(session: Session, kind: SealKind, owner: int) -> list[str]:
    """Of an owner whose rows are those of frames; none of another."""
    if kind in ("set", "study"):
        return []
    return [_HEAD, *sorted({str(key // _BLOCK) for key in session.scalars(_frame_keys(kind, owner))})]


def _frame_keys(kind: SealKind, owner: int) -> Select[int]:
    flight: int | ScalarSelect[int] = owner
    if kind != "flight":
        table = _OWNERS[kind].__table__.c
        flight = select(table.flight_pk).where(table.id == owner).scalar_subquery()
    return select(FrameRow.id).where(FrameRow.flight_pk == flight)


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


def _rows_without_frame(kind: SealKind, owner: int) -> Iterator[Select[tuple[object, ...]]]:
    if kind == "set":
        yield _rows(ReferenceSetRow).where(ReferenceSetRow.id == owner)
        yield _rows(TileRow).where(TileRow.reference_set_id == owner)
        views = _rows(RotatedTileRow, without="stamp").join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        yield views.where(TileRow.reference_set_id == owner)
    elif kind == "flight":
        yield _rows(FlightRow).where(FlightRow.id == owner)
    elif kind == "run":
        yield _rows(RunRow).where(RunRow.id == owner)
        yield _rows(SpecRow).join(RunRow, RunRow.spec_id == SpecRow.id).where(RunRow.id == owner)
        yield _rows(SearchMapRow).join(RunRow, RunRow.search_map_id == SearchMapRow.id).where(RunRow.id == owner)
    elif kind == "localization":
        yield _rows(LocalizationRow).where(LocalizationRow.id == owner)
        yield _rows(LocalizationRunRow).where(LocalizationRunRow.localization_id == owner)
    else:
        yield _rows(StudyRow).where(StudyRow.id == owner)
        yield _rows(StudyPointRow).where(StudyPointRow.study_id == owner)


def _rows_of_frames(kind: SealKind, owner: int, block: int | None = None) -> Iterator[Select[tuple[object, ...]]]:
    """block: of those frames alone whose keys lie in it."""
    if kind == "flight":
        yield _rows(FrameRow).where(FrameRow.flight_pk == owner, *_in_block(FrameRow.id, block))
    elif kind == "run":
        of_run = HitRow.run_id == owner, *_in_block(HitRow.frame_id, block)
        yield _rows(FrameResultRow).where(FrameResultRow.run_id == owner, *_in_block(FrameResultRow.frame_id, block))
        yield _rows(HitRow).where(*of_run)
        yield _rows(TileSnapshotRow).where(TileSnapshotRow.id.in_(select(HitRow.snapshot_id).where(*of_run)))
    elif kind == "localization":
        for table in (FrameEstimateRow, FrameFixRow, TrackEstimateRow):
            yield _rows(table).where(table.localization_id == owner, *_in_block(table.frame_id, block))
        of_answer = FrameEstimateRow.localization_id == owner, *_in_block(FrameEstimateRow.frame_id, block)
        snapshots = select(FrameEstimateRow.snapshot_id).where(*of_answer)
        yield _rows(TileSnapshotRow).where(TileSnapshotRow.id.in_(snapshots))


def _in_block(frame_key: InstrumentedAttribute[int], block: int | None) -> list[ColumnElement[bool]]:
    return [] if block is None else [frame_key >= block * _BLOCK, frame_key < (block + 1) * _BLOCK]


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
