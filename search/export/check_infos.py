"""Checks of maps and flights as the records that other programs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from coarseloc.core.types import LonLat
from search.export.records import (
    ExplanationInfo,
    GainInfo,
    GroundInfo,
    HeadingOffsetInfo,
    LabelInfo,
    LegOffsetInfo,
    LocalizabilityInfo,
    Location,
    TruthCheckInfo,
    TwinInfo,
    WitnessStatementInfo,
)
from search.localizability import BackboneLocalizability, Localizability, TwinPair, twin_pairs

if TYPE_CHECKING:
    from search.evaluation.truth_check import CheckedFrame, LegOffset, TruthCheck


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
