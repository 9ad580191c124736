"""The description of the JSON API holds: of every address, and of every key of every answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import settings_of
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import Shape, add_embedded, make_gallery, record_rotation, record_sample_track
from jsonschema import Draft202012Validator
from PIL import Image

from coarseloc.core import config
from coarseloc.core.config import CustomBackbone, Settings
from coarseloc.store import Database
from web import create_app
from web.openapi import OPERATIONS

SHAPE = Shape(columns=4, rows=3, frames=3, dim=16)
FLIGHT, BLIND_FLIGHT = SHAPE.flights  # truth is known of the first one only
FOR_PEOPLE = {  # pages, what they load, and the pictures of their figures
    *("flights.flights", "flights.flights_plural", "flights.flight", "frame.frame", "search.search", "compare.compare"),
    *("rotation.rotation", "references.references", "export.export", "safety.token", "safety.unlock", "static"),
    *("gallery.gallery", "gallery.pairs"),
    *("compare.figures", "compare.figure", "rotation.figures", "rotation.figure", "live.live", "live.events"),
    *("upkeep.flight_upkeep", "upkeep.set_upkeep", "jobs.jobs", "jobs.events"),
    "flights.track",
}
ADDRESSES = [
    "/flights.json",
    f"/flights.json?page={10**40}",
    f"/flights/{FLIGHT}.json",
    f"/flights/{BLIND_FLIGHT}.json?lang=ko",
    f"/flights/{FLIGHT}/3.json",
    f"/flights/{FLIGHT}.json?model=vitl16sat",
    f"/flights/{FLIGHT}.json?method=fix&track=1",
    f"/flights/{FLIGHT}/2.json?method=fix&model=vith16%2B",
    f"/flights/{FLIGHT}/1.json?model=vits16&rank=2&view=blink&within=nan",
    f"/flights/{BLIND_FLIGHT}/3.json",
    f"/flights/{FLIGHT}/export-page.json",
    f"/flights/{FLIGHT}/edit.json",
    "/references/gangnam-300m/edit.json",
    f"/flights/{FLIGHT}/3/info/1.json",
    f"/flights/{FLIGHT}/export.json",
    f"/flights/{FLIGHT}/export.geojson",
    f"/flights/{BLIND_FLIGHT}/export.geojson",
    "/gallery.json",
    "/gallery.json?method=fix&state=match&sort=-error&error-to=50&view=table",
    "/jobs.json",
    "/gallery/pairs.json",
    f"/gallery/pairs.json?flight={BLIND_FLIGHT}&show=all&within=10",
    "/gallery/export.json?pick=1-1&pick=1-3",
    "/gallery/export.geojson?method=fix&flight=251124155712",
    "/live.json",
    "/search.json",
    "/search.json?reference-set=drawn-200m&angle=90,180&altitude=100:300&overlap=50&bbox=126,37,128,38",
    f"/search.json?flight={FLIGHT}&frame=2&model=tiny&reference-set=drawn-200m",
    f"/search.json?flight={FLIGHT}&frame=2&model=tiny&reference-set=drawn-200m&angle=90&by=qdrant",
    f"/search.json?flight={FLIGHT}&frame=2&model=vits16",
    "/compare.json",
    "/compare.json?method=fix",
    f"/compare.json?flight={BLIND_FLIGHT}",
    "/rotation.json",
    "/references.json",
    "/references/gangnam-300m/ground.json",
    "/schemas/coarse-localization-info.v1.schema.json",
    "/healthz",
    "/readyz",
    "/api/openapi.json",
]
EMPTY = [
    "/flights.json",
    "/search.json",
    "/compare.json",
    "/rotation.json",
    "/references.json",
    "/readyz",
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: CustomBackbone) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("gallery")
    settings = make_gallery(folder, SHAPE)
    record_rotation(settings)
    record_sample_track(settings, FLIGHT)
    record_sample_track(settings, BLIND_FLIGHT, online=True)
    add_embedded(folder, tiny_backbone)
    app = create_app(_with_toml(folder))
    app.extensions["coarseloc"].vectors.catch_up()
    yield app
    app.extensions["coarseloc"].close()


def _with_toml(folder: Path) -> Settings:
    return config.load(folder).model_copy(update={"database_url": settings_of(folder).database_url})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    return app.test_client().get("/api/openapi.json").json


def test_no_answer_says_where_on_this_server_files_lie(app: Flask, client: FlaskClient) -> None:
    folder = str(app.extensions["coarseloc"].settings.data_dir.parent)
    for address in ADDRESSES:
        assert folder not in client.get(address).get_data(as_text=True), address


def closed(schema: Any) -> Any:
    """The schema with no room for keys that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    if "properties" in schema and "type" in schema:
        inner.setdefault("additionalProperties", False)
    return inner


