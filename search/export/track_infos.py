"""A track's estimate as every program reads it. Unless the track claims it, no position leaves this module."""

from __future__ import annotations

from coarseloc.core.tracks import TrackEstimate
from coarseloc.store.localizations import StoredLocalization
from search.answers import TrackErrors
from search.export.fix_infos import heading_info, point_info
from search.export.records import AlternativeInfo, TrackErrorsInfo, TrackInfo


def track_info(estimate: TrackEstimate, stored: StoredLocalization | None = None) -> TrackInfo:
    """The record of an estimate. stored: the track that it is of, where readers are to know what that was asked."""
    location = point_info(estimate.position, estimate.position_covariance_m2)
    alternatives = [
        AlternativeInfo(
            **place.location._asdict(),
            heading_deg=heading_info(place.heading_deg),
            probability=_share(place.probability),
        )
        for place in estimate.alternatives
    ]
    return TrackInfo(
        state=estimate.state,
        mode=estimate.mode,
        point=None if location is None else "ground" if estimate.aircraft is None else "aircraft",
        location=location,
        heading_deg=None if estimate.heading_deg is None else heading_info(estimate.heading_deg),
        heading_sd_deg=estimate.heading_sd_deg,
        speed_mps=estimate.speed_mps,
        probability=_share(estimate.probability),
        p_off_map=_share(estimate.p_off_map),
        p_blind=_share(estimate.p_blind),
        measured=estimate.measured,
        odometry=estimate.odometry,
        reset_counter=estimate.reset_counter,
        alternatives=alternatives,
        evidence=stored.evidence if stored else None,
        options=list(stored.track_options) if stored else None,
    )


def track_errors_info(errors: TrackErrors | None) -> TrackErrorsInfo | None:
    return None if errors is None else TrackErrorsInfo(track_m=errors.location_m, heading_error_deg=errors.heading_deg)


def _share(probability: float) -> float:
    """Sums of weights may pass 1 by a rounding."""
    return min(max(probability, 0.0), 1.0)
