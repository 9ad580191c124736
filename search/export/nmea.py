"""A track's estimates as NMEA 0183 sentences: GGA, RMC and GST for each frame. Pure.

Quality is never 1 to 5, which mean satellites. A frame that the map measured has 8 ("simulator"), a dead-reckoned one 6
("estimated"): the standard has no value for a position by other means, and of those that are left autopilots
(ArduPilot) take 8 for a fix and 6 for none. Without a position it is 0, with status V, and no place is said.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import reduce

from coarseloc.core.fixes import CHI2_95, ellipse
from coarseloc.core.types import LonLat
from search.export.tracks import FlightTrack, TrackFrame

TALKER = "GN"  # QGIS reads no GGA of a talker other than GP and GN
_QUALITY = {True: (8, "S"), False: (6, "E")}  # by measured: GGA's quality, RMC's mode
_MINUTE_DECIMALS = 5  # 2 cm
_KNOT_MPS = 1852.0 / 3600.0


def track_nmea(track: FlightTrack) -> str:
    """Every frame's sentences, a line each. Raises InputError where the frames' times in UTC are not known."""
    times = track.utc_times("NMEA")
    return "".join(line for tracked in track.frames for line in sentences(tracked, times[tracked.frame.index]))


def sentences(tracked: TrackFrame, time: datetime) -> list[str]:
    """GGA, RMC and, with a position, GST of a frame, each with its line end. time: in UTC.

    Empty are heights unless they are above sea level, HDOP, and the course: a heading is not one.
    """
    clock, date = f"{time:%H%M%S}.{time.microsecond // 10_000:02d}", f"{time:%d%m%y}"
    location, covariance = tracked.position, tracked.covariance_m2
    if location is None or covariance is None:
        return [
            sentence("GGA", clock, "", "", "", "", "0", "00", "", "", "M", "", "M", "", ""),
            sentence("RMC", clock, "V", "", "", "", "", "", "", date, "", "", "N"),
        ]
    quality, mode = _QUALITY[tracked.estimate.measured]
    place, height_m, speed_mps = _place(location), tracked.height_msl_m, tracked.estimate.speed_mps
    height = "" if height_m is None else f"{height_m:.2f}"
    knots = "" if speed_mps is None else f"{speed_mps / _KNOT_MPS:.2f}"
    axes, sigmas = ellipse(covariance), math.sqrt(CHI2_95)
    deviations_m = (
        axes.major_m / sigmas,
        axes.minor_m / sigmas,
        axes.azimuth_deg,
        math.sqrt(covariance.north_north),
        math.sqrt(covariance.east_east),
    )
    return [
        sentence("GGA", clock, *place, str(quality), "00", "", height, "M", "", "M", "", ""),
        sentence("RMC", clock, "A", *place, knots, "", date, "", "", mode),
        sentence("GST", clock, "", *(f"{value:.2f}" for value in deviations_m), ""),
    ]


def sentence(kind: str, *fields: str) -> str:
    """A sentence with talker, checksum (the XOR of what stands between $ and *) and line end."""
    body = ",".join((TALKER + kind, *fields))
    return f"${body}*{reduce(lambda total, byte: total ^ byte, body.encode('ascii')):02X}\r\n"


def _place(location: LonLat) -> tuple[str, str, str, str]:
    """ddmm.mmmmm, N or S, dddmm.mmmmm, E or W."""
    lat, lon = _degrees_minutes(location.lat, 2), _degrees_minutes(location.lon, 3)
    return lat, "S" if location.lat < 0 else "N", lon, "W" if location.lon < 0 else "E"


def _degrees_minutes(degrees: float, digits: int) -> str:
    """Rounded before it is split, so that minutes never come to 60."""
    scale = 10**_MINUTE_DECIMALS
    whole, rest = divmod(round(abs(degrees) * 60 * scale), 60 * scale)
    minutes, decimals = divmod(rest, scale)
    return f"{whole:0{digits}d}{minutes:02d}.{decimals:0{_MINUTE_DECIMALS}d}"
