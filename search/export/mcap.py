"""A flight's track as an MCAP file of ROS 2 messages (sensor_msgs/msg/NavSatFix), without ROS. An extra: `mcap`."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from coarseloc.core.errors import InputError
from search.export.tracks import FlightTrack, TrackFrame

TOPIC = "/coarseloc/track"
_MICROSECOND = timedelta(microseconds=1)
_UNKNOWN_VARIANCE_M2 = 1e6  # of heights: 0 would claim them exact
_NO_FIX, _FIX, _COVARIANCE_UNKNOWN, _COVARIANCE_KNOWN = -1, 0, 0, 3

# The fields of the messages as ROS 2 defines them (common_interfaces, rcl_interfaces).
_DEFINITION = """std_msgs/Header header
sensor_msgs/NavSatStatus status
float64 latitude
float64 longitude
float64 altitude
float64[9] position_covariance
uint8 COVARIANCE_TYPE_UNKNOWN=0
uint8 COVARIANCE_TYPE_APPROXIMATED=1
uint8 COVARIANCE_TYPE_DIAGONAL_KNOWN=2
uint8 COVARIANCE_TYPE_KNOWN=3
uint8 position_covariance_type
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
================================================================================
MSG: sensor_msgs/NavSatStatus
int8 STATUS_NO_FIX=-1
int8 STATUS_FIX=0
int8 STATUS_SBAS_FIX=1
int8 STATUS_GBAS_FIX=2
int8 status
uint16 SERVICE_GPS=1
uint16 SERVICE_GLONASS=2
uint16 SERVICE_COMPASS=4
uint16 SERVICE_GALILEO=8
uint16 service
"""


def track_mcap(track: FlightTrack) -> bytes:
    """A NavSatFix for each frame, at its time in UTC.

    Raises InputError where that is not known, and where the extra `mcap` is not installed.
    """
    require_mcap()
    times = track.utc_times("MCAP")
    content = io.BytesIO()
    writer = NavSatFixWriter(content)
    for sequence, tracked in enumerate(track.frames):
        writer.write(tracked, times[tracked.frame.index], sequence)
    writer.finish()
    return content.getvalue()


def require_mcap() -> None:
    """Raises InputError where the extra `mcap` is not installed."""
    try:
        import mcap_ros2.writer  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "MCAP needs the extra `mcap`: pip install 'mcap>=1.4,<2' 'mcap-ros2-support>=0.6,<1'"
        ) from None


class NavSatFixWriter:
    """An MCAP file of NavSatFix messages, whole once it is finished."""

    def __init__(self, content: IO[bytes]) -> None:
        from mcap_ros2.writer import Writer

        self._writer = Writer(content)
        self._schema = self._writer.register_msgdef("sensor_msgs/msg/NavSatFix", _DEFINITION)

    def write(self, tracked: TrackFrame, time: datetime, sequence: int) -> None:
        """A frame's message. time: in UTC."""
        since_epoch_ns = _since_epoch_ns(time)
        message = nav_sat_fix(tracked, since_epoch_ns)
        self._writer.write_message(TOPIC, self._schema, message, log_time=since_epoch_ns, sequence=sequence)

    def finish(self) -> None:
        """Write what ends the file."""
        self._writer.finish()


def nav_sat_fix(tracked: TrackFrame, since_epoch_ns: int) -> dict[str, Any]:
    """The message of a frame: covariance in m², row-major, east, north, up; without a position status -1 and NaN.

    `frame_id` says what the position is of. No height is given: a NavSatFix's is above the ellipsoid.
    """
    seconds, nanoseconds = divmod(since_epoch_ns, 1_000_000_000)
    location, covariance = tracked.position, tracked.covariance_m2
    message = {
        "header": {"stamp": {"sec": seconds, "nanosec": nanoseconds}, "frame_id": tracked.point},
        "status": {"status": _NO_FIX, "service": 0},  # no satellites
        "latitude": math.nan,
        "longitude": math.nan,
        "altitude": math.nan,
        "position_covariance": [0.0] * 9,
        "position_covariance_type": _COVARIANCE_UNKNOWN,
    }
    if location is None or covariance is None:
        return message
    east, mixed, north = covariance.east_east, covariance.east_north, covariance.north_north
    return message | {
        "status": {"status": _FIX, "service": 0},
        "latitude": location.lat,
        "longitude": location.lon,
        "position_covariance": [east, mixed, 0.0, mixed, north, 0.0, 0.0, 0.0, _UNKNOWN_VARIANCE_M2],
        "position_covariance_type": _COVARIANCE_KNOWN,
    }


def _since_epoch_ns(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND * 1000
