"""XMP packets of drones: the gimbal's attitude, altitudes with their datum; packets that would hurt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat, Pose
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.image_facts import read_image_facts
from coarseloc.imagery.xmp import XmpFacts, read_xmp

PLACE = LonLat(127.02765, 37.49792)
DOWN = {"GimbalYawDegree": "+90.00", "GimbalPitchDegree": "-90.00", "GimbalRollDegree": "+0.00"}


def packet(facts: dict[str, str], *, prefix: str = "drone-dji", elements: bool = False) -> bytes:
    """An XMP packet as DJI writes it, or Autel (prefix `drone`); properties as attributes or as elements."""
    attributes = "" if elements else " ".join(f'{prefix}:{name}="{text}"' for name, text in facts.items())
    inside = "".join(f"<{prefix}:{name}>{text}</{prefix}:{name}>" for name, text in facts.items()) if elements else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:{prefix}="http://www.dji.com/drone-dji/1.0/" {attributes}>{inside}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode() + b"\x00"


def photograph(file: Path, facts: dict[str, str], *, gps_altitude_m: float | None = None) -> Path:
    exif = Image.Exif()
    if gps_altitude_m is not None:
        exif.get_ifd(0x8825).update(
            {1: "N", 2: (37.0, 29.0, 52.5), 3: "E", 4: (127.0, 1.0, 39.5), 5: b"\x00", 6: gps_altitude_m}
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    png, tiff = PngInfo(), {700: packet(facts)}
    png.add_itxt("XML:com.adobe.xmp", packet(facts).decode())
    Image.new("RGB", (8, 8)).save(file, exif=exif, xmp=packet(facts), pnginfo=png, tiffinfo=tiff)
    return file


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_gimbals_yaw_is_read_from_every_kind_of_image(tmp_path: Path, suffix: str) -> None:
    facts = read_image_facts(photograph(tmp_path / f"a.{suffix}", DOWN))
    assert facts.xmp.pose.yaw_deg == pytest.approx(90.0)
    assert (facts.xmp.pose.pitch_deg, facts.xmp.pose.roll_deg) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize(("prefix", "elements"), [("drone-dji", False), ("drone-dji", True), ("drone", False)])
def test_properties_are_read_however_they_are_written(prefix: str, elements: bool) -> None:
    facts = read_xmp(packet(DOWN | {"RelativeAltitude": "+110.50"}, prefix=prefix, elements=elements))
    assert facts.pose.yaw_deg == pytest.approx(90.0) and facts.pose.altitude_label_m == 110.5


@given(
    st.floats(-180, 180), st.floats(-100, -80), st.floats(-10, 10)
)  # fmt: skip
def test_a_gimbal_that_looks_almost_down_tilts_the_picture_by_what_it_lacks(yaw, pitch, roll) -> None:
    texts = {"Yaw": yaw, "Pitch": pitch, "Roll": 0.0}
    pose = read_xmp(packet({f"Gimbal{axis}Degree": f"{text:+.9f}" for axis, text in texts.items()})).pose
    assert pose.pitch_deg == pytest.approx(pitch + 90, abs=1e-6) and 0 <= pose.yaw_deg < 360
    assert abs((pose.yaw_deg - yaw + 180) % 360 - 180) < 1e-6
    # About a vertical line of sight, roll turns the picture.
    turned = read_xmp(packet(DOWN | {"GimbalRollDegree": f"{roll:+.9f}"})).pose
    assert abs(abs((turned.yaw_deg - 90 + 180) % 360 - 180) - abs(roll)) < 1e-6


def test_a_roll_of_180_turns_the_heading_about() -> None:
    assert read_xmp(packet(DOWN | {"GimbalRollDegree": "180"})).pose.yaw_deg == pytest.approx(270.0)


def test_a_gimbal_that_looks_ahead_gives_no_attitude_and_that_is_said(tmp_path: Path) -> None:
    photograph(tmp_path / "f" / "a.jpg", DOWN | {"GimbalPitchDegree": "-30.0"})
    flight = open_flight(tmp_path / "f")
    assert flight.frames[0].truth == Pose()
    assert any("1 frames looks more than 45°" in notice for notice in flight.notices)


@pytest.mark.parametrize(
    ("facts", "altitude_m", "datum"),
    [
        ({"AbsoluteAltitude": "+352.10", "RelativeAltitude": "+110.00"}, 110.0, "takeoff"),
        ({"AbsoluteAltitude": "+352.10"}, 352.1, "sea"),
        ({"AbsoluteAltitude": "+352.10", "AltitudeType": "GpsFusionAlt"}, 352.1, "sea"),
        ({"AbsoluteAltitude": "+377.30", "AltitudeType": "RtkAlt"}, 377.3, "ellipsoid"),
        ({"RelativeAltitude": "nan"}, None, "unknown"),
        ({}, None, "unknown"),
    ],
)
def test_an_altitude_has_the_datum_that_the_packet_says(
    facts: dict[str, str], altitude_m: float | None, datum: str
) -> None:
    pose = read_xmp(packet(facts)).pose
    assert (pose.altitude_label_m, pose.altitude_datum) == (altitude_m, datum)


def test_height_above_take_off_comes_before_exifs_above_the_sea(tmp_path: Path) -> None:
    photograph(tmp_path / "f" / "a.jpg", DOWN | {"RelativeAltitude": "+110.00"}, gps_altitude_m=352.1)
    photograph(tmp_path / "f" / "b.jpg", DOWN, gps_altitude_m=352.1)
    flight = open_flight(tmp_path / "f")
    poses = [frame.truth for frame in flight.frames]
    assert flight.truth_source == "exif" and [pose.yaw_deg for pose in poses] == pytest.approx([90.0, 90.0])
    assert [(pose.altitude_label_m, pose.altitude_datum) for pose in poses] == [(110.0, "takeoff"), (352.1, "sea")]


def test_only_an_altitude_that_may_be_above_ground_gives_a_width() -> None:
    camera = Camera(fov_deg=90.0)
    for datum in ("ground", "takeoff", "unknown"):
        height = Pose(altitude_label_m=100.0, altitude_datum=datum).above_ground_m
        assert camera.footprint("a.jpg", height).metres == pytest.approx(200.0)
    for datum in ("sea", "ellipsoid"):
        height = Pose(altitude_label_m=100.0, altitude_datum=datum).above_ground_m
        with pytest.raises(InputError, match="above ground"):
            camera.footprint("a.jpg", height)
        assert camera.footprint("a.jpg", height, 400.0).metres == 400.0


def test_labels_come_before_the_gimbal_and_a_contradiction_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    photograph(tmp_path / "f" / "a.jpg", DOWN | {"RelativeAltitude": "+110.00"})
    write_labels(tmp_path / "f" / "l.json", [label("a.jpg", PLACE, yaw=200.0)])
    flight = open_flight(tmp_path / "f")
    assert flight.frames[0].truth.yaw_deg == 200.0 and flight.frames[0].truth.pitch_deg != 0.0
    assert any("not those of their gimbal" in notice and "110° apart" in notice for notice in flight.notices)


def test_a_cameras_mounting_turns_the_aircrafts_yaw_and_not_the_gimbals(tmp_path: Path) -> None:
    photograph(tmp_path / "f" / "a.jpg", DOWN)
    (tmp_path / "f" / "flight.toml").write_text("[camera]\nmount_yaw_deg = 90\n")
    assert open_flight(tmp_path / "f").frames[0].truth.yaw_deg == pytest.approx(90.0)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">'
    + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%s;" % (b"" if n == 1 else b"%d" % (n - 1)) * 40) for n in range(1, 9))
    + b']><x xmlns:d="http://www.dji.com/drone-dji/1.0/" d:RelativeAltitude="10">&a8;</x>'
)


@pytest.mark.parametrize(
    "damaged",
    [
        BOMB,
        BOMB.decode().replace("<?xml version", '<?xml encoding="utf-16" version').encode("utf-16"),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        packet(DOWN)[:-80],
        b"",
        b"\x00" * 100,
        b"<a>" * 200_000,
        packet({"RelativeAltitude": "1" * 1_000_001}),
    ],
)
def test_a_packet_that_is_damaged_or_would_grow_says_nothing_and_soon(damaged: bytes) -> None:
    started = time.process_time()
    assert read_xmp(damaged) == XmpFacts()
    assert time.process_time() - started < 10.0  # grown it would be hours


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_in_a_packet_are_survived(noise: bytes, at: int) -> None:
    whole = packet(DOWN)
    facts = read_xmp(whole[:at] + noise + whole[at + len(noise) :])
    assert facts.pose.yaw_deg is None or 0 <= facts.pose.yaw_deg < 360
