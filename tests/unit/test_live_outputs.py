"""Where live estimates go, and who is not waited for."""

from __future__ import annotations

import math
import os
import socket
import sys
import tty
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from pymavlink import mavutil
from pymavlink.dialects.v20 import common as mavlink

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Covariance, Flight, Frame, LonLat, Pose
from coarseloc.live.endpoints import EndpointAddress, TcpClients
from coarseloc.live.mavlink import MavlinkOutput, mavlink_dialect
from coarseloc.live.outputs import McapOutput
from coarseloc.live.session import LiveEstimate
from search.export.map_infos import frame_track_info
from search.export.records import LiveFrameInfo
from search.export.tracks import TrackFrame

PLACE, CAPTURED = LonLat(129.0, 37.5), datetime(2026, 1, 1, 12, tzinfo=UTC)


def live_estimate(place: LonLat | None = PLACE, *, sea_m: float | None = None, **changes: Any) -> LiveEstimate:
    """A frame of a moment ago, with the aircraft's place; None: it is lost."""
    covariance = Covariance(4.0, 0.0, 9.0) if place else None
    estimate = TrackEstimate(
        7, "causal", "tracking" if place else "lost", place, covariance, 90.0 if place else None,
        0.5 if place else None, 1.0, 20.0, 0.98, 0.0, 0.0, "frames", 3, measured=place is not None, aircraft=place,
        aircraft_covariance_m2=covariance,
    )  # fmt: skip
    pose = Pose(altitude_label_m=sea_m, altitude_datum="sea") if sea_m is not None else Pose()
    frame, flight = Frame(7, Path("7.jpg"), "7.jpg", pose), Flight("f", Path(), ())
    estimate = replace(estimate, **changes)
    times = {"captured_at": CAPTURED, "arrived_at": CAPTURED, "estimated_at": CAPTURED + timedelta(seconds=0.25)}
    info = frame_track_info(flight, frame, estimate, None, 10.0)
    record = LiveFrameInfo(**dict(info), **times, sequence=7, dropped=0, age_s=0.25, capture_age_s=0.25)
    return LiveEstimate(TrackFrame(frame, estimate), record, CAPTURED, flight)


def messages_of(*estimates: LiveEstimate, autopilot: str = "px4", extra: tuple[str, ...] = ()) -> list[Any]:
    """What a pymavlink peer reads of them, but for heartbeats, which it must have seen."""
    peer = mavutil.mavlink_connection("udpin:127.0.0.1:0", dialect="common")
    address = EndpointAddress("udp", "127.0.0.1", peer.port.getsockname()[1])
    notices: list[str] = []
    output = MavlinkOutput(address.open("MAVLink", notices.append), autopilot, extra, 1, notices.append)  # type: ignore[arg-type]
    for estimate in estimates:
        output.write(estimate)
    output.close()
    messages = []
    while (message := peer.recv_match(blocking=False)) is not None:
        messages.append(message)
    peer.close()
    assert {(message.get_srcSystem(), message.get_srcComponent()) for message in messages} == {(1, 197)}
    assert [message.get_seq() for message in messages] == list(range(len(messages)))
    assert messages[0].get_type() == "HEARTBEAT" and "BAD_DATA" not in {message.get_type() for message in messages}
    assert any("satellite receiver's place" in notice for notice in notices) == ("gps-input" in extra)
    return messages[1:]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10110", EndpointAddress("tcp", "127.0.0.1", 10110)),
        ("udp:0.0.0.0:14550", EndpointAddress("udp", "0.0.0.0", 14550)),
        ("udp:[::1]:14550", EndpointAddress("udp", "::1", 14550)),
        ("serial:/dev/ttyUSB0:115200", EndpointAddress("serial", "/dev/ttyUSB0", 115200)),
        ("serial:/dev/ttyUSB0", EndpointAddress("serial", "/dev/ttyUSB0", 57600)),
    ],
)
def test_an_endpoint_is_on_this_machine_unless_a_host_is_given(text: str, address: EndpointAddress):
    assert EndpointAddress.parse(text) == address


@pytest.mark.parametrize("text", ["10110", "tcp:", "tcp:host", "udp:127.0.0.1:70000", "http:80", "tcp:a b:80"])
def test_what_is_no_endpoint_is_refused_with_the_form(text: str):
    with pytest.raises(InputError, match=r"tcp:\[HOST:\]PORT"):
        EndpointAddress.parse(text)


def test_a_client_that_does_not_read_is_dropped_and_the_others_get_every_byte():
    notices: list[str] = []
    server = EndpointAddress.parse("tcp:0").open("NMEA", notices.append)
    assert isinstance(server, TcpClients)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", server.port))
    with slow, socket.create_connection(("127.0.0.1", server.port)) as reading:
        gone = socket.create_connection(("127.0.0.1", server.port))
        received, sent = b"", b""
        for number in range(400):
            data = f"{number:03d}".encode() * 100
            server.send(data)
            if number == 0:
                gone.close()
            sent += data
            while len(received) < len(sent):
                received += reading.recv(65536)
        assert received == sent
    server.close()
    assert server.remarks() == ["1 slow clients of NMEA were dropped"]
    assert len([text for text in notices if "does not keep up" in text]) == 1


def test_a_serial_port_carries_the_bytes_and_is_not_waited_for_when_nobody_reads(monkeypatch: pytest.MonkeyPatch):
    device, port = os.openpty()
    tty.setraw(port)
    address = EndpointAddress("serial", os.ttyname(port), 57_600)
    notices: list[str] = []
    serial_port = address.open("NMEA", notices.append)
    serial_port.send(b"$GNGGA,1\r\n")
    assert os.read(device, 100) == b"$GNGGA,1\r\n" and serial_port.remarks() == []
    for _ in range(40):
        serial_port.send(bytes(1000))
    assert "were not sent whole" in serial_port.remarks()[0] and len(notices) == 1
    serial_port.close()
    with pytest.raises(InputError, match="cannot go to serial:/dev/nowhere:57600"):
        EndpointAddress.parse("serial:/dev/nowhere").open("NMEA", notices.append)
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(InputError, match="extra `serial`"):
        address.open("NMEA", notices.append)
    os.close(device)
    os.close(port)