def hold_against(document: dict[str, Any], app: Flask, path: str, answer: Any, method: str = "GET") -> None:
    """The answer's status, type, headers and every key of its body are described, and nothing described is missing."""
    endpoint, _ids = app.url_map.bind("localhost").match(path.split("?")[0], method)
    (operation,) = (
        one for methods in document["paths"].values() for one in methods.values() if one["operationId"] == endpoint
    )
    response = operation["responses"][str(answer.status_code)]
    assert set(response["headers"]) <= set(answer.headers.keys())
    content = response["content"][answer.mimetype]["schema"]
    whole = closed({"components": document["components"]}) | content
    errors = [error.message for error in Draft202012Validator(whole).iter_errors(json.loads(answer.data))]
    assert errors == []


def test_every_address_is_described_or_for_people_and_none_is_described_that_is_not_there(app: Flask) -> None:
    there = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert set(OPERATIONS) | FOR_PEOPLE == there
    assert set(OPERATIONS) & FOR_PEOPLE == set()


def test_the_description_is_one_that_programs_can_read(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for name, schema in document["components"]["schemas"].items():
        assert name.isalnum(), "two models share a name"
        Draft202012Validator.check_schema(schema)
    written = json.dumps(document)
    for ref in {part.split('"')[0] for part in written.split('"$ref": "#/components/schemas/')[1:]}:
        assert ref in document["components"]["schemas"]
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


@pytest.mark.parametrize("path", ADDRESSES)
def test_an_answer_holds_what_is_described_and_nothing_else(
    client: FlaskClient, app: Flask, document: dict[str, Any], path: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    hold_against(document, app, path, answer)


def test_every_json_answer_is_tried_here(app: Flask) -> None:
    tried = {app.url_map.bind("localhost").match(path.split("?")[0])[0] for path in ADDRESSES}
    assert {name for name in OPERATIONS if name.endswith("_json")} <= tried


def test_a_sent_image_and_its_look_up_are_as_described(
    client: FlaskClient, app: Flask, document: dict[str, Any]
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(file, "PNG")
    file.seek(0)
    sent = client.post("/search", data={"image": (file, "a.png"), "angle": "90"}, headers={"Accept": "*/*"})
    assert sent.status_code == 201
    hold_against(document, app, "/search", sent, "POST")
    path = f"/search.json?image={sent.json['image']}&model=tiny&reference-set=drawn-200m&angle=90"
    found = client.get(path)
    hold_against(document, app, path, found)
    assert found.json["answer"]["by"] == "qdrant" and found.json["answer"]["hits"]


def test_an_image_that_is_posted_is_localized_in_one_answer_and_not_kept(
    client: FlaskClient, app: Flask, document: dict[str, Any]
) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    picture = file.getvalue()
    path = "/localize?model=tiny&reference-set=drawn-200m&angle=90"
    kept = list(app.extensions["coarseloc"].uploads.glob("*"))
    answer = client.post(path, data=picture, content_type="image/png")
    assert answer.status_code == 200
    hold_against(document, app, path, answer, "POST")
    as_form = client.post(path, data={"image": (io.BytesIO(picture), "a.png")})
    assert as_form.json["hits"] == answer.json["hits"] != [] and as_form.json["estimate"] == answer.json["estimate"]
    assert {hit["angle_deg"] for hit in answer.json["hits"]} == {90} and answer.json["backend"] == "qdrant-edge"
    assert answer.json["estimate"]["location"] == answer.json["hits"][0]["location"]
    timing = answer.json["timing_ms"]
    assert timing["total_ms"] == pytest.approx(timing["embed_ms"] + timing["search_ms"])
    assert list(app.extensions["coarseloc"].uploads.glob("*")) == kept


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("?model=none", b"x", 404),
        ("?model=vits16", b"x", 409),
        ("?reference-set=none", b"x", 404),
        ("?nead=1", b"x", 400),
        ("?model=tiny", b"", 400),
        ("?model=tiny", b"no picture", 415),
    ],
)
def test_what_cannot_be_localized_is_refused_as_described(
    client: FlaskClient, app: Flask, document: dict[str, Any], query: str, body: bytes, status: int
) -> None:
    answer = client.post(f"/localize{query}", data=body, content_type="image/jpeg")
    assert answer.status_code == status
    hold_against(document, app, "/localize", answer, "POST")


def matching(client: FlaskClient, query: str) -> int:
    """How many references a filter would leave."""
    return client.get(f"/search.json?{query}").json["facets"]["matching"][0]["count"]


def test_filters_are_spelled_in_an_address_as_on_the_command_line(client: FlaskClient) -> None:
    sets = {one["value"]: one["count"] for one in client.get("/search.json").json["facets"]["set"]}
    assert len(sets) > 1
    assert matching(client, "&".join(f"reference-set={name}" for name in sets)) == sum(sets.values())
    assert matching(client, "reference-set=drawn-200m") == sets["drawn-200m"]
    assert matching(client, "angle=0&angle=90") == matching(client, "angle=90,0") == 2 * matching(client, "angle=0")
    half = matching(client, "overlap=50")
    assert half and matching(client, "overlap=0.5") == matching(client, "overlap=50%25") == half
    hit = client.get(f"/search.json?flight={FLIGHT}&frame=2&model=tiny&reference-set=drawn-200m").json["answer"][
        "hits"
    ][0]
    near = "{lon},{lat},1".format(**hit["location"])
    tiles = matching(client, f"reference-set=drawn-200m&near={near}")
    assert tiles == matching(client, f"tile={hit['tile_id']}") == 4  # its headings
    found = client.get(f"/search.json?flight={FLIGHT}&frame=2&model=tiny&reference-set=drawn-200m&near={near}").json
    assert {one["tile_id"] for one in found["answer"]["hits"]} == {hit["tile_id"]}
    assert found["where"]["near"] == {**hit["location"], "radius_m": 1.0}


def test_an_unknown_key_is_refused_with_what_is_allowed(client: FlaskClient) -> None:
    answer = client.get("/search.json?nead=127,37,10")
    assert answer.status_code == 400
    assert "no filter 'nead': expected one of reference-set, tile, angle" in answer.json["detail"]
    assert "near, image, flight, frame, model, by" in answer.json["detail"]
    assert client.post("/search", data={"nead": "127,37,10"}).status_code == 400


@pytest.mark.parametrize("path", EMPTY)
def test_the_answers_of_an_empty_database_are_as_described(tmp_path: Path, document: dict[str, Any], path: str) -> None:
    app = create_app(settings_of(tmp_path))
    hold_against(document, app, path, app.test_client().get(path))
    app.extensions["coarseloc"].close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/flights/none.json", 404),
        ("GET", f"/flights/{FLIGHT}/999.json", 404),
        ("GET", "/search.json?bbox=1,2,3", 400),
        ("GET", "/search.json?nead=127,37,10", 400),
        ("GET", "/search.json?image=none", 404),
        ("POST", "/search", 400),
        ("GET", "/images/tiles/999999.jpg", 404),
        ("GET", "/images/tiles/1.jpg?size=huge", 400),
    ],
)
def test_problems_are_as_described(
    client: FlaskClient, app: Flask, document: dict[str, Any], method: str, path: str, status: int
) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == status and answer.mimetype == "application/problem+json"
    hold_against(document, app, path, answer, method)


