"""The pages over a real database, asked through Flask's own client."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from databases import settings_of
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import SMALL, SOURCE_GONE, VERIFIED, Shape, make_gallery, record_rotation
from recorded_runs import record_fixes

from coarseloc.core.fixes import FrameFix, NoMatch, NotVerified
from coarseloc.store import fixes, flights, localizations, open_database, references, runs
from coarseloc.store.localizations import WHOLE_MAP
from search.export.records import CoarseLocalizationInfo, FixInfo, FlightLocalizations
from web import create_app

FLIGHT, BLIND_FLIGHT = SMALL.flights  # truth is known of the first one only
HTML = {"Accept": "text/html"}
PAGES = [
    "/",
    f"/flights/{FLIGHT}",
    f"/flights/{FLIGHT}/3",
    f"/flights/{BLIND_FLIGHT}/3",
    f"/flights/{FLIGHT}/export",
    "/search",
    "/references",
    "/compare",
    "/rotation",
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = create_app(make_gallery(tmp_path_factory.mktemp("gallery")))
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[FlaskClient]:
    app = create_app(settings_of(tmp_path))
    yield app.test_client()
    app.extensions["coarseloc"].close()


# --- pages and their twins ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", f"/flights/{FLIGHT}", f"/flights/{FLIGHT}/3", f"/flights/{BLIND_FLIGHT}/3", f"/flights/{FLIGHT}/export"],
)
def test_every_page_names_its_json_twin_and_the_twin_answers(client: FlaskClient, path: str) -> None:
    page = client.get(path, headers=HTML)
    assert page.status_code == 200
    twin = page.text.split('rel="alternate" type="application/json" href="')[1].split('"')[0]
    answer = client.get(twin)
    assert answer.status_code == 200 and answer.is_json


def test_an_empty_database_shows_the_commands_that_fill_it(empty: FlaskClient) -> None:
    page = empty.get("/", headers=HTML).text
    assert "coarseloc ingest orthophoto" in page and "coarseloc search FLIGHT_FOLDER" in page


def test_a_frame_has_a_row_of_ten_per_backbone_best_first(client: FlaskClient) -> None:
    rows = client.get(f"/flights/{FLIGHT}/3.json").json["rows"]
    assert [row["backbone"] for row in rows] == ["vits16", "vits16+", "vitb16", "vitl16", "vitl16sat", "vith16+"]
    for row in rows:
        scores = [hit["score"] for hit in row["hits"]]
        assert len(scores) == 10 and scores == sorted(scores, reverse=True)
        assert row["hits"][0]["drop"] == 0 and row["timing"]["total_ms"] > row["timing"]["search_ms"]


def test_distances_and_verdicts_appear_only_where_truth_is_known(client: FlaskClient) -> None:
    known = client.get(f"/flights/{FLIGHT}/3.json").json["rows"][0]
    blind = client.get(f"/flights/{BLIND_FLIGHT}/3.json").json["rows"][0]
    assert all(hit["verdict"] in ("on", "near", "far") and hit["distance_m"] >= 0 for hit in known["hits"])
    assert all(hit["verdict"] is None and hit["distance_m"] is None for hit in blind["hits"])
    assert blind["estimate"]["error_m"] is None and blind["estimate"]["margin"] is not None


def test_the_first_and_the_last_frame_have_one_neighbour(client: FlaskClient) -> None:
    first = client.get(f"/flights/{FLIGHT}/1.json").json
    last = client.get(f"/flights/{FLIGHT}/{SMALL.frames}.json").json
    assert (first["previous"], first["next"]) == (None, 2)
    assert (last["previous"], last["next"]) == (SMALL.frames - 1, None)


def test_the_chosen_model_comes_from_the_address_and_an_unknown_one_is_ignored(client: FlaskClient) -> None:
    assert client.get(f"/flights/{FLIGHT}.json?model=vitb16").json["model"] == "vitb16"
    assert client.get(f"/flights/{FLIGHT}.json?model=../../etc").json["model"] in ("vitl16", "vitl16sat", "vith16+")


@pytest.mark.parametrize("query", ["endpoint=x", "_external=1", "_scheme=javascript", "flight_id=x", "filename=x"])
def test_a_query_cannot_bend_the_addresses_of_a_page(client: FlaskClient, query: str) -> None:
    page = client.get(f"/flights/{FLIGHT}/3?{query}", headers=HTML)
    assert page.status_code == 200
    assert "javascript:" not in page.text and "http://" not in page.text


def test_korean_is_chosen_by_the_address_the_cookie_or_the_browser(client: FlaskClient) -> None:
    assert 'lang="ko"' in client.get("/", headers=HTML | {"Accept-Language": "ko-KR,ko"}).text
    assert "비행" in client.get("/?lang=ko", headers=HTML).text
    assert "비행" in client.get("/", headers=HTML).text, "the choice is remembered"


def test_searches_that_asked_something_else_are_kept_apart(tmp_path: Path) -> None:
    settings = make_gallery(tmp_path, Shape(columns=2, rows=2, frames=2, flights=(FLIGHT,)))
    database = open_database(settings.database)
    with database.write() as session:
        stored = flights.find_flight(session, FLIGHT)
        first = runs.latest_runs(session, FLIGHT)[0]
        asked = dict(first.parameters) | {"angle_deg": 90}
        sets = references.reference_sets(session)
        run, _localization, _done = runs.start_run(
            session, stored, sets, first.search_map, first.spec, asked, first.environment, 1.0, first.references
        )
        runs.finish_run(session, run)
    database.close()
    app = create_app(settings)
    client = app.test_client()
    page = client.get(f"/flights/{FLIGHT}.json").json
    assert [one["label"] for one in page["asked"]] == ["all headings", "heading 090° only"]
    assert len(page["models"]) == 6, "the widest search is shown first"
    narrow = client.get(f"/flights/{FLIGHT}.json?asked={page['asked'][1]['key']}").json
    assert [row["run"] for row in narrow["models"]] == [run]
    app.extensions["coarseloc"].close()


# --- pictures -----------------------------------------------------------------------------------


def test_pictures_are_jpegs_that_the_browser_may_keep_for_ever(client: FlaskClient) -> None:
    frame = client.get(f"/flights/{FLIGHT}/3.json").json
    for address in (frame["rows"][0]["hits"][0]["image"], frame["frame"]["image"], frame["frame"]["image_full"]):
        answer = client.get(address)
        assert answer.status_code == 200 and answer.data[:3] == b"\xff\xd8\xff", address
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path",
    [
        "/images/tiles/999999.jpg",
        f"/images/tiles/{2**63}.jpg",
        f"/flights/{FLIGHT}/{10**40}/info/{10**40}.json",
        "/images/tiles/..%2f..%2fetc%2fpasswd.jpg",
        "/images/frames/..%2f..%2f/1.jpg",
        f"/images/frames/{FLIGHT}/999.jpg",
        "/images/frames/%2e%2e/%2e%2e/etc/passwd",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        f"/flights/{FLIGHT}/999",
        f"/flights/{FLIGHT}/-1",
        "/flights/%2e%2e",
    ],
)
def test_what_no_id_names_is_not_found(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers=HTML, follow_redirects=True).status_code == 404


def test_a_frame_whose_file_is_gone_says_so(client: FlaskClient, app: Flask) -> None:
    folder = app.extensions["coarseloc"].settings.data_dir / "flights" / BLIND_FLIGHT
    (folder / f"{BLIND_FLIGHT}_00012.jpg").rename(folder / "away")
    answer = client.get(f"/images/frames/{BLIND_FLIGHT}/12.jpg")
    (folder / "away").rename(folder / f"{BLIND_FLIGHT}_00012.jpg")
    assert answer.status_code == 404 and f"{BLIND_FLIGHT}_00012.jpg" in answer.json["detail"]


# --- safety -------------------------------------------------------------------------------------


def test_every_answer_carries_the_policy_and_a_request_id(client: FlaskClient) -> None:
    for path in ("/", "/nowhere", "/healthz", "/static/base.css"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and len(answer.headers["X-Request-Id"]) == 12


def test_pages_hold_no_inline_script_and_no_inline_style(client: FlaskClient) -> None:
    for path in PAGES:
        page = client.get(path, headers=HTML).text
        assert " style=" not in page and "<style" not in page and " onclick" not in page
        own = page.count('<script type="module" src="/static/') + page.count('<script defer src="/static/vendor/')
        assert page.count("<script") == own


def test_a_foreign_host_is_refused(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Host": "evil.example", **HTML})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
    + [{"Origin": text} for text in ("http://[", "http://[::1", "http://[x]/", "//", "", "http://localhost:99999999")],
)
def test_a_write_from_another_site_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post("/token", data={"token": "x"}, headers=headers)
    assert answer.status_code == 403 and answer.json["request_id"]


def test_a_missing_page_is_a_page_for_people_and_a_problem_for_programs(client: FlaskClient) -> None:
    page, problem = client.get("/nowhere", headers=HTML), client.get("/nowhere.json")
    assert page.status_code == problem.status_code == 404
    assert page.headers["X-Request-Id"] in page.text
    assert problem.content_type == "application/problem+json" and problem.json["status"] == 404


# --- health -------------------------------------------------------------------------------------


def test_what_the_vector_store_lacks_makes_the_server_degraded_not_dead(client: FlaskClient) -> None:
    assert client.get("/healthz").json == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 200 and answer.json["status"] == "degraded"
    assert answer.json["checks"]["vectors"]["pending"] > 0


def test_an_empty_database_is_ready(empty: FlaskClient) -> None:
    assert empty.get("/readyz").json["status"] == "ready"


# --- export -------------------------------------------------------------------------------------


def test_the_record_of_a_frame_downloads_under_its_usual_name_and_fits_the_schema(client: FlaskClient) -> None:
    row = client.get(f"/flights/{FLIGHT}/3.json").json["rows"][1]
    answer = client.get(f"/flights/{FLIGHT}/3/info/{row['run']}.json")
    assert f"{FLIGHT}_00003_vits16plus.json" in answer.headers["Content-Disposition"]
    record = CoarseLocalizationInfo.model_validate(answer.json)
    assert record.encoder == "vits16+" and record.topk == len(record.results) == 10
    assert record.estimate.score == pytest.approx(row["estimate"]["score"])


def test_a_whole_flight_downloads_as_one_valid_document(client: FlaskClient) -> None:
    document = FlightLocalizations.model_validate_json(client.get(f"/flights/{FLIGHT}/export.json").data)
    assert len(document.localizations) == SMALL.frames * 6 and document.failures == []


def test_the_other_formats_hold_a_place_for_every_frame_and_backbone(client: FlaskClient) -> None:
    features = json.loads(client.get(f"/flights/{FLIGHT}/export.geojson").data)["features"]
    kml = ElementTree.fromstring(client.get(f"/flights/{FLIGHT}/export.kml").data)
    rows = list(csv.DictReader(client.get(f"/flights/{FLIGHT}/export.csv").text.splitlines()))
    assert len(rows) == SMALL.frames * 6
    kinds = Counter(feature["properties"]["kind"] for feature in features)
    assert kinds["truth"] + kinds["estimate"] == SMALL.frames * 7, "truth is the seventh"
    assert kinds["fix"] > 0 and len(features) == len(kml.findall(".//{*}Placemark/{*}Point"))
    picture = kml.findtext(".//{*}GroundOverlay/{*}Icon/{*}href", "")
    assert picture.startswith("http://localhost/images/frames/")
    assert client.get(picture).content_type == "image/jpeg"


def test_a_flight_downloads_with_x_and_y_of_a_grid_that_serves_it(client: FlaskClient) -> None:
    address = f"/flights/{FLIGHT}/export"
    features = json.loads(client.get(f"{address}.geojson?crs=EPSG:32652").data)["features"]
    row = next(csv.DictReader(client.get(f"{address}.csv?crs=EPSG:32652").text.splitlines()))
    assert all(feature["properties"]["crs"] == "EPSG:32652" for feature in features)
    truth = features[0]["properties"]
    assert (truth["x"], truth["y"]) == (float(row["truth_x"]), float(row["truth_y"]))
    for crs in ("EPSG:4326", "EPSG:32633", "anything"):
        assert client.get(f"{address}.csv?crs={crs}").status_code == 400


def test_an_unknown_format_run_or_schema_is_not_found(client: FlaskClient) -> None:
    for path in (f"/flights/{FLIGHT}/export.exe", f"/flights/{FLIGHT}/3/info/999.json", "/schemas/..%2fsecrets"):
        assert client.get(path).status_code == 404


# --- fixes --------------------------------------------------------------------------------------

MATCHED, UNMATCHED, UNVERIFIED = 3, 4, 5  # frames of the sample


def row_of(client: FlaskClient, frame: int, backbone: str = "vitl16sat", query: str = "") -> dict:
    rows = client.get(f"/flights/{FLIGHT}/{frame}.json{query}").json["rows"]
    return next(row for row in rows if row["backbone"] == backbone)


def test_a_frame_that_matches_shows_its_fix_its_ellipses_and_where_its_numbers_are_from(client: FlaskClient) -> None:
    row = row_of(client, MATCHED)
    fix = FixInfo.model_validate(row["fix"])
    assert fix.match and len(fix.corners) == 4 and fix.aircraft.ellipse_95.major_m > fix.ground.ellipse_95.major_m
    assert row["fix_errors"]["fix_aircraft_m"] == pytest.approx(4.0, abs=0.05)
    assert row["fix_map"]["reference_set"] == "gangnam-300m"
    html = client.get(f"/flights/{FLIGHT}/{MATCHED}?model=vitl16sat", headers=HTML).text
    for text in (
        "4.0 m from truth",
        "altitude label and field of view",
        "from its label",
        "cccccccc",
        "Next best place",
    ):
        assert text in html, text


def test_a_frame_without_a_match_shows_no_position_for_it_on_any_page(client: FlaskClient) -> None:
    row = row_of(client, UNMATCHED)
    fix = row["fix"]
    assert fix["match"] is False and fix["reason"] == "ambiguous"
    assert all(fix[key] is None for key in ("ground", "aircraft", "corners", "runner_up", "heading_deg"))
    assert row["fix_errors"] is None and row["fix_map"] is None
    html = client.get(f"/flights/{FLIGHT}/{UNMATCHED}?model=vitl16sat", headers=HTML).text
    assert "no match: ambiguous" in html and "best tile, not confirmed by the map" in html
    header = html.split('data-model="vitl16sat" aria-labelledby')[1].split("</header>")[0]
    assert "° N" not in header, "the tile's own position is not told beside it"
    flight = client.get(f"/flights/{FLIGHT}?model=vitl16sat", headers=HTML).text
    table_row = flight.split(f'<th scope="row">{UNMATCHED}</th>')[1].split("</tr>")[0]
    assert "not confirmed by the map" in table_row and table_row.count("° N") == 1, "of the truth alone"


def test_a_frame_that_could_not_be_looked_for_says_why(client: FlaskClient) -> None:
    assert row_of(client, UNVERIFIED)["fix"]["match"] is None
    html = client.get(f"/flights/{FLIGHT}/{UNVERIFIED}?model=vitl16sat", headers=HTML).text
    assert "not verified" in html and SOURCE_GONE in html
    assert "This search was not asked to look for frames on the map." in html, "of the backbones beside it"


def test_a_flight_sums_its_fixes_up_and_marks_every_frame(client: FlaskClient) -> None:
    page = client.get(f"/flights/{FLIGHT}.json?model=vitl16sat").json
    (figures,) = [row["fix"] for row in page["models"] if row["key"] == "vitl16sat"]
    assert (figures["matches"], figures["verified"], figures["no_match"]) == (8, 10, {"ambiguous": 2})
    assert figures["median_aircraft_error_m"] == pytest.approx(4.0, abs=0.05)
    assert [row["fix"] is None for row in page["models"]] == [True, True, True, True, False, False]
    assert page["colour"] == "probability" and sum(frame["fix"]["match"] is True for frame in page["frames"]) == 8
    html = client.get(f"/flights/{FLIGHT}?model=vitl16sat", headers=HTML).text
    assert "8 of 10 frames match the map" in html and "2 × no match: ambiguous" in html
    film = html.split('class="film"')[1].split("</ol>")[0]
    assert film.count(">no match<") == 2 and film.count(">not verified<") == 2 and film.count("4.0 m") == 8
    unverified = client.get(f"/flights/{FLIGHT}.json?model=vits16").json
    assert unverified["colour"] == "error" and all(frame["fix"] is None for frame in unverified["frames"])


def test_a_flight_without_truth_is_drawn_through_its_fixes_alone(client: FlaskClient, app: Flask) -> None:
    page = client.get(f"/flights/{BLIND_FLIGHT}.json?model=vitl16sat").json
    matched = {
        tuple(frame["fix"]["aircraft"][key] for key in ("lon", "lat"))
        for frame in page["frames"]
        if frame["fix"]["match"]
    }
    (card,) = [one for one in client.get("/flights.json").json["flights"] if one["id"] == BLIND_FLIGHT]
    unconfirmed = [frame for frame in page["frames"] if frame["fix"]["match"] is False]
    places = {tuple(frame["best"]["location"][key] for key in ("lon", "lat")) for frame in unconfirmed}
    assert card["track_is_estimated"] and not places & set(map(tuple, card["track"]))
    chosen = client.get(f"/flights/{BLIND_FLIGHT}.json").json["model"]
    assert (matched <= set(map(tuple, card["track"]))) == (chosen in VERIFIED)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/flights/{FLIGHT}",
        f"/flights/{FLIGHT}?model=vits16&",
        *(f"/flights/{FLIGHT}/{frame}" for frame in (MATCHED, UNMATCHED, UNVERIFIED)),
        f"/flights/{BLIND_FLIGHT}",
        f"/flights/{BLIND_FLIGHT}/{UNMATCHED}",
        f"/flights/{FLIGHT}/export",
        f"/flights/{FLIGHT}/export.json",
        f"/flights/{FLIGHT}/export.csv",
        f"/flights/{FLIGHT}/export.geojson",
        f"/flights/{FLIGHT}/export.kml",
        "/compare",
        f"/compare?flight={BLIND_FLIGHT}",
    ],
)
def test_every_page_answers_by_fixes_where_that_is_asked(client: FlaskClient, path: str) -> None:
    query = "method=fix"
    answer = client.get(f"{path}{'&' if '?' in path else '?'}{query}", headers=HTML)
    assert answer.status_code == 200


def test_by_fixes_a_frame_without_a_match_has_no_estimate(client: FlaskClient) -> None:
    by_frame = {frame: row_of(client, frame, query="?method=fix") for frame in (MATCHED, UNMATCHED, UNVERIFIED)}
    assert [row["estimate"] is None for row in by_frame.values()] == [False, True, True]
    matched = by_frame[MATCHED]
    assert matched["estimate"]["location"] == {key: matched["fix"]["aircraft"][key] for key in ("lon", "lat")}
    assert matched["estimate"]["verdict"] is None and matched["estimate"]["error_m"] == pytest.approx(4.0, abs=0.05)
    assert all(len(row["hits"]) == 10 for row in by_frame.values())
    assert row_of(client, MATCHED, "vits16", "?method=fix")["estimate"] is None, "it was not verified"
    models = {row["key"]: row for row in client.get(f"/flights/{FLIGHT}.json?method=fix").json["models"]}
    assert models["vitl16sat"]["median_error_m"] == pytest.approx(4.0, abs=0.05)
    assert models["vits16"]["median_error_m"] is None


def test_the_whole_map_stands_beside_the_backbones_in_a_comparison(tmp_path: Path) -> None:
    settings = make_gallery(tmp_path, Shape(columns=3, rows=3, frames=MATCHED + 2, flights=(FLIGHT,)))
    database = open_database(settings.database)
    with database.write() as session:
        stored = flights.find_flight(session, FLIGHT)
        (reference_set,) = references.reference_sets(session)
        verified = [run for run in runs.latest_runs(session, FLIGHT) if localizations.frame_fixes(session, run.id)]
        answers = localizations.frame_fixes(session, verified[0].id)
        facts = [{"uid": reference_set.uid, "name": reference_set.name}]
        question = {"camera": {}, "bounds": [126.0, 37.0, 128.0, 38.0]}
        for where, kept in (({}, list(answers)), ({"near": {"lon": 127.0, "lat": 37.5, "radius_m": 900.0}}, [MATCHED])):
            key = localizations.start_localization(
                session, stored.id, WHOLE_MAP, [], facts, question | {"where": where}
            )
            fixes.save_fixes(session, key, [(stored.frame_keys[index], answers[index]) for index in kept])
            localizations.finish_localization(session, key)
    database.close()
    app = create_app(settings)
    client = app.test_client()
    page = client.get("/compare.json").json
    matches = sum(fix.match is True for fix in answers.values())
    assert page["whole_map"]["fix"]["matches"] == matches > 0, "the widest question, as the searches' own"
    assert page["whole_map"]["frames"] == len(answers) and len(page["models"]) == 6
    html = client.get("/compare", headers=HTML).text
    assert html.count("no backbone") == 1 and "verify ms" in html
    figures = client.get(page["figures"], headers=HTML).text
    assert 'id="fixes"' in figures and "no backbone" in figures
    app.extensions["coarseloc"].close()


def test_the_figures_of_a_comparison_are_drawn_of_fixes_too(client: FlaskClient) -> None:
    figures = client.get("/compare.json?method=fix").json["figures"]
    assert "method=fix" in figures
    keys = re.findall(r'<section class="chart[^"]*" id="([^"]+)"', client.get(figures, headers=HTML).text)
    assert {"error", "hit-curve"} < set(keys)
    for key in keys:
        for suffix in ("svg", "csv"):
            assert client.get(f"/compare/figures/{key}.{suffix}?flight={FLIGHT}&method=fix").status_code in (200, 404)


def test_fixes_that_come_after_a_look_are_shown_at_the_next(tmp_path: Path) -> None:
    settings = make_gallery(tmp_path, Shape(columns=3, rows=3, frames=2, flights=(FLIGHT,)))
    app = create_app(settings)
    client = app.test_client()
    assert client.get(f"/flights/{FLIGHT}.json?model=vits16").json["colour"] == "error"
    database = open_database(settings.database)
    with database.read() as session:
        (run,) = [run for run in runs.latest_runs(session, FLIGHT) if run.spec.backbone == "vits16"]
    record_fixes(
        database, run.id, {1: FrameFix(NotVerified("late")), 2: FrameFix(NoMatch("no-ground", None, None, 0.0, "d"))}
    )
    database.close()
    page = client.get(f"/flights/{FLIGHT}.json?model=vits16").json
    assert page["colour"] == "probability" and [frame["fix"]["reason"] for frame in page["frames"]] == [
        "late",
        "no-ground",
    ]
    app.extensions["coarseloc"].close()


# --- compare and rotation -----------------------------------------------------------------------


def test_compare_begins_with_the_flight_whose_truth_is_known_and_marks_the_unbeaten(client: FlaskClient) -> None:
    page = client.get("/compare.json").json
    assert page["flight"]["id"] == FLIGHT and page["typical_frame"] in range(1, SMALL.frames + 1)
    unbeaten = {row["key"] for row in page["models"] if row["unbeaten"]}
    for row in page["models"]:
        beaten = any(
            other["median_total_ms"] < row["median_total_ms"] and other["median_error_m"] < row["median_error_m"]
            for other in page["models"]
        )
        assert not (beaten and row["key"] in unbeaten)
    assert "warm-up 3" in page["measured"][0] and "one frame at a time" in page["measured"][0]
    assert "threads not recorded" in page["measured"][0] and page["timed_alike"], "the sample's runs are old ones"


def test_every_figure_of_a_comparison_is_a_picture_and_a_table(client: FlaskClient) -> None:
    page = client.get(client.get("/compare.json").json["figures"], headers=HTML).text
    keys = re.findall(r'<section class="chart[^"]*" id="([^"]+)"', page)
    assert {"score-distribution", "mean-score", "search-time", "total-time", "time-and-score", "mean-times"} < set(keys)
    assert {"error", "hit-curve", "speed-and-accuracy"} < set(keys), "truth is known"
    query = f"?flight={FLIGHT}"
    drawn = client.get(f"/compare/figures/error.svg{query}")
    assert ElementTree.fromstring(drawn.data).tag.endswith("svg") and "script" not in drawn.text
    assert drawn.text != client.get(f"/compare/figures/error.svg{query}&scheme=dark").text
    assert client.get(f"/compare/figures/error.png{query}").data[:4] == b"\x89PNG"
    rows = list(csv.reader(client.get(f"/compare/figures/mean-times.csv{query}").text.splitlines()))
    assert len(rows) == 7 and rows[1][0] == "vits16"
    assert client.get(f"/compare/figures/nothing.svg{query}").status_code == 404


def test_the_points_of_a_chart_are_the_frames_whose_pages_they_lead_to(client: FlaskClient) -> None:
    charts = {}
    for key in ("error", "margin-and-error", "time-and-score", "hit-curve", "speed-and-accuracy", "rejection"):
        charts[key] = client.get(f"/compare/figures/{key}.json?flight={FLIGHT}").json
        for series in (series for panel in charts[key]["panels"] for series in panel["series"]):
            columns = [series[name] for name in ("x", "y", "low", "high", "frames") if series[name] is not None]
            assert len({len(column) for column in columns}) == 1, (key, series["label"])
            if series["url"] and series["x"]:
                first = series["frames"][0] if series["frames"] else ""
                assert client.get(series["url"].replace("{index}", str(first)), headers=HTML).status_code == 200
    (panel,) = charts["error"]["panels"]
    assert (
        charts["error"]["y"]["names"] == [series["label"] for series in panel["series"]] and len(panel["series"]) == 6
    )
    for series in panel["series"]:
        frames = client.get(f"/flights/{FLIGHT}.json?model={quote(series['label'])}").json["frames"]
        errors = {frame["index"]: frame["best"]["error_m"] for frame in frames if frame["best"]}
        for index, x in zip(series["frames"], series["x"], strict=True):
            assert x == pytest.approx(max(1.0, errors[index]), rel=1e-5)
    assert client.get(f"/compare/figures/mean-times.json?flight={FLIGHT}").status_code == 404


def test_a_rotation_study_is_shown_with_its_curves_and_findings(tmp_path: Path) -> None:
    settings = make_gallery(tmp_path, Shape(columns=3, rows=3, frames=2, flights=("251124155712",)))
    study = record_rotation(settings)
    app = create_app(settings)
    client = app.test_client()
    page = client.get("/rotation.json").json
    assert page["study"]["id"] == study and page["study"]["backbones"] == ["vits16"]
    assert page["curves"]["cosine"]["vits16"][0][:2] == [0.0, 1.0] and page["tile"].startswith("/images/tiles/")
    figures = client.get(page["figures"], headers=HTML).text
    assert "vits16: turned, the global token keeps" in figures
    assert "This older study did not measure positions" in figures
    assert ElementTree.fromstring(client.get(f"/rotation/{study}/figures/polar.svg").data).tag.endswith("svg")
    (panel,) = client.get(f"/rotation/{study}/figures/cosine.json").json["panels"]
    same = panel["series"][0]
    assert same["label"] == "vits16" and same["x"][-1] == 360 and same["y"][0] == same["y"][-1] == 1.0
    assert client.get("/rotation/999/figures").status_code == 404
    app.extensions["coarseloc"].close()


def test_a_map_drawn_while_pictures_were_gone_is_drawn_again(app: Flask, client: FlaskClient) -> None:
    thumbnails = app.extensions["coarseloc"].settings.thumbnails
    ground = client.get("/references.json").json["sets"][0]["map"]["ground"]
    whole = client.get(ground).data
    away = thumbnails.rename(thumbnails.with_name("away"))
    gaps = client.get(ground)
    assert gaps.status_code == 200 and gaps.data != whole
    shutil.rmtree(away / "grounds")
    for folder in away.iterdir():
        folder.rename(thumbnails / folder.name)
    assert client.get(ground).data == whole
