"""The pages over a real database, asked through Flask's own client."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from databases import settings_of
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import SMALL, Shape, make_gallery, record_rotation

from coarseloc.store import flights, open_database, references, runs
from search.export.records import CoarseLocalizationInfo, FlightLocalizations
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
        assert page.count("<script") == page.count('<script type="module" src="/static/')


def test_a_foreign_host_is_refused(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Host": "evil.example", **HTML})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
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
    assert len(features) == len(kml.findall(".//{*}Placemark")) == SMALL.frames * 7, "truth is the seventh"


def test_an_unknown_format_run_or_schema_is_not_found(client: FlaskClient) -> None:
    for path in (f"/flights/{FLIGHT}/export.exe", f"/flights/{FLIGHT}/3/info/999.json", "/schemas/..%2fsecrets"):
        assert client.get(path).status_code == 404


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
    keys = re.findall(r'<section class="chart" id="([^"]+)"', page)
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