def test_a_database_that_is_gone_is_a_described_answer_too(
    tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings_of(tmp_path))
    monkeypatch.setattr(Database, "revision", lambda _database: "0000")
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    hold_against(document, app, "/readyz", answer)
    app.extensions["coarseloc"].close()


def test_flights_and_sets_are_renamed_and_deleted_with_what_goes_along_said_first(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    settings = make_gallery(tmp_path, SHAPE)
    app = create_app(settings)
    client, said = app.test_client(), {}
    for path in (f"/flights/{FLIGHT}", "/references/gangnam-300m"):
        before = client.get(f"{path}/edit.json")
        hold_against(document, app, f"{path}/edit.json", before)
        said[path] = before.json
        unsure = client.post(before.json["delete_url"])
        assert unsure.status_code == 400 and client.get(f"{path}/edit.json").status_code == 200
        renamed = client.post(before.json["rename_url"], data={"name": "새 이름"})
        hold_against(document, app, before.json["rename_url"], renamed, "POST")
        assert client.get(f"{path}/edit.json").status_code == 404
        there = client.get(f"{path.rpartition('/')[0]}/새 이름/edit.json").json
        deleted = client.post(there["delete_url"], data={"sure": "yes"})
        hold_against(document, app, there["delete_url"], deleted, "POST")
        assert client.post(there["delete_url"], data={"sure": "yes"}).status_code == 404
    assert said[f"/flights/{FLIGHT}"]["runs"] == 6 and said["/references/gangnam-300m"]["embeddings"] > 0
    page = client.post("/flights/none/delete", data={"sure": "yes"}, headers={"Accept": "text/html"})
    assert page.status_code == 404 and b"There is no flight none" in page.data
    app.extensions["coarseloc"].close()
