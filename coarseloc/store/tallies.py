"""Tallies: how many live embeddings a reference set has under a spec, and which write was the latest.

Kept by every write to embeddings, in its own transaction, so that asking costs the same for ten rows and for ten
million. The rows remain the truth: `miscounts` compares, `correct_miscounts` corrects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from coarseloc.core.errors import StoreError
from coarseloc.store.tables import CounterRow, EmbeddingRow, RotatedTileRow, TallyRow, TileRow

Owner = tuple[int, int]  # (reference set, spec)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a reference set holds of a spec."""

    live: int = 0  # embeddings, without those marked for deletion
    newest: int = 0  # generation of the latest write to any of them, deletions included

    @property
    def version(self) -> str:
        """A text that changes with every write, because generations only grow: what a mirror is held against."""
        return f"{self.live}-{self.newest}"


def next_generation(session: Session) -> int:
    """Take a number that no earlier write has had, inside the write's own transaction and before it reads anything: on
    PostgreSQL this also makes the writers of embeddings wait for each other."""
    generation: int | None = session.scalar(
        update(CounterRow)
        .where(CounterRow.name == "generation")
        .values(value=CounterRow.value + 1)
        .returning(CounterRow.value)
    )
    if generation is None:
        raise StoreError("the database has lost its generation counter: restore it from a back-up")
    return generation


def tally(session: Session, reference_set_id: int, spec_id: int) -> Tally:
    query = select(TallyRow.live, TallyRow.newest)
    row = session.execute(query.where(TallyRow.reference_set_id == reference_set_id, TallyRow.spec_id == spec_id))
    counted = row.one_or_none()
    return Tally(*counted) if counted else Tally()


def record(session: Session, generation: int, changes: Mapping[Owner, int]) -> None:
    """Add one write to the tallies. changes: {owner touched: live embeddings more or less, perhaps 0}."""
    for (reference_set_id, spec_id), change in changes.items():
        row = session.get(TallyRow, (reference_set_id, spec_id))
        row = row or TallyRow(reference_set_id=reference_set_id, spec_id=spec_id, live=0)
        row.live, row.newest = row.live + change, generation
        session.add(row)
    session.flush()


def miscounts(session: Session) -> dict[Owner, tuple[Tally, Tally]]:
    """Count every owner's rows; return {owner: (tally, count of rows)} where they differ. Reads every row.

    A tally may know of a later write than its rows do: they are dropped once a deletion is drained.
    """
    query = select(TallyRow.reference_set_id, TallyRow.spec_id, TallyRow.live, TallyRow.newest)
    tallies = {(reference_set, spec): Tally(*rest) for reference_set, spec, *rest in session.execute(query)}
    counted = _count_rows(session)
    compared = {owner: (tallies.get(owner, Tally()), counted.get(owner, Tally())) for owner in tallies | counted}
    return {
        owner: (tally, rows)
        for owner, (tally, rows) in compared.items()
        if tally.live != rows.live or tally.newest < rows.newest
    }


def correct_miscounts(session: Session) -> dict[Owner, tuple[Tally, Tally]]:
    """Set every wrong tally to the count of its rows; return those that were wrong. This counts as a write: no mirror
    of a wrong tally may pass for current."""
    generation = next_generation(session)
    bad = miscounts(session)
    record(session, generation, {owner: rows.live - tally.live for owner, (tally, rows) in bad.items()})
    return bad


def _count_rows(session: Session) -> dict[Owner, Tally]:
    live = func.sum(case((EmbeddingRow.deleted, 0), else_=1))
    query = (
        select(TileRow.reference_set_id, EmbeddingRow.spec_id, live, func.max(EmbeddingRow.generation))
        .join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        .join(EmbeddingRow, EmbeddingRow.rotated_tile_id == RotatedTileRow.id)
        .group_by(TileRow.reference_set_id, EmbeddingRow.spec_id)
    )
    return {(reference_set, spec): Tally(*rest) for reference_set, spec, *rest in session.execute(query)}
