"""Ingests that left nothing to do: the question of each, the files that it read, and what its sets held afterwards.

The same question over the same files has nothing to do again while the sets still hold that, which is counted in the
database each time. A set remembers its latest ingest alone, and forgets it when another begins.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.store import embeddings, references, seals
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.tables import FinishedIngestRow, SealRow


@dataclass(frozen=True, slots=True)
class IngestFingerprint:
    """What an ingest is to do and the state of the files that it would read, each as a digest."""

    question: str  # options, specs and the code that reads
    files: str
    settled: bool  # no file was written shortly before: the same times will mean the same files


@dataclass(frozen=True, slots=True)
class FinishedIngest:
    """What a set's ingest came to."""

    views: int  # that the source holds
    unusable: int  # of these, whose pictures are none of ground
    failures: Mapping[str, int]  # {kind: number}, those too
    notices: Sequence[str]  # that were said of the source


def forget(session: Session, reference_set_id: int) -> None:
    """Forget the set's latest ingest: its rows are about to be written."""
    session.execute(delete(FinishedIngestRow).where(FinishedIngestRow.reference_set_id == reference_set_id))


def remember(
    session: Session, fingerprint: IngestFingerprint, specs: Collection[str], finished: Mapping[int, FinishedIngest]
) -> None:
    """Record an ingest of these sets, {key: what it came to}, under the specs of these digests, unless one of them
    lacks an embedding."""
    held = {key: _held(session, key, specs) for key in finished}
    if any(of_set is None for of_set in held.values()):
        return
    for key, ingest in finished.items():
        facts = {
            "files": fingerprint.files,
            "sets": len(finished),
            "specs": sorted(specs),
            "held": held[key],
            **asdict(ingest),
        }
        row = FinishedIngestRow(reference_set_id=key, question=fingerprint.question, facts=facts)
        row.digest = _digest(row)
        session.merge(row)


def recall(session: Session, fingerprint: IngestFingerprint) -> list[tuple[StoredReferenceSet, FinishedIngest]]:
    """The sets that an ingest of the same question over the same files has made, with what it came to, where they still
    hold what they held; else none. Raises StoreError where the rows of one are not as they were written."""
    try:
        rows = session.scalars(
            select(FinishedIngestRow).where(FinishedIngestRow.question == fingerprint.question)
        ).all()
        sound = all(row.digest == _digest(row) for row in rows)
    except ValueError:  # its facts are no JSON any more
        return []
    expected = (fingerprint.files, len(rows))
    if not sound or any((row.facts["files"], row.facts["sets"]) != expected for row in rows):
        return []
    for row in rows:
        if row.facts["held"] != _held(session, row.reference_set_id, row.facts["specs"]):
            return []
        seals.check(session, "set", row.reference_set_id)
    stored = {stored.id: stored for stored in references.reference_sets(session)}
    return [
        (stored[row.reference_set_id], FinishedIngest(**{key: row.facts[key] for key in FinishedIngest.__slots__}))
        for row in rows
    ]


def _held(session: Session, reference_set_id: int, specs: Collection[str]) -> dict[str, object] | None:
    """The set's seal and its number of views; None where it is not sealed, or a view has no embedding under a spec."""
    seal = session.scalar(select(SealRow.digest).where(SealRow.kind == "set", SealRow.owner == reference_set_id))
    views = sum(references.count_views(session, reference_set_id).values())
    stored = [spec.id for spec in embeddings.specs(session) if spec.digest in specs]
    embedded = [references.count_embedded(session, reference_set_id, spec_id) for spec_id in stored]
    if seal is None or len(stored) != len(specs) or any(count != views for count in embedded):
        return None
    return {"seal": seal, "views": views}


def _digest(row: FinishedIngestRow) -> str:
    return ids.digest({"set": row.reference_set_id, "question": row.question, "facts": row.facts})
