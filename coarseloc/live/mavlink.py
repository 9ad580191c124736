"""Live estimates as MAVLink 2 messages (https://mavlink.io/en/messages/common.html). An extra: `mavlink`.

PX4 takes GLOBAL_POSITION_SENSOR, ArduPilot the command MAV_CMD_EXTERNAL_POSITION_ESTIMATE: made for a position now and
then, so it is sent for frames that the map measured alone. PX4 takes that too, as a reset of its filter: never both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Literal, get_args

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import CHI2_95, ellipse
from coarseloc.core.types import Covariance, LonLat
from coarseloc.live.endpoints import Endpoint
from coarseloc.live.session import LiveEstimate

Autopilot = Literal["px4", "ardupilot"]
ExtraMessage = Literal["odometry", "vision-position", "gps-input"]
EXTRA_MESSAGES: tuple[ExtraMessage, ...] = get_args(ExtraMessage)

_INT32_MAX, _UINT32_MAX, _UINT16_MAX = 2**31 - 1, 2**32 - 1, 2**16 - 1
_HEARTBEAT_S = 1.0
_WRAP_S = 250.0  # of the command's clock, whose float of 32 bits then holds 10 µs
_UNKNOWN_VARIANCE = 1e6  # m², rad²: of what no frame tells
_GPS_EPOCH, _LEAP = datetime(1980, 1, 6, tzinfo=UTC), timedelta(seconds=18)  # GPS time minus UTC since 2017
_WEEK = timedelta(weeks=1)


class MavlinkOutput:
    """Messages of each frame to an endpoint, as of a component of the vehicle that looks down."""

    utc_purpose: str | None = "MAVLink"

    def __init__(
        self,
        endpoint: Endpoint,
        autopilot: Autopilot,
        extra_messages: Sequence[ExtraMessage],
        system: int,
        notice: Callable[[str], None],
    ) -> None:
        """system: of the vehicle. Raises InputError where the extra `mavlink` is not installed."""
        self._dialect = mavlink_dialect()
        self._endpoint, self._system = endpoint, system
        self._link = self._dialect.MAVLink(
            None, srcSystem=system, srcComponent=self._dialect.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY
        )
        position = {"px4": self._global_position_sensor, "ardupilot": self._external_position}[autopilot]
        extra: dict[ExtraMessage, Callable[[LiveEstimate], Any]] = {
            "odometry": self._odometry,
            "vision-position": self._vision_position,
            "gps-input": self._gps_input,
        }
        self._messages = [position, *(extra[name] for name in dict.fromkeys(extra_messages))]
        self._origin: LonLat | None = None  # of local positions: the first one
        self._heartbeat_s = -math.inf
        if "gps-input" in extra_messages:
            notice(
                "GPS_INPUT takes a satellite receiver's place: the autopilot may fly by it as by GNSS. Its "
                "horiz_accuracy is one sigma; it has a 2D fix, a 3D one only where the height above sea level is known"
            )

    def write(self, estimate: LiveEstimate) -> None:
        """See `LiveOutput`."""
        packets = [message.pack(self._link) for message in self._packets(estimate)]
        self._endpoint.send(b"".join(packets))

    def close(self) -> None:
        """See `LiveOutput`."""
        self._endpoint.close()

    def remarks(self) -> list[str]:
        """See `LiveOutput`."""
        return self._endpoint.remarks()

    def _packets(self, estimate: LiveEstimate) -> Iterator[Any]:
        """Each message with its number in the stream."""
        dialect = self._dialect
        messages = []
        if time.monotonic() - self._heartbeat_s >= _HEARTBEAT_S:
            self._heartbeat_s = time.monotonic()
            state = dialect.MAV_STATE_ACTIVE if estimate.tracked.position else dialect.MAV_STATE_STANDBY
            messages.append(
                self._link.heartbeat_encode(
                    dialect.MAV_TYPE_ONBOARD_CONTROLLER, dialect.MAV_AUTOPILOT_INVALID, 0, 0, state
                )
            )
        messages += [message for make in self._messages if (message := make(estimate)) is not None]
        for message in messages:
            yield message
            self._link.seq = (self._link.seq + 1) % 256

    def _global_position_sensor(self, estimate: LiveEstimate) -> Any:
        dialect, tracked = self._dialect, estimate.tracked
        sent, delay_us = estimate.record.estimated_at, _delay(estimate) // timedelta(microseconds=1)
        place, covariance = tracked.position, tracked.covariance_m2
        has_place = place is not None and covariance is not None
        return self._link.global_position_sensor_encode(
            self._system,
            0,
            0,
            _since_epoch_us(sent),
            min(delay_us, _UINT32_MAX),
            dialect.GLOBAL_POSITION_SRC_VISION,
            0 if has_place else dialect.GLOBAL_POSITION_UNHEALTHY,
            *(_degrees_e7(place) if place else (_INT32_MAX, _INT32_MAX)),
            math.nan,
            math.nan if tracked.height_msl_m is None or not has_place else tracked.height_msl_m,
            _sigma_m(covariance) if covariance else math.nan,
            math.nan,
        )

    def _external_position(self, estimate: LiveEstimate) -> Any:
        dialect, tracked = self._dialect, estimate.tracked
        place, covariance = tracked.position, tracked.covariance_m2
        if place is None or covariance is None or not tracked.estimate.measured:
            return None
        sent_s, delay_s = estimate.record.estimated_at.timestamp() % _WRAP_S, _delay(estimate).total_seconds()
        return self._link.command_int_encode(
            self._system, dialect.MAV_COMP_ID_AUTOPILOT1, dialect.MAV_FRAME_GLOBAL,
            dialect.MAV_CMD_EXTERNAL_POSITION_ESTIMATE, 0, 0,
            sent_s, delay_s, _sigma_m(covariance), 0.0, *_degrees_e7(place), math.nan,
        )  # fmt: skip

    def _local(self, estimate: LiveEstimate) -> tuple[float, float, float, list[float]] | None:
        """(north, east of the first position in metres, yaw in radians, the pose's covariance); None without a
        position. What no frame tells, height, pitch and roll, is 0 with a variance that says so."""
        tracked = estimate.tracked
        place, covariance, heading_deg = tracked.position, tracked.covariance_m2, tracked.estimate.heading_deg
        if place is None or covariance is None or heading_deg is None:
            return None
        self._origin = self._origin or place
        east, north = geo.offset_m(self._origin, place)
        values = [0.0] * 21  # upper triangle by rows, of x, y, z, roll, pitch, yaw
        values[0], values[1], values[6] = covariance.north_north, covariance.east_north, covariance.east_east
        for diagonal in (11, 15, 18):
            values[diagonal] = _UNKNOWN_VARIANCE
        values[20] = math.radians(tracked.estimate.heading_sd_deg or 180.0) ** 2
        return north, east, math.radians((heading_deg + 180.0) % 360.0 - 180.0), values

    def _odometry(self, estimate: LiveEstimate) -> Any:
        dialect, local = self._dialect, self._local(estimate)
        if local is None or estimate.utc is None:
            return None
        north, east, yaw, covariance = local
        unknown = [math.nan, *[0.0] * 20]
        return self._link.odometry_encode(
            _since_epoch_us(estimate.utc), dialect.MAV_FRAME_LOCAL_NED, dialect.MAV_FRAME_BODY_FRD, north, east, 0.0,
            [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)], *[math.nan] * 6, covariance, unknown,
            estimate.tracked.estimate.reset_counter % 256, dialect.MAV_ESTIMATOR_TYPE_VISION,
            max(1, round(100 * estimate.tracked.estimate.probability)),
        )  # fmt: skip

    def _vision_position(self, estimate: LiveEstimate) -> Any:
        local = self._local(estimate)
        if local is None or estimate.utc is None:
            return None
        north, east, yaw, covariance = local
        return self._link.vision_position_estimate_encode(
            _since_epoch_us(estimate.utc), north, east, 0.0, 0.0, 0.0, yaw, covariance,
            estimate.tracked.estimate.reset_counter % 256,
        )  # fmt: skip

    def _gps_input(self, estimate: LiveEstimate) -> Any:
        dialect, tracked = self._dialect, estimate.tracked
        if estimate.utc is None:
            return None
        place, covariance, height_m = tracked.position, tracked.covariance_m2, tracked.height_msl_m
        ignored = (
            dialect.GPS_INPUT_IGNORE_FLAG_HDOP
            | dialect.GPS_INPUT_IGNORE_FLAG_VDOP
            | dialect.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ
            | dialect.GPS_INPUT_IGNORE_FLAG_VEL_VERT
            | dialect.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
            | dialect.GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY
        )
        if height_m is None:
            ignored |= dialect.GPS_INPUT_IGNORE_FLAG_ALT
        fix_type = 1 if place is None else 2 if height_m is None else 3
        week, in_week = divmod(estimate.utc + _LEAP - _GPS_EPOCH, _WEEK)
        return self._link.gps_input_encode(
            _since_epoch_us(estimate.utc), 0, ignored, in_week // timedelta(milliseconds=1), week, fix_type,
            *(_degrees_e7(place) if place else (0, 0)), height_m or 0.0, _UINT16_MAX, _UINT16_MAX, 0.0, 0.0, 0.0, 0.0,
            _sigma_m(covariance) if covariance else math.sqrt(_UNKNOWN_VARIANCE), 0.0, 0,
        )  # fmt: skip


def mavlink_dialect() -> ModuleType:
    """The messages of MAVLink 2. Raises InputError where the extra `mavlink` is not installed."""
    try:
        from pymavlink.dialects.v20 import common
    except ModuleNotFoundError:
        raise InputError("MAVLink needs the extra `mavlink`: pip install 'pymavlink>=2.4.50,<3'") from None
    dialect: ModuleType = common
    return dialect


def _delay(estimate: LiveEstimate) -> timedelta:
    """From the frame's time to the message; 0 where the camera's clock is ahead."""
    return max(estimate.record.estimated_at - (estimate.utc or estimate.record.arrived_at), timedelta())


def _since_epoch_us(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _degrees_e7(place: LonLat) -> tuple[int, int]:
    """(latitude, longitude)."""
    return round(place.lat * 1e7), round(place.lon * 1e7)


def _sigma_m(covariance: Covariance) -> float:
    """Along the longer axis."""
    return ellipse(covariance).major_m / math.sqrt(CHI2_95)
