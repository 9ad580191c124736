"""`coarseloc export` of stored tracks: without any search, a file a track, and refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import gpxpy
import pytest

import coarseloc as cl
from coarseloc.core import geo
from coarseloc.core.clock import FlightClock
from coarseloc.core.tracks import TrackEstimate, TrackState
from coarseloc.core.types import Covariance, Flight, Frame, LonLat
from coarseloc.store import flights, localizations, tracks
from coarseloc.store.localizations import TRACK, TRACK_SMOOTHED

FLIGHT, ORIGIN = "251124155712", LonLat(127.03, 37.5)
STATES: tuple[TrackState, ...] = ("acquiring", "tracking", "tracking", "lost", "recovered")


def estimates(mode: str) -> list[TrackEstimate]:
    """The smoothed track lies 5 m north of the causal one."""
    rows = []
    for index, state in enumerate(STATES, start=1):
        claimed = state in ("tracking", "recovered")
        ground = geo.offset(ORIGIN, 60.0 * index, 5.0 if mode == "smoothed" else 0.0) if claimed else None
        rows.append(
            TrackEstimate(
                index=index, mode=mode, state=state, ground=ground,
                ground_covariance_m2=Covariance(4.0, 0.0, 4.0) if claimed else None,
                heading_deg=90.0 if claimed else None, heading_sd_deg=None, scale=None, speed_mps=None,
                probability=0.9, p_off_map=0.0, p_blind=0.0, odometry="frames",
                reset_counter=(index > 1) + (index > 4), measured=claimed,
            )
        )  # fmt: skip
    return rows


@pytest.fixture
def store_track(state: Path) -> Callable[..., None]:
    """Store the flight of five frames, and tracks of it by methods on a map."""

    def store(methods: Mapping[str, str], name: str = "area", utc_offset_s: int | None = 0, **options: object) -> None:
        frames = tuple(
            Frame(i, state / f"{i}.jpg", f"{i}.jpg", time=datetime(2025, 11, 24, 15) + timedelta(seconds=i))
            for i in range(1, len(STATES) + 1)
        )
        flight = Flight(FLIGHT, state, frames, clock=FlightClock("csv", utc_offset_s))
        with cl.open(state) as workspace, workspace.db.write() as session:
            stored = flights.save_flight(session, flight)
            for method, mode in methods.items():
                key = localizations.start_localization(
                    session, stored.id, method, [], [{"name": name}], {"evidence": "fixes", "map": name} | options
                )
                rows = [(stored.frame_keys[row.index], row, None) for row in estimates(mode)]
                tracks.save_track_estimates(session, key, rows)
                localizations.finish_localization(session, key)

    return store


BOTH = {TRACK: "causal", TRACK_SMOOTHED: "smoothed"}


def test_a_flight_that_was_tracked_and_never_searched_is_exported_by_its_smoothed_track(
    coarseloc, store_track, tmp_path
):
    store_track(BOTH)
    out = tmp_path / "out"
    summary = coarseloc("export", FLIGHT, "--out", out, "--json").json
    assert (summary["runs"], summary["tracks"], summary["files"]) == (0, 1, 4)
    assert sorted(path.name for path in out.iterdir()) == [
        f"{FLIGHT}_track{ending}" for ending in (".geojson", ".kml", "_ellipses.geojson", "_points.geojson")
    ]
    (line,) = json.loads((out / f"{FLIGHT}_track.geojson").read_text())["features"]
    assert line["properties"]["mode"] == "smoothed" and len(line["geometry"]["coordinates"]) == 2
    north = geo.offset(ORIGIN, 0.0, 5.0).lat
    assert line["geometry"]["coordinates"][0][1] == pytest.approx(north, abs=1e-6)


def test_the_method_says_that_the_causal_track_is_meant(coarseloc, store_track, tmp_path):
    store_track(BOTH)
    out = tmp_path / "out"
    result = coarseloc("export", FLIGHT, "--out", out, "--format", "gpx", "--format", "nmea", "--method", TRACK)
    assert result.code == 0 and f"1 track of flight {FLIGHT} in 2 files" in " ".join(result.out.split())
    (track,) = gpxpy.parse((out / f"{FLIGHT}_track.gpx").read_text()).tracks
    assert [len(segment.points) for segment in track.segments] == [2, 1]
    assert track.segments[0].points[0].latitude == pytest.approx(ORIGIN.lat, abs=1e-6)
    assert (out / f"{FLIGHT}_track.nmea").read_bytes().count(b"\r\n") == 2 * len(STATES) + 3


def test_tracks_on_two_maps_are_two_files_with_their_names(coarseloc, store_track, tmp_path):
    store_track(BOTH)
    store_track({TRACK: "causal"}, name="winter")
    assert coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--format", "gpx").code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{FLIGHT}_track_area.gpx", f"{FLIGHT}_track_winter.gpx"]


def test_a_track_with_options_stands_beside_the_plain_one_and_a_newer_one_replaces_its_own(
    coarseloc, store_track, tmp_path
):
    store_track(BOTH)
    store_track(BOTH, speed_mps=[10.0, 40.5], headings="a1")
    store_track(BOTH, speed_mps=[10.0, 40.5], headings="b2")  # labels that were corrected
    store_track(BOTH, odometry="file", odometry_digest="3f2a91c4")
    assert coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--format", "track-geojson").code == 0
    endings = "plain", "yaw-labels-speed-10-40.5", "odometry-file-3f2a91"
    names = [f"{FLIGHT}_track_area_fixes_{ending}.geojson" for ending in endings]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= set(names)
    lines = [json.loads((tmp_path / "out" / name).read_text())["features"][0]["properties"] for name in names]
    assert [line["options"] for line in lines] == [
        "", "--yaw labels --speed 10:40.5", "--odometry file 3f2a91",
    ]  # fmt: skip
    rows = coarseloc("evaluate", FLIGHT, "--json").json
    assert [row["track"]["options"] for row in rows[::2]] == [
        [], ["--yaw labels", "--speed 10:40.5"], ["--odometry file 3f2a91"],
    ]  # fmt: skip


def test_without_utc_nothing_is_written_and_kml_says_what_it_lacks(coarseloc, store_track, tmp_path):
    store_track(BOTH, utc_offset_s=None)
    refused = coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--format", "track-kml", "--format", "gpx")
    assert refused.code == 2 and "GPX needs UTC" in refused.err and "--utc-offset" in refused.err
    assert not (tmp_path / "out").exists()
    stated = coarseloc("export", FLIGHT, "--out", tmp_path / "said", "--format", "gpx", "--utc-offset", "+09:00")
    assert stated.code == 0 and "stored with times" not in stated.err
    opened = gpxpy.parse((tmp_path / "said" / f"{FLIGHT}_track.gpx").read_text())
    assert opened.tracks[0].segments[0].points[0].time.replace(tzinfo=None) == datetime(2025, 11, 24, 6, 0, 2)
    lines = coarseloc("export", FLIGHT, "--out", tmp_path / "out")
    assert lines.code == 0 and "lines without times" in " ".join(lines.err.split())


def test_positions_of_points_are_in_the_grid_too(coarseloc, store_track, tmp_path):
    store_track(BOTH)
    assert coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--crs", "EPSG:32652").code == 0
    features = json.loads((tmp_path / "out" / f"{FLIGHT}_track_points.geojson").read_text())["features"]
    assert [f["properties"].get("crs") for f in features] == [None, "EPSG:32652", "EPSG:32652", None, "EPSG:32652"]


def test_a_flight_without_a_track_is_refused_with_what_to_do(coarseloc, store_track, tmp_path):
    store_track({})
    result = coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--format", "nmea")
    assert result.code == 2 and "run `coarseloc track` to its end first" in " ".join(result.err.split())
    causal_only = coarseloc("export", FLIGHT, "--out", tmp_path / "out")
    assert causal_only.code == 2 and "no finished search" in " ".join(causal_only.err.split())


def test_another_offset_than_the_stored_one_is_taken_and_said(coarseloc, store_track, tmp_path):
    store_track(BOTH)
    result = coarseloc("export", FLIGHT, "--out", tmp_path / "out", "--format", "nmea", "--utc-offset", "-03:30")
    assert "stored with times +00:00 of UTC, and -03:30 is stated: that is taken" in " ".join(result.err.split())
    assert (tmp_path / "out" / f"{FLIGHT}_track.nmea").read_text().startswith("$GNGGA,183001.00,")
    of_runs = coarseloc("export", FLIGHT, "--out", tmp_path / "csv", "--format", "csv", "--utc-offset", "Z")
    assert of_runs.code == 2 and "none is exported" in " ".join(of_runs.err.split())
