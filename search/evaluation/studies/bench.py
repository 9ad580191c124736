"""What a study works with: its ground, the encoders that it compares, and the machine that it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coarseloc.core.config import Settings
from coarseloc.core.errors import InputError
from coarseloc.core.types import EmbeddingSpec, Fit
from coarseloc.embedding.device import resolve_device
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import Database, embeddings, references
from search.environment import machine
from search.evaluation.studies.ground import OrthophotoGround, PictureGround, open_ground
from search.evaluation.studies.study import LoadBackbone
from search.exact_index import backend


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What every study is asked, of rotation or of altitude."""

    source: str  # a reference set, a GeoTIFF, or a folder of pictures
    frames: int = 40  # places looked at
    positions: int = 4  # of them, placed in metres by patch tokens and by orientation correlation
    references: int = 200  # at most, of each altitude
    frames_from: Path | None = None  # another GeoTIFF, that frames are cut from instead
    footprint_m: float | None = None
    overlap: float = 0.5
    tile_px: int | None = None
    seed: int = 1
    backbones: Sequence[str] = ()
    input_px: int | None = None
    precision: str | None = None
    fit: Fit | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class StudyBench:
    """What a study works with."""

    ground: OrthophotoGround | PictureGround
    frames_from: OrthophotoGround | None  # another orthophoto, cut as the ground is
    specs: Sequence[EmbeddingSpec]
    load: LoadBackbone
    environment: Mapping[str, Any]


def open_bench(db: Database, settings: Settings, request: StudyRequest, *, turned: bool = True) -> StudyBench:
    """Open what a study works with. turned: places are seen from every heading, else facing north alone.

    Raises InputError where the source does not serve.
    """
    encoders = Encoders(settings, request.device, request.precision or "fp32", request.input_px, fit=request.fit)
    encoder_specs = _encoder_specs(db, encoders, request)
    ground = open_ground(
        db,
        request.source,
        footprint_m=request.footprint_m,
        overlap=request.overlap,
        tile_px=request.tile_px,
        max_places=request.references,
        turned=turned,
    )
    frames_from = None
    if request.frames_from:
        if not isinstance(ground, OrthophotoGround):
            raise InputError(
                f"--frames-from needs an orthophoto to cut references from; {request.source!r} is pictures"
            )
        frames_from = replace(ground, path=request.frames_from.resolve())
    environment = machine(str(resolve_device(request.device or settings.device)), backend())
    return StudyBench(ground, frames_from, encoder_specs, encoders.load, environment)


def _encoder_specs(db: Database, encoders: Encoders, request: StudyRequest) -> list[EmbeddingSpec]:
    """The encoders asked for, else those a reference set is embedded with, else all of the six whose weights are
    here."""
    with db.read() as session:
        set_ids = {stored.name: stored.id for stored in references.reference_sets(session)}
        stored_specs = embeddings.specs(session, set_ids[request.source]) if request.source in set_ids else []
    if request.backbones or not stored_specs:
        return encoders.specs(request.backbones)
    newest = {spec.backbone: spec for spec in stored_specs}
    return [
        encoders.spec(name, request.input_px or spec.input_px, spec.precision, spec.fit)
        for name, spec in newest.items()
    ]
