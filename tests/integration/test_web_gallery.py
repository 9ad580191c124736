"""The gallery: frames of all flights, filtered, sorted, exported; held against what a flight's own pages say."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import settings_of
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import SMALL, VERIFIED, Shape, make_gallery, record_sample_track

from coarseloc.store import open_database
from coarseloc.store.localizations import newest_tracks
from coarseloc.store.runs import runs
from search.answer_columns import find_answer
from search.answered_frames import answer_sources, answered_frames
from search.answers import frame_answers
from search.tracking.flight_track import TrackRequest
from web import create_app

FLIGHT, BLIND_FLIGHT = SMALL.flights  # truth is known of the first one only
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = make_gallery(tmp_path_factory.mktemp("gallery"))
    record_sample_track(settings, FLIGHT, runs=[1, 2])
    app = create_app(settings)
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def rows_of(client: FlaskClient, query: str) -> list[dict[str, Any]]:
    """Every row, page after page."""
    path, rows = f"/gallery.json?{query}", []
    while path:
        answer = client.get(path).json
        rows += answer["rows"]
        path = answer["next"] and answer["next"].replace("/gallery?", "/gallery.json?")
    assert len(rows) == answer["matching"] == len({row["key"] for row in rows})
    return rows


@pytest.mark.parametrize("method", ["best-place", "fix", "track"])
def test_errors_headings_and_agreement_are_those_of_a_flights_own_answers(app: Flask, method: str) -> None:
    database = app.extensions["coarseloc"].database
    with database.read() as session:
        table = answered_frames(session, answer_sources(session))
        stored_runs = [table.runs[number] for number in np.unique(table.run[table.select({"method": [method]}, {})])]
        answers = frame_answers(session, stored_runs, method=method, with_hits=False)
    checked = 0
    for run in stored_runs:
        rows = table.select({"method": [method], "model": [run.spec.backbone], "flight": [run.flight_id]}, {})
        by_frame = {int(table.frame[row]): int(row) for row in rows}
        for answer in answers[run.id]:
            row, estimate = by_frame[answer.result.frame.index], answer.result.estimate
            if estimate is None:
                assert table.number(row, "error") is None and table.agreeing[row].tolist() == [0, 0]
                continue
            errors, agreement = answer.errors, answer.agreement
            assert table.number(row, "error") == (pytest.approx(errors.error_m) if errors else None)
            assert agreement and table.agreeing[row].tolist() == [agreement.backbones, agreement.of]
            if method == "best-place" and errors:
                assert table.number(row, "heading-off") == pytest.approx(errors.heading_error_deg)
                assert table.text(row, "state") == errors.verdict
            assert table.number(row, "margin") == pytest.approx(estimate.margin)
            checked += 1
    assert checked > 6


def test_pages_go_on_where_the_one_before_ended_and_rows_come_in_order(client: FlaskClient) -> None:
    rows = rows_of(client, "sort=-error&method=best-place")
    errors = [row["error_m"] for row in rows]
    known = [error for error in errors if error is not None]
    assert known == sorted(known, reverse=True) and errors[len(known) :] == [None] * (len(errors) - len(known))
    assert len(rows) == 2 * 6 * SMALL.frames


def test_a_page_goes_on_by_value_where_its_last_row_is_gone(client: FlaskClient) -> None:
    rows = rows_of(client, f"sort=error&method=best-place&flight={FLIGHT}")
    after = client.get(
        f"/gallery.json?sort=error&method=best-place&flight={FLIGHT}&after=999999-1~{rows[9]['error_m']!r}"
    ).json
    beyond = next(number for number, row in enumerate(rows) if row["error_m"] > rows[9]["error_m"])
    assert after["rows"][0]["key"] == rows[beyond]["key"] and after["first"] == beyond + 1


def test_filters_narrow_by_text_and_by_number_and_leave_out_what_has_no_number(client: FlaskClient) -> None:
    asked = f"flight={FLIGHT}&model=vitb16&model=vitl16&method=best-place&error-to=100&agreement-from=.5"
    rows = rows_of(client, asked)
    assert rows and {row["model"] for row in rows} <= {"vitb16", "vitl16"}
    assert all(row["error_m"] <= 100 and row["agreement"]["backbones"] * 2 >= row["agreement"]["of"] for row in rows)
    assert rows_of(client, f"flight={BLIND_FLIGHT}&error-from=0") == []
    matches = rows_of(client, "state=match")
    assert matches and {row["method"] for row in matches} == {"fix"}


def test_a_row_leads_to_its_frame_shown_as_the_row_says(client: FlaskClient) -> None:
    (row, *_) = rows_of(client, f"flight={FLIGHT}&method=fix&state=match&sort=error")
    page, _, query = row["url"].partition("?")
    frame = client.get(f"{page}.json?{query}").json
    assert frame["method"] == "fix" and frame["frame"]["index"] == row["frame"]
    (shown,) = [ranked for ranked in frame["rows"] if ranked["key"] == row["model"]]
    assert shown["fix"]["match"] and shown["estimate"]["error_m"] == pytest.approx(row["error_m"])
    assert client.get(row["tile"]).status_code == client.get(row["image"]).status_code == 200


@pytest.mark.parametrize("query", ["sort=x", "error-from=near", "probability-to=nan", "after=x", "after=1-99e"])
def test_an_address_that_asks_for_what_cannot_be_says_so(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/gallery.json?{query}")
    assert answer.status_code == 400 and answer.json["detail"]


def test_the_page_shows_pairs_or_a_table_with_its_sorting_said(client: FlaskClient) -> None:
    grid = client.get(f"/gallery?flight={FLIGHT}&method=fix", headers=HTML).text
    table = client.get("/gallery?view=table&sort=-error", headers=HTML).text
    assert 'name="pick"' in grid and 'class="pairs"' in grid
    assert 'aria-sort="descending"' in table and '<th scope="row"><a href=' in table
    assert "갤러리" in client.get("/gallery?lang=ko", headers=HTML).text


def test_picked_rows_are_exported_and_no_others(client: FlaskClient) -> None:
    rows = rows_of(client, f"flight={FLIGHT}&method=best-place&model=vits16&model=vitb16")
    picked = [rows[0], rows[5], rows[8]]
    text = client.get("/gallery/export.csv?" + "&".join(f"pick={row['key']}" for row in picked)).text
    records = list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"))))
    assert {(int(record["frame_index"]), record["encoder"]) for record in records} == {
        (row["frame"], row["model"]) for row in picked
    }


def test_rows_of_several_flights_and_methods_are_exported_as_an_archive(client: FlaskClient) -> None:
    answer = client.get(f"/gallery/export.geojson?method=fix&method=best-place&model={VERIFIED[0]}")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert sorted(archive.namelist()) == sorted(
            f"{flight}_{method}.geojson" for flight in SMALL.flights for method in ("best-place", "fix")
        )
    assert client.get("/gallery/export.csv?error-from=1e9").status_code == 404


def test_a_report_holds_the_picked_frames_with_their_pictures(client: FlaskClient) -> None:
    (first, second, *_) = rows_of(client, f"flight={FLIGHT}&method=best-place&model=vits16")
    answer = client.get(f"/gallery/report.html?pick={first['key']}&pick={second['key']}&lang=ko")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.text.count("data:image/jpeg;base64,") == 2 * (1 + 6) and "고른 프레임" in answer.text


def test_two_answers_are_held_against_each_other_frame_by_frame(client: FlaskClient) -> None:
    a, b = (rows_of(client, f"flight={FLIGHT}&method=best-place&model={model}") for model in ("vits16", "vith16%2B"))
    keys = [rows[0]["key"].split("-")[0] for rows in (a, b)]
    answer = client.get(f"/gallery/pairs.json?flight={FLIGHT}&a={keys[0]}&b={keys[1]}&within=150").json
    outcomes = [(one["error_m"] <= 150, other["error_m"] <= 150) for one, other in zip(a, b, strict=True)]
    figures, frames = answer["figures"], len(outcomes)
    assert [figures[name] for name in ("both", "only_a", "only_b", "neither")] == [
        outcomes.count(outcome) for outcome in ((True, True), (True, False), (False, True), (False, False))
    ]
    assert figures["gain"]["value"] == pytest.approx((figures["only_b"] - figures["only_a"]) / frames)
    changes = {one["frame"]: other["error_m"] - one["error_m"] for one, other in zip(a, b, strict=True)}
    assert figures["change_m"]["value"] == pytest.approx(float(np.median(list(changes.values()))))
    changed = {one["frame"] for one, (was, is_right) in zip(a, outcomes, strict=True) if was != is_right}
    assert {row["a"]["frame"] for row in answer["rows"]} == changed
    assert [abs(row["change_m"]) for row in answer["rows"]] == sorted(
        (abs(changes[frame]) for frame in changed), reverse=True
    )
    both_ways = client.get(f"/gallery/pairs.json?flight={FLIGHT}&a={keys[0]}&b={keys[0]}").json
    assert both_ways["rows"] == [] and both_ways["figures"]["change_m"]["value"] == 0


def test_without_truth_frames_changed_where_the_positions_are_apart(client: FlaskClient) -> None:
    answer = client.get(f"/gallery/pairs.json?flight={BLIND_FLIGHT}&within=200").json
    assert answer["figures"] is None and answer["a"] != answer["b"]
    assert answer["rows"] and all(row["apart_m"] > 200 and row["change_m"] is None for row in answer["rows"])
    assert "A와 B 비교" in client.get("/gallery/pairs?lang=ko", headers=HTML).text
    assert client.get(f"/gallery/pairs.json?flight={BLIND_FLIGHT}&a=1").status_code == 404


def test_of_several_tracks_the_one_without_options_is_shown_everywhere_as_it_is_exported(tmp_path: Path) -> None:
    settings = make_gallery(tmp_path, Shape(columns=2, rows=2, frames=6, flights=(FLIGHT,)))
    record_sample_track(settings, FLIGHT, runs=[1])
    record_sample_track(settings, FLIGHT, runs=[1], request=TrackRequest(speed_mps=(10.0, 20.0)))
    app = create_app(settings)
    with app.extensions["coarseloc"].database.read() as session:
        tracks = [track for track in newest_tracks(session, FLIGHT) if track.method == "track"]
    plain, other = sorted(tracks, key=lambda track: not track.is_plain_track)
    assert plain.id < other.id and other.track_name.endswith("--speed 10:20")
    client = app.test_client()
    assert {row["key"].split("-")[0] for row in rows_of(client, "method=track")} == {str(plain.id)}
    page, chosen = f"/flights/{FLIGHT}.json", {"track": other.id}
    assert client.get(page).json["track"]["chosen"]["key"] == plain.id
    assert client.get(page, query_string=chosen).json["track"]["chosen"]["key"] == other.id
    with app.extensions["coarseloc"].database.read() as session:
        (run, *_) = runs(session, FLIGHT)
        assert find_answer(session, FLIGHT, run, "track") == find_answer(session, FLIGHT, None, "track") == plain.id
    (record, *_) = json.loads(client.get("/gallery/export.json?method=track").text)["localizations"]
    assert record["estimate"]["track"]["options"] == list(plain.track_options)
    app.extensions["coarseloc"].close()


def test_a_deleted_flight_leaves_the_gallery(tmp_path) -> None:
    app = create_app(make_gallery(tmp_path))
    client = app.test_client()
    before = client.get("/gallery.json").json["total"]
    app.extensions["coarseloc"].workspace.delete_flight(BLIND_FLIGHT)
    after = client.get("/gallery.json").json
    app.extensions["coarseloc"].close()
    assert before == 2 * after["total"] and after["choices"]["flight"] == [FLIGHT]


def test_an_empty_database_says_what_to_do(tmp_path) -> None:
    open_database(settings_of(tmp_path).database).close()
    app = create_app(settings_of(tmp_path))
    assert "coarseloc search" in app.test_client().get("/gallery", headers=HTML).text
    app.extensions["coarseloc"].close()
