"""A stored track as GeoJSON, KML, GPX, NMEA, MCAP: nothing is joined across a gap, no place is said of a lost frame."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import gpxpy
import numpy as np
import pynmea2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rasterio.transform import from_origin
from terrain_rasters import write_dem

from coarseloc.core import geo
from coarseloc.core.clock import FlightClock
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import ellipse
from coarseloc.core.tracks import AlternativePlace, TrackEstimate
from coarseloc.core.types import Covariance, Flight, Frame, LonLat, Pose
from coarseloc.store.localizations import TRACK, StoredLocalization
from search.export import track_features
from search.export.gpx import track_gpx
from search.export.kml import track_kml
from search.export.mcap import track_mcap
from search.export.nmea import sentences, track_nmea
from search.export.tracks import FlightTrack, TrackFrame, with_terrain

ORIGIN, START = LonLat(127.03, 37.5), datetime(2025, 11, 24, 15, 57, 12, 250_000)
SEOUL = FlightClock("labels", utc_offset_s=9 * 3600)
COVARIANCE = Covariance(9.0, 2.0, 4.0)
KML = "{http://www.opengis.net/kml/2.2}"
GX = "{http://www.google.com/kml/ext/2.2}"


def estimate(index, state="tracking", location=None, reset_counter=1, measured=True, **facts):
    """By default 60 m further east each frame; a lost one may lie elsewhere with some probability."""
    values = {
        "index": index,
        "mode": "causal",
        "state": state,
        "ground": (location or geo.offset(ORIGIN, 60.0 * index, 0.0)) if state in ("tracking", "recovered") else None,
        "ground_covariance_m2": COVARIANCE,
        "heading_deg": 90.0,
        "heading_sd_deg": 1.0,
        "scale": 1.0,
        "speed_mps": 30.0,
        "probability": 0.98,
        "p_off_map": 0.01,
        "p_blind": 0.02,
        "odometry": "frames",
        "reset_counter": reset_counter,
        "measured": measured,
        "alternatives": (AlternativePlace(LonLat(126.0, 36.0), 10.0, 0.4),),
    }
    if values["ground"] is None:
        unknown = ("ground_covariance_m2", "heading_deg", "heading_sd_deg", "scale", "speed_mps")
        values |= dict.fromkeys(unknown) | {"measured": False}
    return TrackEstimate(**values | facts)


def track(*estimates, clock=SEOUL, timed=True, pose=None):
    frames = tuple(
        Frame(
            e.index, Path(f"{e.index:05d}.jpg"), f"{e.index:05d}.jpg", pose or Pose(ORIGIN),
            START + timedelta(seconds=2 * e.index) if timed else None,
        )
        for e in estimates
    )  # fmt: skip
    stored = StoredLocalization(
        7, "251124155712", TRACK, (), "area <1>", {"evidence": "fixes"}, datetime(2026, 1, 1), datetime(2026, 1, 1)
    )
    flight = Flight("251124155712", Path("251124155712"), frames, clock=clock)
    return FlightTrack(flight, stored, tuple(map(TrackFrame, frames, estimates)))


BROKEN = (
    estimate(1, "acquiring", reset_counter=0),
    estimate(2),
    estimate(3),
    estimate(4, measured=False),
    estimate(5, "lost", measured=False),
    estimate(6, "recovered", reset_counter=2),
    estimate(7, reset_counter=2),
    estimate(8, reset_counter=3),
    estimate(9, reset_counter=3),
)
RUNS = [[2, 3, 4], [6, 7], [8, 9]]
PLACED = [2, 3, 4, 6, 7, 8, 9]


def indices(segments):
    return [[tracked.frame.index for tracked in segment] for segment in segments]


# --- where a track breaks -----------------------------------------------------------------------


def test_a_run_ends_where_the_track_is_lost_and_where_the_position_jumps():
    assert indices(track(*BROKEN).segments()) == RUNS


def test_a_run_ends_where_the_aircraft_is_no_longer_known():
    seen = {"aircraft": ORIGIN, "aircraft_covariance_m2": COVARIANCE}
    assert indices(track(estimate(1, **seen), estimate(2, **seen), estimate(3)).segments()) == [[1, 2], [3]]


def test_a_run_ends_at_a_frame_that_the_track_does_not_answer_for():
    whole = track(*(estimate(i) for i in range(1, 6)))
    partial = replace(whole, frames=(*whole.frames[:2], *whole.frames[3:]))
    assert indices(partial.segments()) == [[1, 2], [4, 5]]


@given(st.lists(st.tuples(st.sampled_from(["acquiring", "tracking", "lost", "recovered"]), st.integers(0, 2))))
def test_runs_hold_every_position_once_in_order_and_never_a_jump(steps):
    flown = track(*(estimate(i, state, reset_counter=counter) for i, (state, counter) in enumerate(steps, start=1)))
    segments = flown.segments()
    placed = [tracked for tracked in flown.frames if tracked.position]
    assert [tracked for segment in segments for tracked in segment] == placed
    for segment in segments:
        assert len({tracked.estimate.reset_counter for tracked in segment}) == 1
        numbers = [tracked.frame.index for tracked in segment]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# --- GeoJSON ------------------------------------------------------------------------------------


def test_a_line_follows_each_run_and_one_frame_alone_has_none():
    flown = track(*BROKEN, estimate(10, reset_counter=4))
    features = list(track_features.lines(flown))
    assert [(f["properties"]["first_frame"], f["properties"]["last_frame"]) for f in features] == [
        (2, 4),
        (6, 7),
        (8, 9),
    ]
    assert [f["properties"]["segment"] for f in features] == [1, 2, 3]
    for feature in features:
        assert feature["geometry"]["type"] == "LineString"
        assert len(feature["geometry"]["coordinates"]) == feature["properties"]["frames"]
        assert feature["properties"]["mode"] == "causal" and feature["properties"]["reference_set"] == "area <1>"


def test_every_frame_says_its_state_and_a_lost_one_has_no_place_at_all():
    features = {f["properties"]["frame_index"]: f for f in track_features.points(track(*BROKEN))}
    assert list(features) == list(range(1, 10))
    lost = features[5]
    assert lost["geometry"] is None and lost["properties"]["state"] == "lost" and "126" not in str(lost["properties"])
    tracked = features[3]
    assert tracked["geometry"]["coordinates"] == pytest.approx(geo.offset(ORIGIN, 180.0, 0.0), abs=1e-6)
    assert tracked["properties"]["taken_at"] == "2025-11-24T15:57:18.250000"
    assert tracked["properties"]["ellipse_major_m"] == ellipse(COVARIANCE).major_m
    assert tracked["properties"]["error_m"] == pytest.approx(180.0, rel=1e-2)
    assert [f["properties"]["frame_index"] for f in track_features.ellipses(track(*BROKEN))] == PLACED


def test_a_line_is_cut_at_the_antimeridian_and_joined_nowhere_else():
    lons = (179.98, 179.99, -179.99, -179.98, -179.98, 179.99)
    crossing = track(*(estimate(i, location=LonLat(lon, 10.0 + i / 1000)) for i, lon in enumerate(lons)))
    (feature,) = track_features.lines(crossing)
    parts = feature["geometry"]["coordinates"]
    assert feature["geometry"]["type"] == "MultiLineString"
    assert [[lon for lon, _ in part] for part in parts] == [
        [179.98, 179.99, 180.0], [-180.0, -179.99, -179.98, -179.98, -180.0], [180.0, 179.99],
    ]  # fmt: skip
    assert parts[0][-1][1] == parts[1][0][1] == pytest.approx(10.0015)


# --- GPX ----------------------------------------------------------------------------------------


def test_gpx_opens_with_a_segment_a_run_and_times_in_utc():
    gpx = gpxpy.parse(track_gpx(track(*BROKEN)))
    (opened,) = gpx.tracks
    assert gpx.version == "1.1" and opened.source == "coarseloc: causal fixes on area <1>"
    assert [[int(point.name) for point in segment.points] for segment in opened.segments] == RUNS
    second = opened.segments[0].points[1]
    assert second.time == datetime(2025, 11, 24, 6, 57, 18, 250_000, tzinfo=UTC) and second.elevation is None
    assert (second.longitude, second.latitude) == pytest.approx(geo.offset(ORIGIN, 180.0, 0.0), abs=1e-6)
    assert opened.segments[0].points[2].comment.startswith("tracking, dead reckoning, ground")


GPX = "{http://www.topografix.com/GPX/1/1}"
CHILDREN = {  # in the order of gpx.xsd (http://www.topografix.com/GPX/1/1/gpx.xsd), which is not ours to bring along
    "gpx": ("metadata", "wpt", "rte", "trk", "extensions"),
    "metadata": ("name", "desc", "author", "copyright", "link", "time", "keywords", "bounds", "extensions"),
    "trk": ("name", "cmt", "desc", "src", "link", "number", "type", "extensions", "trkseg"),
    "trkseg": ("trkpt", "extensions"),
    "trkpt": ("ele", "time", "magvar", "geoidheight", "name", "cmt", "desc", "src", "link", "sym", "type", "fix", "sat",
              "hdop", "vdop", "pdop", "ageofdgpsdata", "dgpsid", "extensions"),
}  # fmt: skip
REPEATED = {"trk", "trkseg", "trkpt"}
DECIMAL, DATE_TIME = r"[+-]?\d+(\.\d+)?", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


@pytest.mark.parametrize("estimates", [BROKEN, (estimate(1, "lost"), estimate(2, "lost"))])
def test_gpx_holds_what_its_schema_demands_in_its_order(estimates):
    pose = Pose(ORIGIN, 412.5, altitude_datum="sea")
    flying = [replace(e, aircraft=e.ground, aircraft_covariance_m2=e.ground_covariance_m2) for e in estimates]
    root = ElementTree.fromstring(track_gpx(track(*flying, pose=pose)))
    assert root.tag == f"{GPX}gpx" and root.get("version") == "1.1" and root.get("creator")
    for element in root.iter():
        name, names = element.tag.removeprefix(GPX), [child.tag.removeprefix(GPX) for child in element]
        order = [CHILDREN[name].index(child) for child in names]
        assert order == sorted(order) and {n for n in names if names.count(n) > 1} <= REPEATED
        if name == "trkpt":
            assert sorted(element.keys()) == ["lat", "lon"]
            assert re.fullmatch(DECIMAL, element.get("lat")) and -90 <= float(element.get("lat")) <= 90
            assert re.fullmatch(DECIMAL, element.get("lon")) and -180 <= float(element.get("lon")) < 180
        assert name != "ele" or re.fullmatch(DECIMAL, element.text)
        assert name != "time" or re.fullmatch(DATE_TIME, element.text)
    assert len(list(root.iter(f"{GPX}ele"))) == sum(e.aircraft is not None for e in flying)


@pytest.mark.parametrize("write", [track_gpx, track_nmea, track_mcap])
def test_formats_of_utc_are_refused_with_the_reason_where_it_is_not_known(write):
    with pytest.raises(InputError, match=r"needs UTC, and the frames' times \(their labels\) are local"):
        write(track(*BROKEN, clock=FlightClock("labels")))
    with pytest.raises(InputError, match="nothing says when these were taken"):
        write(track(*BROKEN, timed=False))


@pytest.mark.parametrize(
    ("datum", "height_m"), [("sea", 412.5), ("ground", None), ("ellipsoid", None), ("unknown", None)]
)
def test_a_height_is_written_only_where_it_is_of_the_aircraft_above_the_sea(datum, height_m):
    pose = Pose(ORIGIN, 412.5, altitude_datum=datum)
    flying = estimate(1, aircraft=ORIGIN, aircraft_covariance_m2=COVARIANCE)
    (point,) = gpxpy.parse(track_gpx(track(flying, pose=pose))).tracks[0].segments[0].points
    assert point.elevation == height_m
    assert pynmea2.parse(track_nmea(track(flying, pose=pose)).split()[0]).altitude == height_m
    on_ground = track_nmea(track(estimate(1), pose=pose)).split()[0]
    assert pynmea2.parse(on_ground).altitude is None


# --- KML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datum", "aircraft_m", "ground_m"), [("ground", 512.5, 100.0), ("sea", 412.5, 100.0), ("takeoff", None, 100.0)]
)
def test_terrain_gives_heights_above_the_sea(datum, aircraft_m, ground_m, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", np.full((200, 200), 100.0), transform=from_origin(126.95, 37.6, 0.001, 0.001))
    pose = Pose(ORIGIN, altitude_label_m=412.5, altitude_datum=datum)
    flying = estimate(1, aircraft=ORIGIN, aircraft_covariance_m2=COVARIANCE)
    frames = with_terrain(track(flying, estimate(2), estimate(3, "lost"), pose=pose), dem).frames
    assert [tracked.height_msl_m for tracked in frames] == [aircraft_m, ground_m, None]
    away = write_dem(tmp_path / "away.tif", np.full((5, 5), 100.0), transform=from_origin(10.0, 50.0, 0.001, 0.001))
    with pytest.raises(InputError, match="no height where the track lies"):
        with_terrain(track(flying), away)


def test_kml_has_a_track_with_as_many_times_as_places_for_each_run():
    document = ElementTree.fromstring(track_kml(track(*BROKEN)))
    runs = document.findall(f".//{GX}MultiTrack/{GX}Track")
    assert [len(run.findall(f"{KML}when")) for run in runs] == [len(run) for run in RUNS]
    assert [len(run.findall(f"{GX}coord")) for run in runs] == [len(run) for run in RUNS]
    assert runs[0].findtext(f"{KML}when") == "2025-11-24T06:57:16.250Z"
    names = [mark.findtext(f"{KML}name") for mark in document.findall(f".//{KML}Folder[1]/{KML}Placemark")]
    assert names == [str(index) for index in PLACED]


def test_without_utc_kml_has_lines_and_no_times():
    text = track_kml(track(*BROKEN, clock=FlightClock("labels")))
    document = ElementTree.fromstring(text)
    assert "<when>" not in text and f"{GX}Track" not in text
    assert len(document.findall(f".//{KML}MultiGeometry/{KML}LineString")) == len(RUNS)


# --- NMEA ---------------------------------------------------------------------------------------


def parsed(flown):
    """{sentence type: [message a frame]}, their checksums tested."""
    messages: dict[str, list] = {}
    for line in track_nmea(flown).split("\r\n")[:-1]:
        message = pynmea2.parse(line, check=True)
        messages.setdefault(message.sentence_type, []).append(message)
    return messages


def test_quality_tells_measured_dead_reckoned_and_unknown_frames_apart_and_is_never_a_satellite_fix():
    messages = parsed(track(*BROKEN))
    assert [message.gps_qual for message in messages["GGA"]] == [0, 8, 8, 6, 0, 8, 8, 8, 8]
    assert [message.mode_indicator for message in messages["RMC"]] == list("NSSENSSSS")
    assert [message.status for message in messages["RMC"]] == list("VAAAVAAAA")
    assert {message.num_sats for message in messages["GGA"]} == {"00"}
    assert len(messages["GST"]) == 7


def test_a_frame_without_a_position_has_its_time_alone():
    gga, rmc = sentences(track(estimate(1, "lost")).frames[0], datetime(2025, 11, 24, 6, 57, 14, tzinfo=UTC))
    assert pynmea2.parse(gga).lat == "" and pynmea2.parse(rmc).lon == ""
    assert pynmea2.parse(rmc).datetime == datetime(2025, 11, 24, 6, 57, 14, tzinfo=UTC)


def test_deviations_are_of_one_sigma_and_the_speed_in_knots():
    messages = parsed(track(estimate(1)))
    (gst,), (rmc,) = messages["GST"], messages["RMC"]
    assert (gst.std_dev_latitude, gst.std_dev_longitude) == (2.0, 3.0) and gst.std_dev_altitude is None
    assert gst.std_dev_major == pytest.approx(math.sqrt(6.5 + math.hypot(2.5, 2.0)), abs=0.01)
    assert gst.orientation == pytest.approx(ellipse(COVARIANCE).azimuth_deg, abs=0.01)
    assert rmc.spd_over_grnd == pytest.approx(58.32, abs=0.01) and rmc.true_course is None
    assert rmc.timestamp.replace(tzinfo=None) == (START + timedelta(seconds=2, hours=-9)).time()


@given(st.builds(LonLat, st.floats(-180, 180), st.floats(-90, 90)))
def test_a_place_is_read_back_within_two_centimetres(location):
    gga = track_nmea(track(estimate(1, location=location))).split()[0]
    assert len(gga) <= 80
    message = pynmea2.parse(gga, check=True)
    assert (message.longitude, message.latitude) == pytest.approx(location, abs=1e-7)
    assert ":60" not in gga and float(message.lat[2:]) < 60 and float(message.lon[3:]) < 60


# --- MCAP ---------------------------------------------------------------------------------------


def test_mcap_is_read_by_its_own_reader_with_a_fix_a_frame_and_none_for_a_lost_one():
    reader = make_reader(io.BytesIO(track_mcap(track(*BROKEN))), decoder_factories=[DecoderFactory()])
    decoded = list(reader.iter_decoded_messages())
    assert {(schema.name, channel.topic) for schema, channel, _, _ in decoded} == {
        ("sensor_msgs/msg/NavSatFix", "/coarseloc/track")
    }
    fixes = [fix for _, _, _, fix in decoded]
    assert [fix.status.status for fix in fixes] == [-1, 0, 0, 0, -1, 0, 0, 0, 0]
    assert math.isnan(fixes[4].latitude) and fixes[4].position_covariance_type == 0
    second = fixes[2]
    assert (second.longitude, second.latitude) == geo.offset(ORIGIN, 180.0, 0.0) and math.isnan(second.altitude)
    assert list(second.position_covariance) == [9.0, 2.0, 0.0, 2.0, 4.0, 0.0, 0.0, 0.0, 1e6]
    time = datetime(2025, 11, 24, 6, 57, 18, 250_000, tzinfo=UTC)
    assert (second.header.stamp.sec, second.header.stamp.nanosec) == (int(time.timestamp()), 250_000_000)
    assert decoded[2][2].log_time == round(time.timestamp() * 1000) * 1_000_000


def test_without_the_extra_mcap_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mcap_ros2.writer", None)
    with pytest.raises(InputError, match="pip install"):
        track_mcap(track(*BROKEN))