def test_a_taken_port_is_refused_and_a_host_beyond_this_machine_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match="cannot be served"):
            EndpointAddress.parse(f"tcp:{port}").open("NMEA", lambda _: None)
    notices: list[str] = []
    EndpointAddress.parse("udp:192.0.2.1:14550").open("MAVLink", notices.append).close()
    assert "beyond this machine" in notices[0]


# --- MCAP, as its reader reads it ---------------------------------------------------------------


def test_an_mcap_file_is_whole_when_it_is_closed_and_never_written_over(tmp_path: Path):
    output = McapOutput(tmp_path / "a.mcap")
    output.write(live_estimate())
    output.write(live_estimate(None))
    output.close()
    with (tmp_path / "a.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        (_, _, message, known), (*_, lost) = reader.iter_decoded_messages()
    assert (known.latitude, known.longitude, known.position_covariance[0]) == (PLACE.lat, PLACE.lon, 4.0)
    assert message.log_time == round(CAPTURED.timestamp()) * 10**9
    assert lost.status.status == -1 and math.isnan(lost.latitude)
    with pytest.raises(InputError, match="is there already"):
        McapOutput(tmp_path / "a.mcap")


# --- MAVLink, as pymavlink reads it -------------------------------------------------------------


def test_px4_gets_a_vision_position_with_its_sigma_its_delay_and_no_height_that_is_not_known():
    known, high = messages_of(live_estimate(), live_estimate(sea_m=350.0))
    assert known.get_type() == "GLOBAL_POSITION_SENSOR"
    assert (known.lat, known.lon) == (375000000, 1290000000)
    assert (known.source, known.flags) == (mavlink.GLOBAL_POSITION_SRC_VISION, 0)
    assert known.eph == pytest.approx(3.0) and math.isnan(known.epv)
    assert math.isnan(known.alt) and math.isnan(known.alt_ellipsoid) and high.alt == 350.0
    assert known.time_usec == round((CAPTURED.timestamp() + 0.25) * 1e6) and known.processing_time == 250_000


def test_px4_is_told_unhealthy_without_any_position_while_the_track_is_lost():
    (lost,) = messages_of(live_estimate(None))
    assert lost.flags == mavlink.GLOBAL_POSITION_UNHEALTHY and (lost.lat, lost.lon) == (2**31 - 1,) * 2
    assert math.isnan(lost.eph)


def test_ardupilot_gets_the_command_for_measured_frames_alone():
    (command,) = messages_of(live_estimate(), live_estimate(measured=False), live_estimate(None), autopilot="ardupilot")
    assert (command.get_type(), command.command) == ("COMMAND_INT", 43003)
    assert (command.frame, command.x, command.y) == (mavlink.MAV_FRAME_GLOBAL, 375000000, 1290000000)
    assert command.param1 == pytest.approx((CAPTURED.timestamp() + 0.25) % 250.0, abs=1e-4)
    assert (command.param2, command.param3) == pytest.approx((0.25, 3.0)) and math.isnan(command.z)


def test_local_positions_are_off_unless_asked_for_and_raise_the_reset_counter():
    there = geo.offset(PLACE, 30.0, 40.0)
    messages = messages_of(
        live_estimate(),
        live_estimate(there, reset_counter=260),
        live_estimate(None),
        extra=("odometry", "vision-position"),
    )
    odometry = [message for message in messages if message.get_type() == "ODOMETRY"]
    vision = [message for message in messages if message.get_type() == "VISION_POSITION_ESTIMATE"]
    assert len(odometry) == len(vision) == 2, "none without a position"
    for first, second in (odometry, vision):
        assert (first.x, first.y) == (0, 0) and (second.x, second.y) == pytest.approx((40.0, 30.0), rel=1e-3)
        assert (first.reset_counter, second.reset_counter) == (3, 4)
    assert (odometry[0].q[0], odometry[0].q[3]) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
    assert vision[0].yaw == pytest.approx(math.pi / 2)
    assert (vision[0].covariance[0], vision[0].covariance[6], vision[0].covariance[11]) == pytest.approx(
        (9.0, 4.0, 1e6)
    )


def test_gps_input_says_sigma_and_a_height_only_where_it_is_above_the_sea():
    flat, high, lost = (
        message
        for message in messages_of(
            live_estimate(), live_estimate(sea_m=350.0), live_estimate(None), extra=("gps-input",)
        )
        if message.get_type() == "GPS_INPUT"
    )
    assert [message.fix_type for message in (flat, high, lost)] == [2, 3, 1]
    assert flat.horiz_accuracy == pytest.approx(3.0) and flat.satellites_visible == 0
    assert (
        flat.ignore_flags & mavlink.GPS_INPUT_IGNORE_FLAG_ALT
        and not high.ignore_flags & mavlink.GPS_INPUT_IGNORE_FLAG_ALT
    )
    assert (lost.lat, lost.lon) == (0, 0) and high.alt == 350.0
    gps_time = datetime(1980, 1, 6, tzinfo=UTC) + timedelta(weeks=flat.time_week, milliseconds=flat.time_week_ms)
    assert gps_time == CAPTURED + timedelta(seconds=18)


def test_without_its_extra_mavlink_is_refused_by_the_extras_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(InputError, match="extra `mavlink`"):
        mavlink_dialect()
