"""Stored answers of long work: curves of the rotation and altitude laboratories, and evaluations of runs.

Every curve is points (x, y, low, high, n) under a name and a backbone; the report and the web pages read the same.
A study that was stopped keeps its parts, and the same question goes on with them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import StoreError
from coarseloc.store import seals
from coarseloc.store.tables import StudyPartRow, StudyPointRow, StudyRow, now, upsert

KINDS = ("rotation", "altitude", "evaluation")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """One study: what was asked, what answered, and its findings once it is finished."""

    id: int
    kind: str
    run_id: int | None
    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    findings: Mapping[str, Any]
    created_at: datetime
    finished_at: datetime | None


class CurvePoint(NamedTuple):
    """A point of a curve; y, low and high are None where they cannot be said."""

    backbone: str
    curve: str
    x: float
    y: float | None
    low: float | None
    high: float | None
    n: int


def start_study(
    session: Session,
    kind: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    run_id: int | None = None,
) -> StoredStudy:
    """Create the study of these parameters, or find the unfinished or finished one (see `finished_at`)."""
    digest = ids.digest({"parameters": parameters, "run": run_id})
    row = session.scalar(select(StudyRow).where(StudyRow.kind == kind, StudyRow.digest == digest))
    if row is None:
        row = StudyRow(kind=kind, digest=digest, run_id=run_id, parameters=dict(parameters), findings={})
        row.environment = dict(environment)
        session.add(row)
        session.flush()
    elif not seals.is_sound(session, "study", row.id):
        seals.unseal(session, "study", row.id)
        row.findings, row.finished_at = {}, None  # it is answered anew
    return _study(row)


def save_part(session: Session, study: int, part: str, arrays: Arrays) -> None:
    """Write the arrays that one step of the work gave, under a name."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    upsert(session, StudyPartRow, [{"study_id": study, "part": part, "data": buffer.getvalue()}], ["study_id", "part"])


def parts(session: Session, study: int) -> set[str]:
    """Read the names of the parts that are written."""
    return set(session.scalars(select(StudyPartRow.part).where(StudyPartRow.study_id == study)))


def load_part(session: Session, study: int, part: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of one part. Raises StoreError where there is none."""
    data = session.scalar(select(StudyPartRow.data).where(StudyPartRow.study_id == study, StudyPartRow.part == part))
    if data is None:
        raise StoreError(f"study {study} has no part {part!r}: run the same command again, it goes on by itself")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def finish_study(session: Session, study: int, points: Iterable[CurvePoint], findings: Mapping[str, Any]) -> None:
    """Write the curves and findings, and delete the parts."""
    seals.unseal(session, "study", study)
    session.execute(delete(StudyPointRow).where(StudyPointRow.study_id == study))
    session.add_all(
        StudyPointRow(
            study_id=study,
            backbone=point.backbone,
            curve=point.curve,
            x=point.x,
            y=_finite(point.y),
            low=_finite(point.low),
            high=_finite(point.high),
            n=point.n,
        )
        for point in points
    )
    session.execute(delete(StudyPartRow).where(StudyPartRow.study_id == study))
    row = session.get_one(StudyRow, study)
    row.findings, row.finished_at = dict(findings), now()
    seals.seal(session, "study", study)


def studies(session: Session, kind: str, run_id: int | None = None) -> list[StoredStudy]:
    """List the finished studies of a kind (of one run, if given), newest first."""
    query = select(StudyRow).where(StudyRow.kind == kind, StudyRow.finished_at.is_not(None))
    if run_id is not None:
        query = query.where(StudyRow.run_id == run_id)
    return [_study(row) for row in session.scalars(query.order_by(StudyRow.finished_at.desc(), StudyRow.id.desc()))]


def find_study(session: Session, study: int) -> StoredStudy:
    """Read a study. Raises StoreError naming the studies there are."""
    row = session.get(StudyRow, study)
    if row is None:
        expected = ", ".join(str(pk) for pk in session.scalars(select(StudyRow.id).order_by(StudyRow.id))) or "none yet"
        raise StoreError(f"study {study} is not known: expected one of {expected}")
    return _study(row)


def curves(session: Session, study: int, curve: str | None = None) -> list[CurvePoint]:
    """Read a study's points (of one curve, if given), by backbone, curve and x."""
    seals.check(session, "study", study)
    query = select(StudyPointRow).where(StudyPointRow.study_id == study)
    if curve is not None:
        query = query.where(StudyPointRow.curve == curve)
    rows = session.scalars(query.order_by(StudyPointRow.backbone, StudyPointRow.curve, StudyPointRow.x))
    return [CurvePoint(r.backbone, r.curve, r.x, r.y, r.low, r.high, r.n) for r in rows]


def _study(row: StudyRow) -> StoredStudy:
    return StoredStudy(
        row.id, row.kind, row.run_id, row.parameters, row.environment, row.findings, row.created_at, row.finished_at
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
