"""What `coarseloc localizability` measured of a set's places, stored in the data folder so that maps can show it.

A file for each spec of a set, replaced by the next measurement: `localizability/<set's id>/<collection>.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from coarseloc.core import files
from coarseloc.core.types import Floats
from coarseloc.store import Database, tallies
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.localizability import BackboneLocalizability, Exclusion, Localizability

_log = logging.getLogger(__name__)


class MeasuredGround(BaseModel):
    """P places of a set under one backbone; null where nothing could answer."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    backbone: str
    how: str  # input size and precision
    excluded: Exclusion
    measured_at: datetime
    version: str  # of the embeddings, see `tallies.Tally`
    footprint_m: float
    stride_m: float
    ground_share: float
    median_error_m: float | None
    p90_error_m: float | None
    lon: list[float]  # [P]
    lat: list[float]  # [P]
    error_m: list[float | None]  # [P], mean over the place's headings
    right_share: list[float]  # [P]
    margin: list[float | None]  # [P], before the twin, cosine


Versions = Mapping[int, str]  # {spec: version of a set's embeddings}


def embedding_versions(db: Database, stored: StoredReferenceSet, specs: Sequence[StoredSpec]) -> Versions:
    with db.read() as session:
        return {spec.id: tallies.tally(session, stored.id, spec.id).version for spec in specs}


def store_ground(
    root: Path, stored: StoredReferenceSet, specs: Sequence[StoredSpec], versions: Versions, measured: Localizability
) -> None:
    """Write what was measured under each of `specs`, in their order, below `root`. versions: before it was measured."""
    for spec, backbone in zip(specs, measured.backbones, strict=True):
        path = _path(root, stored, spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        ground = _measured_ground(measured, backbone, versions[spec.id])
        files.write_text(path, ground.model_dump_json())


def _measured_ground(measured: Localizability, backbone: BackboneLocalizability, version: str) -> MeasuredGround:
    places = backbone.places
    return MeasuredGround(
        backbone=backbone.backbone,
        how=backbone.how,
        excluded=measured.exclusion,
        measured_at=datetime.now(UTC).replace(microsecond=0),
        version=version,
        footprint_m=measured.footprint_m,
        stride_m=measured.stride_m,
        ground_share=backbone.ground_share,
        median_error_m=_known([backbone.median_error_m])[0],
        p90_error_m=_known([backbone.p90_error_m])[0],
        lon=places.lon.round(7).tolist(),
        lat=places.lat.round(7).tolist(),
        error_m=_known(places.error_m.round(1)),
        right_share=places.right_share.round(4).tolist(),
        margin=_known(places.margin.round(5)),
    )


def _known(values: Floats | Sequence[float]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def is_measured(root: Path, stored: StoredReferenceSet) -> bool:
    return any((root / stored.uid).glob("*.json"))


def read_ground(
    db: Database, root: Path, stored: StoredReferenceSet, specs: Sequence[StoredSpec]
) -> list[tuple[MeasuredGround, bool]]:
    """[(what was measured, whether the embeddings are still those that were), …] in the order of `specs`.

    A file that cannot be read counts as not measured, and is named in the log.
    """
    versions = embedding_versions(db, stored, specs)
    grounds = []
    for spec in specs:
        path = _path(root, stored, spec)
        if not path.exists():
            continue
        try:
            ground = MeasuredGround.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            _log.warning("%s is not what `coarseloc localizability` writes (%s): measure again", path, error)
            continue
        grounds.append((ground, ground.version == versions[spec.id]))
    return grounds


def _path(root: Path, stored: StoredReferenceSet, spec: StoredSpec) -> Path:
    return root / stored.uid / f"{spec.collection}.json"
