"""A flight's track on its page: sketch, lanes, gaps and their reasons; and the JSON that holds the same."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import ORIGIN, Shape, make_gallery, record_sample_track

from coarseloc.core import geo
from coarseloc.core.clock import FlightClock
from coarseloc.core.types import Flight, Frame, Pose
from coarseloc.store import flights, open_database
from search.export.files import TRACK_FORMATS, export
from search.export.records import TrackErrorsInfo
from web import create_app
from web.pages.track_drawing import track_lanes, track_sketch
from web.pages.tracks import FrameOnTrack, TrackView

SHAPE = Shape(columns=3, rows=3, frames=12, dim=8)
FLIGHT, BLIND_FLIGHT = SHAPE.flights
UNSEARCHED = "251126080000"  # tracked on a map, never searched
UNTRACKED = "251126090000"
TIMED = "251126100000"  # its frames have times in UTC
LOCAL = "251126110000"  # they have local times, and are more than a page's table holds
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("gallery")
    settings = make_gallery(folder, SHAPE)
    database = open_database(settings.database)
    for name in (UNSEARCHED, UNTRACKED):
        frames = tuple(
            Frame(n, Path(f"{n}.jpg"), f"{n}.jpg", Pose(geo.offset(ORIGIN, 60.0 * n, 0.0))) for n in range(1, 13)
        )
        with database.write() as session:
            flights.save_flight(session, Flight(name, folder / name, frames, clock=FlightClock("interval", None, 2.0)))
    for name, utc_offset_s, last in ((TIMED, 9 * 3600, 12), (LOCAL, None, 70)):
        frames = tuple(
            Frame(
                n,
                Path(f"{n}.jpg"),
                f"{n}.jpg",
                Pose(geo.offset(ORIGIN, 60.0 * n, 0.0)),
                time=datetime(2025, 11, 26, 10) + timedelta(seconds=n),
            )
            for n in range(1, last + 1)
        )
        flight = Flight(name, folder / name, frames, clock=FlightClock("name", utc_offset_s))
        with database.write() as session:
            flights.save_flight(session, flight)
    database.close()
    record_sample_track(settings, TIMED)
    record_sample_track(settings, LOCAL)
    record_sample_track(settings, FLIGHT)
    record_sample_track(settings, BLIND_FLIGHT, online=True)
    record_sample_track(settings, UNSEARCHED)
    app = create_app(settings)
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def view(client: FlaskClient, flight_id: str) -> TrackView:
    return TrackView.model_validate(client.get(f"/flights/{flight_id}.json").json["track"])


def test_each_gap_says_in_both_languages_why_frames_are_not_placed(client: FlaskClient) -> None:
    english = client.get(f"/flights/{FLIGHT}.json?lang=en").json["track"]["gaps"]
    assert [(gap["start_index"], gap["end_index"], gap["found_index"], gap["cause"]) for gap in english] == [
        (1, 1, 2, "ambiguous"),
        (3, 4, 5, "no-motion"),
        (9, 10, 11, "off-map"),
    ]
    assert english[0]["text"] == "Not placed from frame 1 on: it may be at 2 places. Placed at frame 2."
    assert english[1]["text"] == (
        "Lost at frame 3: it registers with nothing before it (cloud, or no overlap). Found again at frame 5."
    )
    page = client.get(f"/flights/{FLIGHT}?lang=ko", headers=HTML).text
    assert (
        "프레임 3에서 놓침: 앞 프레임과 맞는 것이 없습니다(구름 또는 겹침 없음). 프레임 5에서 다시 찾았습니다." in page
    )


def test_no_line_crosses_a_gap_and_alternatives_are_rings(client: FlaskClient) -> None:
    sketch = track_sketch(view(client, FLIGHT))
    assert sketch is not None
    placed = {2}, {5, 6, 7, 8}, {11, 12}
    assert [part.count("L") for part in sketch.causal.split("M")[1:]] == [len(run) - 1 for run in placed]
    assert [part.count("L") for part in sketch.smoothed.split("M")[1:]] == [1, 3, 1]
    assert sketch.truth.count("M") == 1 and len(sketch.rings) == 2 and len(sketch.ellipses) == 8
    assert [mark.number for mark in sketch.gaps] == [2, 3], "before the first one the track was nowhere"
    page = client.get(f"/flights/{FLIGHT}", headers=HTML).text
    assert f'class="line causal" d="{sketch.causal}"' in page


def test_a_jump_breaks_the_line(client: FlaskClient) -> None:
    track = view(client, FLIGHT)
    frames = [
        frame.model_copy(update={"causal": frame.causal.model_copy(update={"continues": False})})
        if frame.index == 7
        else frame
        for frame in track.frames
    ]
    sketch = track_sketch(track.model_copy(update={"frames": frames}))
    assert sketch is not None and sketch.causal.count("M") == 4


def test_the_lanes_share_one_axis_of_frames_or_of_time(client: FlaskClient) -> None:
    lanes = track_lanes(view(client, FLIGHT))
    assert [lane.name for lane in lanes.lanes] == ["state", "probability", "p_off_map", "p_blind", "jump", "error"]
    assert [tick.text for tick in lanes.ticks][:2] == ["2", "4"] and not lanes.by_time
    states = [band.state for band in lanes.lanes[0].causal_bands]
    assert states == ["acquiring", "tracking", "lost", "recovered", "tracking", "lost", "recovered", "tracking"]
    assert sum(band.width for band in lanes.lanes[0].causal_bands) == pytest.approx(lanes.right - lanes.left)
    second = lanes.gaps[1]
    lost = next(band for band in lanes.lanes[0].causal_bands if band.state == "lost")
    assert (second.x, second.width) == pytest.approx((lost.x, lost.width))
    assert all(tick.text.endswith(" m") for lane in lanes.lanes[4:] for tick in lane.ticks)
    assert lanes.lanes[5].causal.count("M") == 3, "the error is broken where there is no position"


def test_a_long_track_is_thinned_where_it_is_drawn_and_loses_no_gap_nor_peak(client: FlaskClient) -> None:
    track = view(client, FLIGHT)
    settled, lost = track.frames[5], track.frames[8]
    rng = np.random.default_rng(0)
    frames = []
    for number in range(1800):
        frame = lost if number in (700, 1400, 1401) else settled
        blind = 1.0 if number == 900 else float(rng.uniform(0.0, 0.2))
        info = frame.causal.info.model_copy(update={"p_blind": blind})
        error_m = 900.0 if number == 500 else float(rng.uniform(1.0, 2.0))
        errors = None if frame is lost else TrackErrorsInfo(track_m=error_m, heading_error_deg=None)
        causal = frame.causal.model_copy(update={"info": info, "errors": errors, "continues": frame is settled})
        frames.append(
            FrameOnTrack(
                index=number, elapsed_s=float(number), truth=None, causal=causal, smoothed=None, top1_jump_m=None
            )
        )
    long = track.model_copy(update={"frames": frames, "gaps": [], "smoothed": None})
    sketch, (*_, blind_lane, error_lane) = track_sketch(long), track_lanes(long).lanes
    assert sketch is not None and sketch.causal.count("M") == 3 and error_lane.causal.count("M") == 3
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", blind_lane.causal)[1:]]
    assert len(points) < 1100 and min(y for _, y in points) == pytest.approx(blind_lane.top, abs=0.05)
    assert points[-1][0] == pytest.approx(1186.0 - 0.3, abs=0.1), "each run ends where its values do"
    assert f"{error_lane.top + error_lane.height * (1 - math.log10(900) / 3):.1f}" in error_lane.causal


def test_a_place_between_others_of_a_straight_line_is_not_drawn(client: FlaskClient) -> None:
    track = view(client, UNSEARCHED)
    sketch = track_sketch(track)
    assert sketch is not None and sketch.truth.count("L") == 1, "twelve true places on one line"


def test_the_table_of_a_long_track_begins_with_some_rows_and_a_link_leads_to_all(client: FlaskClient) -> None:
    def rows(page: str) -> int:
        return page.split('id="track-table"')[1].split("</table>")[0].count("<tr>") - 1

    page = client.get(f"/flights/{LOCAL}?lang=ko", headers=HTML).text
    (link,) = re.findall(r'id="track-rest" href="([^"]*)"', page)
    assert rows(page) == 60 and "70개 프레임 모두 보기" in page
    every = client.get(link, headers=HTML).text
    assert rows(every) == 70 and "track-rest" not in every


def test_states_are_told_by_words_and_patterns_beside_their_colours(client: FlaskClient) -> None:
    page = client.get(f"/flights/{FLIGHT}", headers=HTML).text
    lanes = page.split('class="track-lanes"')[1].split("</svg>")[0]
    assert "url(#track-lost)" in lanes and "url(#track-acquiring)" in lanes
    assert {"lost", "tracking"} <= set(re.findall(r"<title>(\w+)</title>", lanes))


def test_a_flight_tracked_on_a_map_shows_its_track_without_any_search(client: FlaskClient) -> None:
    track = view(client, UNSEARCHED)
    assert track.chosen.map == "area.tif", "no folder of the server is told"
    assert [frame.elapsed_s for frame in track.frames][:3] == [0.0, 2.0, 4.0]
    lanes = track_lanes(track)
    assert lanes.by_time and lanes.ticks[1].text == "0:05"
    assert "jump" not in [lane.name for lane in lanes.lanes] and lanes.lanes[-1].name == "error"
    page = client.get(f"/flights/{UNSEARCHED}", headers=HTML).text
    assert "time since the first frame" in page and "Not searched yet" not in page


def test_without_truth_there_is_no_error_and_online_there_is_no_smoothed_track(client: FlaskClient) -> None:
    track = view(client, BLIND_FLIGHT)
    assert track.smoothed is None and track.causal.median_error_m is None
    assert [lane.name for lane in track_lanes(track).lanes][-1] == "jump"
    assert "from truth" not in client.get(f"/flights/{BLIND_FLIGHT}", headers=HTML).text.split('id="track"')[1]


def test_a_flight_that_was_not_tracked_has_no_such_part(client: FlaskClient) -> None:
    assert client.get(f"/flights/{UNTRACKED}.json").json["track"] is None
    assert 'id="track"' not in client.get(f"/flights/{UNTRACKED}", headers=HTML).text


def test_figures_are_of_the_frames_with_a_position(client: FlaskClient) -> None:
    track = view(client, FLIGHT)
    assert (track.causal.placed, track.smoothed and track.smoothed.placed) == (7, 8)
    assert track.causal.median_error_m == pytest.approx(13**0.5, rel=0.01)
    assert track.smoothed and track.smoothed.median_error_m == pytest.approx(5**0.5, rel=0.01)


def test_the_export_page_offers_a_flights_tracks_or_says_why_not(client: FlaskClient) -> None:
    rows = {row["format"]: row for row in client.get(f"/flights/{UNSEARCHED}/export-page.json").json["tracks"]}
    assert list(rows) == list(TRACK_FORMATS)
    refused = {name: row["refusal"] for name, row in rows.items() if row["file"] is None}
    assert refused == {"gpx": "no-time", "nmea": "no-time", "mcap": "no-time"}
    page = client.get(f"/flights/{UNSEARCHED}/export?lang=ko", headers=HTML).text
    assert rows["track-kml"]["file"] in page and "모든 프레임의 촬영 시각을 알 수 없습니다" in page
    assert client.get(f"/flights/{UNSEARCHED}/tracks.gpx").status_code == 400
    local = {row["format"]: row for row in client.get(f"/flights/{LOCAL}/export-page.json").json["tracks"]}
    assert local["gpx"]["refusal"] == "no-utc" and "--utc-offset" in local["gpx"]["text"]
    none = client.get(f"/flights/{UNTRACKED}/export-page.json").json["tracks"]
    assert {row["refusal"] for row in none} == {"no-track"}
    assert [client.get(f"/flights/{UNTRACKED}/tracks.{name}").status_code for name in ("gpx", "exe")] == [404, 404]


def test_downloaded_tracks_are_the_files_of_the_command_line(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    state = app.extensions["coarseloc"]
    formats = [name for name in TRACK_FORMATS if client.get(f"/flights/{TIMED}/tracks.{name}").status_code == 200]
    assert {"track-geojson", "track-kml", "gpx", "nmea"} <= set(formats)
    export(state.database, state.settings.thumbnails, TIMED, tmp_path, formats=formats)
    downloads: dict[str, bytes] = {}
    for name in formats:
        answer = client.get(f"/flights/{TIMED}/tracks.{name}")
        if answer.content_type == "application/zip":
            with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
                downloads |= {entry: archive.read(entry) for entry in archive.namelist()}
        else:
            downloads[answer.headers["Content-Disposition"].split("filename=")[1].strip('"')] = answer.data
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert downloads == written and len(written) == len(formats) + 2
