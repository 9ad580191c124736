"""A flight's track as GPX 1.1: a segment for each unbroken run, times in UTC. Pure."""

from __future__ import annotations

from datetime import datetime

from coarseloc.core.fixes import ellipse
from search.export import geometries
from search.export.kml import utc_text, xml_text
from search.export.tracks import FlightTrack, TrackFrame

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<gpx version="1.1" creator="coarseloc" '
    'xmlns="http://www.topografix.com/GPX/1/1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.topografix.com/GPX/1/1 http://www.topografix.com/GPX/1/1/gpx.xsd">\n'
)


def track_gpx(track: FlightTrack) -> str:
    """The track's GPX. Raises InputError where the frames' times in UTC are not known."""
    times = track.utc_times("GPX")
    segments = "".join(
        f"<trkseg>\n{''.join(_point(tracked, times[tracked.frame.index]) for tracked in segment)}</trkseg>\n"
        for segment in track.segments()
    )
    stored = track.stored
    source = " ".join((stored.track_mode, stored.evidence, "on", stored.reference_set, *stored.track_options))
    started = f"<time>{utc_text(min(times.values()))}</time>" if times else ""
    return (
        f"{_HEAD}<metadata><name>{xml_text(track.flight.flight_id)}</name>{started}</metadata>\n"
        f"<trk><name>{xml_text(track.flight.flight_id)}</name><src>coarseloc: {xml_text(source)}</src>\n"
        f"{segments}</trk></gpx>\n"
    )


def _point(tracked: TrackFrame, time: datetime) -> str:
    """A trkpt; its children in the schema's order. A height only where it is above sea level, as GPX means it."""
    if tracked.position is None or tracked.covariance_m2 is None:
        return ""
    lon, lat = geometries.position(tracked.position)
    height = "" if tracked.height_msl_m is None else f"<ele>{tracked.height_msl_m:.2f}</ele>"
    told_by = "measured" if tracked.estimate.measured else "dead reckoning"
    radius_m = ellipse(tracked.covariance_m2).major_m
    return (
        f'<trkpt lat="{lat:.7f}" lon="{-180.0 if lon == 180.0 else lon:.7f}">{height}<time>{utc_text(time)}</time>'
        f"<name>{tracked.frame.index}</name>"
        f"<cmt>{tracked.estimate.state}, {told_by}, {tracked.point}, within {radius_m:.1f} m (95 %)</cmt></trkpt>\n"
    )
