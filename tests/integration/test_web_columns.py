"""Long flights as columns: the same answers, errors and figures as frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import VERIFIED, make_gallery, record_sample_track
from PIL import Image
from sqlalchemy import text

from coarseloc.store import columns, seals
from coarseloc.store.localizations import BEST_PLACE, FIX
from search.answer_columns import agreement_columns, answer_columns, find_answer
from web import create_app
from web.selection import answers_by_run, column_figures, selected_runs, stored_flight, summarize_runs
from web.state import current_state

FLIGHT, UNKNOWN = "251124155712", "251125101500"  # with truth, and without
TILE = "/tiles/gangnam-300m/17/111796/50769"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = make_gallery(tmp_path_factory.mktemp("columns"))
    record_sample_track(settings, FLIGHT)
    app = create_app(settings)
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("flight", [FLIGHT, UNKNOWN])
@pytest.mark.parametrize("method", [BEST_PLACE, FIX])
def test_figures_of_columns_are_those_of_the_answers(app: Flask, flight: str, method: str):
    with app.test_request_context(f"/?method={method}"):
        database = current_state().database
        selection = selected_runs(database, flight)
        _frames, figures = column_figures(database, flight, selection)
        _answers_by_key, expected = summarize_runs(database, stored_flight(database, flight), selection)
    assert [numbers(row.model_dump()) for row in figures] == [
        pytest.approx(numbers(row.model_dump()), abs=1e-9) for row in expected
    ]


def numbers(figures: dict[str, Any]) -> dict[str, Any]:
    """Without what runs were asked; the fix's with the others."""
    flat = {name: value for name, value in figures.items() if name not in ("fix", "parameters", "environment")}
    fix = figures["fix"] or {}
    reasons = {
        f"{name} {reason}": n for name in ("no_match", "not_verified") for reason, n in fix.get(name, {}).items()
    }
    return flat | reasons | {name: value for name, value in fix.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("method", [BEST_PLACE, FIX])
def test_columns_hold_each_frames_estimate_errors_verdict_and_agreement(app: Flask, method: str):
    with app.test_request_context(f"/?method={method}"), current_state().database.read() as session:
        selection = selected_runs(current_state().database, FLIGHT)
        run = selection.runs[VERIFIED[0]]
        frames = columns.frame_columns(session, FLIGHT)
        localization = find_answer(session, FLIGHT, run, method)
        assert localization is not None
        answer = answer_columns(session, localization, method, frames)
        agreeing, voters = agreement_columns(session, run, method, frames)
        answers = answers_by_run(session, [run], with_hits=False)[run.id]
    for at, frame in enumerate(answers):
        estimate = frame.result.estimate
        assert answer.placed[at] == (estimate is not None)
        if estimate is None:
            continue
        assert (answer.lon[at], answer.lat[at]) == pytest.approx(estimate.location)
        assert answer.heading_deg[at] == pytest.approx(estimate.heading_deg)
        assert frame.errors and answer.error_m[at] == pytest.approx(frame.errors.error_m)
        assert frame.agreement and (agreeing[at], voters[at]) == (frame.agreement.backbones, frame.agreement.of)
        if frame.errors.verdict:
            assert ["on", "near", "far"][int(answer.verdict[at])] == frame.errors.verdict


def test_a_pages_columns_add_up_to_the_frames_of_its_json(client: FlaskClient):
    page = client.get(f"/flights/{FLIGHT}.json?model=vitl16sat").json
    facts = client.get(f"/flights/{FLIGHT}/columns.json").json
    fixes = client.get(f"/flights/{FLIGHT}/estimates.json?model=vitl16sat&method=fix").json
    best = client.get(f"/flights/{FLIGHT}/estimates.json?model=vitl16sat").json
    assert page and facts and fixes and best
    frames = page["frames"]
    assert list(accumulate(facts["index"])) == [frame["index"] for frame in frames]
    lon = np.array(list(accumulate(facts["lon"]))) / 1e6
    assert lon == pytest.approx([frame["truth"]["lon"] for frame in frames], abs=1e-6)
    assert fixes["match"] == [{True: 1, False: 0, None: None}[frame["fix"]["match"]] for frame in frames]
    assert best["agreement"] is None, "not asked for"
    asked = client.get(f"/flights/{FLIGHT}/estimates.json?model=vitl16sat&agreement=yes").json
    assert asked and max(asked["agreement"]) >= 2
    assert best["error_m"] == pytest.approx([frame["best"]["error_m"] for frame in frames], abs=0.06)
    brief = client.get(f"/flights/{FLIGHT}/3/brief.json?model=vitl16sat").json
    assert brief == next(frame for frame in frames if frame["index"] == 3)


@pytest.mark.parametrize("path", ["", "?frame=6&method=fix", "/6", "/6/brief.json"])
def test_a_page_of_a_few_frames_checks_their_rows_and_not_the_flights(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str
):
    """Of 10,000 frames that six backbones have answered the whole would be two million rows. Answers are read whole,
    for the medians, and checked so; hits, which are the most, are not."""
    checked: set[str] = set()
    digest_of = seals.block_digest
    with monkeypatch.context() as small:
        small.setattr(seals, "_BLOCK", 4)
        seal_again(app)
        small.setattr(seals, "_sound", set())
        small.setattr("web.pages.flights.WINDOW", 4)
        small.setattr("web.pages.flights.LONG_FLIGHT", 4)  # a short one's page holds its whole track
        small.setattr(
            seals, "block_digest", lambda *what: (what[1] == "run" and checked.add(what[-1])) or digest_of(*what)
        )
        assert client.get(f"/flights/{FLIGHT}{path}").status_code == 200
    seal_again(app)
    assert "head" in checked and 1 < len(checked) <= 3, "four frames lie in two blocks at most"


def test_a_map_is_not_drawn_of_rows_that_are_not_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = make_gallery(tmp_path)
    record_sample_track(settings, FLIGHT)
    estimates = f"/flights/{FLIGHT}/estimates.json?model={VERIFIED[0]}&method="
    for table, path in (
        ("frames", f"/flights/{FLIGHT}/columns.json"),
        ("frame_fixes", f"{estimates}fix"),
        ("frame_estimates", f"{estimates}best-place"),
        ("frame_estimates", "/gallery"),
        ("track_estimates", f"{estimates}track"),
    ):
        app = create_app(settings)
        with app.app_context(), current_state().database.write() as session:
            session.execute(text(f"UPDATE {table} SET lon = lon + 0.001"))
        monkeypatch.setattr(seals, "_sound", set())  # as another process would begin
        answer = app.test_client().get(path)
        assert answer.status_code >= 500 and "damaged" in answer.text, path
        assert "손상" in app.test_client().get(path, headers={"Accept-Language": "ko"}).json["detail"]
        cards = app.test_client().get("/flights.json").json["flights"]
        shown = {card["id"]: card["damage"] or card["models"] for card in cards}
        assert table == "track_estimates" or "damaged" in shown[FLIGHT]
        assert table != "frames" or isinstance(shown[UNKNOWN], list), "the other flight is to be seen"
        with app.app_context(), current_state().database.write() as session:
            session.execute(text(f"UPDATE {table} SET lon = lon - 0.001"))
        seal_again(app)
        app.extensions["coarseloc"].close()


def seal_again(app: Flask) -> None:
    with app.app_context(), current_state().database.write() as session:
        for kind, owner in seals.seals(session):
            seals.unseal(session, kind, owner)
            seals.seal(session, kind, owner)


def test_a_track_comes_as_columns_whichever_backbone_is_named(client: FlaskClient):
    track = client.get(f"/flights/{FLIGHT}/estimates.json?method=track").json
    assert track and {"acquiring", "lost", "recovered", "tracking"} == set(track["states"])
    assert [value is None for value in track["lon"][:5]] == [True, False, True, True, False]


def test_search_with_facets_keeps_the_frames_set(client: FlaskClient):
    page = client.get(f"/flights/{FLIGHT}/3", headers={"Accept": "text/html"}).text
    assert f"/search?flight={FLIGHT}&amp;frame=3&amp;reference-set=gangnam-300m" in page


@pytest.mark.parametrize("path", ["columns.json", "estimates.json", "1/brief.json"])
def test_an_unknown_flight_is_not_found(client: FlaskClient, path: str):
    assert client.get(f"/flights/nowhere/{path}").status_code == 404


# --- map tiles -----------------------------------------------------------------------------------


def test_map_tiles_show_the_sets_ground_and_are_kept_by_their_etag(client: FlaskClient):
    layer = (client.get(f"/flights/{FLIGHT}.json").json or {})["map"]["layers"][-1]
    west, south, east, north = layer["extent"]
    zoom = layer["max_zoom"]
    lat = np.radians((south + north) / 2)
    x = int(((west + east) / 2 + 180) / 360 * 2**zoom)
    y = int((1 - np.arcsinh(np.tan(lat)) / np.pi) / 2 * 2**zoom)
    url = layer["url"].replace("{z}", str(zoom)).replace("{x}", str(x)).replace("{y}", str(y))
    answer = client.get(url)
    assert (
        answer.status_code == 200 and answer.mimetype == "image/webp" and "immutable" in answer.headers["Cache-Control"]
    )
    assert np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGB")).std() > 5, "drawn ground, not one colour"
    assert client.get(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    png = client.get(url.replace(".webp", ".png"))
    assert png.mimetype == "image/png" and Image.open(io.BytesIO(png.data)).size == (256, 256)


@pytest.mark.parametrize(
    "path",
    [
        f"{TILE[:-5]}0.webp",
        "/tiles/gangnam-300m/17/131072/0.webp",
        "/tiles/gangnam-300m/25/0/0.webp",
        "/tiles/gangnam-300m/9999999999/0/0.webp",
        "/tiles/gangnam-300m/-1/0/0.webp",
        "/tiles/gangnam-300m/1e3/0/0.webp",
        f"{TILE}.tif",
        f"{TILE}.webp%00",
        "/tiles/../17/0/0.webp",
        "/tiles/nowhere/17/0/0.webp",
        "/base-map/3/4/2",
    ],
)
def test_tiles_that_no_map_has_are_not_found(client: FlaskClient, path: str):
    assert client.get(path).status_code == 404


def test_a_sets_coordinates_come_as_polynomials_that_proj_agrees_with(client: FlaskClient):
    from search.export.grid import ProjectedGrid

    grid = client.get("/references/gangnam-300m/grid.json").json
    assert grid and grid["crs"] == "EPSG:32652"
    west, south, east, north = grid["extent"]
    u, v = 0.37, -0.61
    lon, lat = (west + east) / 2 + u * (east - west) / 2, (south + north) / 2 + v * (north - south) / 2
    expected = ProjectedGrid("EPSG:32652").position(lon, lat)
    for name in ("x", "y"):
        value = sum(c * u**i * v**j for c, (i, j) in zip(grid[name], grid["powers"], strict=True))
        assert value == pytest.approx(getattr(expected, name), abs=0.01)


def test_a_search_over_two_sets_keeps_the_ground_of_both(app: Flask):
    from web.pages.map import ground_map

    with app.test_request_context("/"), current_state().database.read() as session:
        from coarseloc.store import references

        (stored,) = references.reference_sets(session)
        twice = ground_map(current_state(), [stored, replace(stored, uid="another")])
    assert twice and len(twice.layers) == 2 and twice.reference_set == "gangnam-300m"


# --- pictures --------------------------------------------------------------------------------------


def test_a_cut_tile_is_shown_at_its_orthophotos_own_resolution(tmp_path, tiny_backbone):
    from gallery_sample import SMALL, add_embedded

    settings = make_gallery(tmp_path, replace(SMALL, columns=2, rows=2, frames=1, flights=("251124155712",)))
    add_embedded(tmp_path, tiny_backbone)  # tiles of 200 m cut at 96 px from 1 m a pixel
    app = create_app(settings)
    client = app.test_client()
    with app.test_request_context("/"), current_state().database.read() as session:
        from coarseloc.store import embeddings, references

        drawn = next(stored for stored in references.reference_sets(session) if stored.name == "drawn-200m")
        key = next(iter(references.rotated_tiles(session, drawn.id).values())).id
        assert embeddings.facts_by_key(session, [key])[key][1] is None, "a cut tile has no file of its own"
    small, full = (
        Image.open(io.BytesIO(client.get(f"/images/tiles/{key}.jpg{query}").data)) for query in ("", "?size=full")
    )
    assert small.size == (96, 96) and full.size == (256, 256)
    (tmp_path / "drawn.tif").rename(tmp_path / "away.tif")
    for rendition in (tmp_path / "thumbnails" / "renditions").rglob("*.jpg"):
        rendition.unlink()
    gone = Image.open(io.BytesIO(client.get(f"/images/tiles/{key}.jpg?size=full").data))
    assert gone.size == (96, 96), "the thumbnail, where the file is gone"
    app.extensions["coarseloc"].close()
