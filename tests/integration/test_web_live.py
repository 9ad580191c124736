"""The page Live: what `coarseloc live` records in the data folder, as a page, JSON and events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coarseloc.core import geo
from coarseloc.core.config import Settings
from coarseloc.core.types import LonLat
from coarseloc.live.recordings import new_recording
from search.export.records import LiveFrameInfo
from web import create_app
from web.pages import live

START, FIRST_PLACE = datetime(2026, 1, 1, 12, tzinfo=UTC), LonLat(129.0, 37.5)
HTML = {"Accept": "text/html"}
LOST = (3, 4)


def record(number: int) -> str:
    """A frame's line: each 40 m north of the one before, two of them lost, one dropped before each."""
    lost = number in LOST
    place = geo.offset(FIRST_PLACE, 0.0, 40.0 * number)
    ellipse = {"major_m": 3.2, "minor_m": 3.0, "azimuth_deg": 10.0}
    location = {"lon": place.lon, "lat": place.lat, "covariance_m2": [[2.0, 0.0], [0.0, 2.0]], "ellipse_95": ellipse}
    at = START + timedelta(seconds=number)
    facts = {
        "schema_version": "1.0", "flight_id": "251124155712", "frame_index": number,
        "relative_path": f"{number}.jpg", "taken_at": None, "error": None, "truth": None, "errors": None,
        "track_ms": 20.0, "sequence": 2 * number, "dropped": number, "captured_at": None, "arrived_at": at.isoformat(),
        "estimated_at": (at + timedelta(seconds=0.31)).isoformat(), "age_s": 0.31, "capture_age_s": None,
        "track": {
            "state": "lost" if lost else "recovered" if number == LOST[-1] + 1 else "tracking", "mode": "causal",
            "point": None if lost else "aircraft", "location": None if lost else location,
            "heading_deg": None if lost else 12.5, "heading_sd_deg": None if lost else 0.4,
            "speed_mps": None if lost else 20.0, "probability": 0.2 if lost else 0.987, "p_off_map": 0.0,
            "p_blind": 0.1, "measured": not lost, "odometry": "frames", "reset_counter": 1 + (number > LOST[-1]),
            "alternatives": [],
        },
    }  # fmt: skip
    return LiveFrameInfo.model_validate(facts).model_dump_json() + "\n"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def recording(app: Flask) -> Iterator[Path]:
    """Of six frames; the seventh is just being written."""
    path = new_recording(app.extensions["coarseloc"].settings.data_dir, "251124155712")
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(map(record, range(1, 7))) + record(7)[:50])
    yield path
    path.unlink(missing_ok=True)


def test_without_a_session_the_page_says_how_to_begin_one(client: FlaskClient):
    assert "coarseloc live --source FRAMES_FOLDER" in client.get("/live", headers=HTML).text
    assert client.get("/live.json").json["session"] is None


def test_the_last_frame_and_the_track_are_shown_in_both_languages_and_a_gap_is_one(client: FlaskClient, recording):
    answer = client.get("/live.json").json
    assert answer["latest"]["frame_index"] == 6 and answer["session"]["name"] == recording.stem
    assert [row["frame_index"] for row in answer["recent"]] == [6, 5, 4, 3, 2, 1]
    assert [frame["causal"]["continues"] for frame in answer["track"]["frames"]] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]
    page = client.get("/live?lang=en", headers=HTML).text
    for text in ("tracking", "98.7 %", "0.31 s", "12.50°", "20.0 m/s", "4 of 6 frames placed", "dropped as too late"):
        assert text in page, text
    path = page.split('class="line causal" d="')[1].split('"')[0]
    assert path.count("M") == 2, "no line crosses the lost frames"
    korean = client.get("/live?lang=ko", headers=HTML).text
    assert "실시간" in korean and "늦어서 버린 프레임" in korean


def test_a_recording_is_read_on_as_it_grows(client: FlaskClient, recording: Path):
    assert client.get("/live.json").json["latest"]["frame_index"] == 6
    with recording.open("a") as file:
        file.write(record(7)[50:] + "no record\n" + record(8))
    assert client.get("/live.json").json["latest"]["frame_index"] == 8


def test_of_a_long_recording_the_latest_frames_are_shown(client: FlaskClient, recording: Path, monkeypatch):
    monkeypatch.setattr(live, "FRAMES_SHOWN", 2)
    recording.write_text("".join(map(record, range(1, 9))))
    assert [frame["index"] for frame in client.get("/live.json").json["track"]["frames"]] == [7, 8]


def test_events_are_the_records_that_come_and_a_client_that_comes_back_misses_none(
    client: FlaskClient, app: Flask, recording: Path, monkeypatch
):
    monkeypatch.setattr(live, "_POLL_S", 0.01)
    stream = client.get("/live/events")
    assert stream.mimetype == "text/event-stream" and stream.headers["Cache-Control"] == "no-store"
    assert stream.headers["Content-Security-Policy"].startswith("default-src 'none'")
    parts = iter(stream.response)
    with recording.open("a") as file:  # after the head, before anything of the stream has been read
        file.write(record(7)[50:] + record(8))
    next(parts)
    events = [next(parts).decode() for _ in range(2)]
    numbers = [json.loads(event.split("data: ")[1])["frame_index"] for event in events]
    assert numbers == [7, 8] and all("event: frame\n" in event for event in events)
    stream.close()
    last_id = events[0].split("\n")[0].removeprefix("id: ")
    again = client.get("/live/events", headers={"Last-Event-ID": last_id})
    parts = iter(again.response)
    next(parts)
    assert json.loads(next(parts).decode().split("data: ")[1])["frame_index"] == 8
    later = new_recording(recording.parents[1], "next")
    later.write_text(record(1))
    assert next(parts).decode() == f'event: session\ndata: "{later.stem}"\n\n'
    assert "event: frame" in next(parts).decode()
    again.close()
    later.unlink()


def test_a_session_that_is_not_there_is_not_found(client: FlaskClient):
    assert client.get("/live.json?session=../coarseloc").status_code == 404
    assert client.get("/live/events?session=nowhere").status_code == 404
