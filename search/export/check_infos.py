"""Checks of maps and flights as the records that other programs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from coarseloc.core.types import LonLat
from coarseloc.localize.metrics import MapOverlap
from search.export.records import (
    EncoderCostInfo,
    ExplanationInfo,
    FindingInfo,
    FlightInfo,
    GainInfo,
    GroundInfo,
    HeadingOffsetInfo,
    LabelInfo,
    LegOffsetInfo,
    LocalizabilityInfo,
    Location,
    PreflightInfo,
    SourceInfo,
    TruthCheckInfo,
    TwinInfo,
    WitnessStatementInfo,
)
from search.localizability import BackboneLocalizability, Localizability, TwinPair, twin_pairs
from search.preflight.flight_facts import FlownFacts
from search.preflight.map_facts import SampledTiles, SourceFacts
from search.preflight.preflight import Preflight

if TYPE_CHECKING:
    from search.evaluation.truth_check import CheckedFrame, LegOffset, TruthCheck


def preflight_info(preflight: Preflight) -> PreflightInfo:
    """As JSON holds it."""
    samples: list[SampledTiles | None] = [*preflight.samples] or [None] * len(preflight.sources)
    return PreflightInfo(
        schema_version="1.0",
        verdict=preflight.verdict,
        findings=[
            FindingInfo(
                topic=finding.topic,
                level=finding.level,
                key=finding.key,
                sentence=finding.sentence(),
                values=finding.values,
            )
            for finding in preflight.findings
        ],
        notes=list(preflight.notes),
        sources=[_source_info(facts, sample) for facts, sample in zip(preflight.sources, samples, strict=True)],
        flight=None if preflight.flight is None else _flight_info(preflight.flight, preflight.overlap),
        backbones=[
            EncoderCostInfo(
                backbone=cost.backbone,
                dim=cost.dim,
                embeddings=cost.embeddings,
                views=cost.views,
                embed_ms=None if cost.embed_s is None else 1e3 * cost.embed_s,
                frame_ms=None if cost.frame_s is None else 1e3 * cost.frame_s,
            )
            for cost in preflight.encoders
        ],
        ingest_minutes=preflight.ingest_minutes,
        search_minutes=preflight.search_minutes,
        disk_needed_bytes=preflight.disk_needed_bytes,
        disk_free_bytes=preflight.disk_free_bytes,
    )


def _source_info(facts: SourceFacts, sample: SampledTiles | None) -> SourceInfo:
    values = {name: value for name, value in asdict(facts).items() if name != "box"}
    return SourceInfo(
        **values,
        bbox=facts.box,
        sampled=None if sample is None else len(sample.tiles),
        blank=None if sample is None else len(sample.blank),
        plain=None if sample is None else len(sample.plain),
    )


def _flight_info(facts: FlownFacts, overlap: MapOverlap | None) -> FlightInfo:
    return FlightInfo(
        flight_id=facts.flight_id,
        path=facts.path,
        frames=facts.frames,
        truth_source=facts.truth_source,
        known_positions=facts.known,
        known_yaws=facts.yaws,
        known_altitudes=facts.altitudes,
        time_source=facts.time_source,
        span_s=facts.span_s,
        interval_s=facts.interval_s,
        footprint_m=facts.footprint_m,
        footprint_source=facts.footprint_source,
        off_map=None if overlap is None else overlap.off_map,
        nearest_m=None if overlap is None else overlap.nearest_m,
    )


def localizability_info(measured: Localizability, rasters: Sequence[Path] = ()) -> LocalizabilityInfo:
    """rasters: written of it."""
    return LocalizabilityInfo(
        schema_version="1.0",
        reference_set=measured.reference_set,
        footprint_m=measured.footprint_m,
        stride_m=measured.stride_m,
        headings=list(measured.headings),
        excluded=measured.exclusion,
        backbones=[_ground_info(backbone) for backbone in measured.backbones],
        gains=[
            GainInfo(
                kind=gain.kind,
                name=gain.name,
                queries=gain.queries,
                share_without=gain.share_without,
                share_with=gain.share_with,
            )
            for gain in measured.gains
        ],
        not_measured=list(measured.not_measured),
        rasters=[str(path) for path in rasters],
    )


def _ground_info(backbone: BackboneLocalizability) -> GroundInfo:
    places = backbone.places
    return GroundInfo(
        backbone=backbone.backbone,
        how=backbone.how,
        views=backbone.views,
        places=len(places.lon),
        ground_share=backbone.ground_share,
        places_always=int((places.right_share == 1).sum()),
        places_never=int((places.right_share == 0).sum()),
        shares=dict(backbone.shares),
        share_by_heading=dict(backbone.share_by_heading),
        median_error_m=_finite(backbone.median_error_m),
        p90_error_m=_finite(backbone.p90_error_m),
        search_s=backbone.search_s,
        twins=[_twin_info(pair) for pair in twin_pairs(places)],
    )


def _twin_info(pair: TwinPair) -> TwinInfo:
    return TwinInfo(
        location=_location(pair.location),
        twin_location=_location(pair.twin_location),
        distance_m=pair.distance_m,
        score=pair.score,
        margin=pair.margin,
    )


def truth_check_info(check: TruthCheck) -> TruthCheckInfo:
    """As JSON holds it."""
    return TruthCheckInfo(
        schema_version="1.0",
        flight_id=check.flight.flight_id,
        truth_source=check.flight.truth_source,
        counts={str(verdict): count for verdict, count in check.counts.items()},
        witnesses=list(check.witnesses),
        off_map=check.off_map,
        nearest_m=check.nearest_m,
        map_shift_m=check.map_shift_m,
        heading=None if check.heading is None else HeadingOffsetInfo(**asdict(check.heading)),
        legs=[_leg_info(leg) for leg in check.legs],
        explanations=[
            ExplanationInfo(
                name=explanation.name,
                sentence=explanation.sentence(),
                values=explanation.values,
                median_m=explanation.median_m,
                share_within=explanation.share_within,
                frames=explanation.frames,
                accepted=explanation.accepted,
                tied=explanation.tied,
            )
            for explanation in check.explanations
        ],
        frames=[_label_info(checked) for checked in check.frames],
    )


def _leg_info(leg: LegOffset) -> LegOffsetInfo:
    facts = {name: value for name, value in asdict(leg).items() if name != "boresight"}
    angle = leg.boresight
    pitch_deg, roll_deg = (None, None) if angle is None else (angle.pitch_deg, angle.roll_deg)
    return LegOffsetInfo(**facts, pitch_deg=pitch_deg, roll_deg=roll_deg)


def _label_info(checked: CheckedFrame) -> LabelInfo:
    frame = checked.frame
    return LabelInfo(
        frame_index=frame.index,
        relative_path=frame.relative_path,
        verdict=checked.verdict,
        reason=checked.reason,
        label=frame.truth.location and _location(frame.truth.location),
        proposal=checked.proposal and _location(checked.proposal),
        heading_off_deg=checked.heading_off_deg,
        heading_contradicted=checked.heading_contradicted,
        testimonies=[
            WitnessStatementInfo(
                witness=testimony.witness,
                kind=testimony.kind,
                location=_location(testimony.location),
                distance_m=testimony.distance_m,
                tolerance_m=testimony.tolerance_m,
                probability=testimony.probability,
                heading_deg=testimony.heading_deg,
            )
            for testimony in checked.testimonies
        ],
    )


def _location(position: LonLat) -> Location:
    return Location(lon=position.lon, lat=position.lat)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
