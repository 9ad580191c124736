"""Checks of maps and flights as the records that other programs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from coarseloc.core.types import LonLat
from search.export.records import GainInfo, GroundInfo, LocalizabilityInfo, Location, TwinInfo
from search.localizability import BackboneLocalizability, Localizability, TwinPair, twin_pairs


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


def _location(position: LonLat) -> Location:
    return Location(lon=position.lon, lat=position.lat)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
