"""Tags and notes of frames: stored with the frame, written from pages and commands, shown and exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient
from gallery_sample import SMALL, Shape, make_gallery

from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.marks import FrameMarks
from coarseloc.store import flights, marks
from coarseloc.workspace import Workspace
from web import create_app

FLIGHT, BLIND_FLIGHT = SMALL.flights
HTML = {"Accept": "text/html"}
SCHEMAS = Path(__file__).parents[2] / "schemas"
MARKUP = '"><img src=x onerror=alert(1)> </textarea>\n2nd line'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = create_app(make_gallery(tmp_path_factory.mktemp("marks")))
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture
def workspace(app: Flask) -> Workspace:
    workspace: Workspace = app.extensions["coarseloc"].workspace
    return workspace


@pytest.fixture
def client(app: Flask, workspace: Workspace) -> FlaskClient:
    """On frames that nobody has marked."""
    for flight in (FLIGHT, BLIND_FLIGHT):
        marked = workspace.frame_marks(flight)
        tags = [tag for on_frame in marked.values() for tag in on_frame.tags]
        workspace.mark_frames(flight, list(marked), remove=tags, note="")
        assert workspace.frame_marks(flight) == {}
    return app.test_client()


def rows_of(client: FlaskClient, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get(f"/gallery.json?{query}").json["rows"]
    return rows


# --- the store ------------------------------------------------------------------------------------


def test_marks_are_added_taken_off_and_kept_by_the_frame(client: FlaskClient, workspace: Workspace) -> None:
    assert workspace.mark_frames(FLIGHT, [1, 2], add=["Glint to-check"], note="sun") == 2
    workspace.mark_frames(FLIGHT, [2, 3], add=["cloud"], remove=["glint", "cloud"])
    assert workspace.frame_marks(FLIGHT) == {
        1: FrameMarks(("glint", "to-check"), "sun"),
        2: FrameMarks(("cloud", "to-check"), "sun"),
        3: FrameMarks(("cloud",), ""),
    }
    workspace.mark_frames(FLIGHT, [1], note="")
    assert workspace.frame_marks(FLIGHT, [1])[1].note == "" and workspace.frame_marks(BLIND_FLIGHT) == {}
    with workspace.db.read() as session:
        assert marks.tags_in_use(session) == {"cloud": 2, "glint": 1, "to-check": 2}
        assert marks.tagged_frames(session, ["glint", "cloud"]) == {FLIGHT: {1, 2, 3}}
    assert workspace.flight_results(FLIGHT)["marked"] == 3


def test_a_refused_mark_leaves_nothing_half_written(client: FlaskClient, workspace: Workspace) -> None:
    for refused in ({"add": ["ok", "a/b"]}, {"add": ["ok"], "note": "x" * 2001}, {"add": [f"t{n}" for n in range(21)]}):
        with pytest.raises(InputError):
            workspace.mark_frames(FLIGHT, [1, 2], **refused)
    with pytest.raises(InputError, match="no frame 99 and 1 others: it has 12, from 1 to 12"):
        workspace.mark_frames(FLIGHT, [1, 99, 100], add=["ok"])
    with pytest.raises(StoreError, match="not known"):
        workspace.mark_frames("nobody", [1], add=["ok"])
    assert workspace.frame_marks(FLIGHT) == {}


def test_marks_stay_when_a_flight_is_renamed_or_saved_anew_and_go_with_it(tmp_path: Path) -> None:
    app = create_app(make_gallery(tmp_path, Shape(columns=2, rows=2, frames=3, flights=(FLIGHT,))))
    workspace = app.extensions["coarseloc"].workspace
    workspace.mark_frames(FLIGHT, [2], add=["glint"], note="sun")
    workspace.rename_flight(FLIGHT, "morning")
    with workspace.db.write() as session:
        flights.save_flight(session, flights.find_flight(session, "morning").flight)
    assert workspace.frame_marks("morning") == {2: FrameMarks(("glint",), "sun")}
    assert "1 frame" in app.test_client().get("/flights/morning/edit", headers=HTML).text
    workspace.delete_flight("morning")
    with workspace.db.read() as session:
        assert marks.tags_in_use(session) == {}
    app.extensions["coarseloc"].close()


# --- the pages ------------------------------------------------------------------------------------


def test_picked_rows_of_several_flights_are_tagged_at_once_and_found_by_the_tag(client: FlaskClient) -> None:
    picked = [rows_of(client, f"flight={flight}&model=vits16")[3] for flight in (FLIGHT, BLIND_FLIGHT)]
    form = {"pick": [row["key"] for row in picked], "do": "add", "tags": "Glint, to-check", "note": "not written"}
    answer = client.post("/gallery/marks?model=vits16&view=table", data=form, headers=HTML)
    assert answer.status_code == 303 and answer.location == "/gallery?model=vits16&view=table"
    found = client.get("/gallery.json?tag=GLINT&model=vits16").json
    assert [(row["flight"], row["frame"]) for row in found["rows"]] == [(row["flight"], row["frame"]) for row in picked]
    assert {tuple(row["tags"]) for row in found["rows"]} == {("glint", "to-check")} and found["matching"] == 2
    assert found["choices"]["tag"] == ["glint", "to-check"] and found["names"]["tag"] == ["glint"]
    assert {row["note"] for row in found["rows"]} == {""}
    assert "tag=GLINT" in found["files"]["csv"]
    page = client.get("/gallery?tag=glint&view=table", headers=HTML).text
    assert '<a class="chip" href="/gallery?tag=to-check"' in page
    client.post("/gallery/marks", data=form | {"do": "remove", "tags": "glint"})
    assert client.get("/gallery.json?tag=glint").json["matching"] == 0
    assert client.get("/gallery.json?tag=to-check&tag=glint&model=vits16").json["matching"] == 2


@pytest.mark.parametrize(
    "form",
    [
        {"do": "add", "tags": "x"},
        {"do": "paint", "tags": "x", "pick": "KEY"},
        {"do": "add", "tags": " , ", "pick": "KEY"},
        {"do": "add", "tags": "a\u202eb", "pick": "KEY"},
        {"do": "note", "note": "x" * 10_000, "pick": "KEY"},
        {"do": "add", "tags": "x", "pick": "1-x"},
    ],
)
def test_a_form_that_asks_for_what_cannot_be_says_so(client: FlaskClient, workspace: Workspace, form: dict) -> None:
    (key, *_) = [row["key"] for row in rows_of(client, f"flight={FLIGHT}")]
    answer = client.post("/gallery/marks", data={name: value.replace("KEY", key) for name, value in form.items()})
    assert answer.status_code == 400 and answer.json["detail"]
    assert workspace.frame_marks(FLIGHT) == {}


def test_a_refusal_is_said_in_korean_too(client: FlaskClient) -> None:
    answer = client.post(f"/flights/{FLIGHT}/3/marks?lang=ko", data={"tags": "a/b"})
    assert answer.status_code == 400 and "태그가 될 수 없습니다" in answer.json["detail"]


def test_a_frame_is_marked_anew_and_its_note_is_shown_as_text(client: FlaskClient) -> None:
    sent = client.post(f"/flights/{FLIGHT}/3/marks", data={"tags": "glint cloud", "note": MARKUP})
    assert sent.json == {"tags": ["cloud", "glint"], "note": MARKUP}
    assert client.post(f"/flights/{FLIGHT}/3/marks", data={"tags": "cloud", "note": MARKUP}).json["tags"] == ["cloud"]
    for path in (f"/flights/{FLIGHT}/3", f"/flights/{FLIGHT}?frame=3", f"/gallery?flight={FLIGHT}&tag=cloud"):
        page = client.get(path, headers=HTML).text
        assert "<img src=x" not in page and "&lt;img src=x" in page
    for path in (f"/flights/{FLIGHT}/3/brief.json", f"/flights/{FLIGHT}/3.json"):
        shown = client.get(path).json
        assert (shown.get("frame", shown)["tags"], shown.get("frame", shown)["note"]) == (["cloud"], MARKUP)
    of_flight = client.get(f"/flights/{FLIGHT}.json").json["frames"]
    assert {frame["index"]: frame["tags"] for frame in of_flight if frame["tags"]} == {3: ["cloud"]}
    back = client.post(f"/flights/{FLIGHT}/3/marks?model=vits16", data={"tags": ""}, headers=HTML)
    assert back.location == f"/flights/{FLIGHT}/3?model=vits16"
    assert client.get(f"/flights/{FLIGHT}/3.json").json["frame"]["note"] == ""
    assert client.post(f"/flights/{FLIGHT}/99/marks", data={"tags": "x"}).status_code == 404


def test_another_site_cannot_mark_frames(client: FlaskClient, workspace: Workspace) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.post(f"/flights/{FLIGHT}/3/marks", data={"tags": "x"}, headers=foreign).status_code == 403
    assert workspace.frame_marks(FLIGHT) == {}


# --- exports --------------------------------------------------------------------------------------


def test_exports_hold_the_marks_of_frames_that_have_any(
    client: FlaskClient, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.mark_frames(FLIGHT, [3], add=["glint", "cloud"], note="=sun\n2nd")
    workspace.export(FLIGHT, tmp_path, single=True)
    document = json.loads((tmp_path / f"{FLIGHT}.json").read_text(encoding="utf-8"))
    schema = json.loads((SCHEMAS / "coarse-localization-flight.v1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["schema_version"] == "1.3"
    written = {
        (record["frame_index"], tuple(record["tags"]), record["note"])
        for record in document["localizations"]
        if "tags" in record or "note" in record
    }
    assert written == {(3, ("cloud", "glint"), "=sun\n2nd")}
    rows = list(csv.DictReader(io.StringIO((tmp_path / f"{FLIGHT}.csv").read_text(encoding="utf-8"))))
    assert {(row["tags"], row["note"]) for row in rows if row["frame_index"] == "3"} == {("cloud glint", "'=sun\n2nd")}
    assert {row["tags"] + row["note"] for row in rows if row["frame_index"] != "3"} == {""}
    points = json.loads((tmp_path / f"{FLIGHT}.geojson").read_text(encoding="utf-8"))["features"]
    of_frame = [point["properties"] for point in points if point["properties"]["frame_index"] == 3]
    assert {point["kind"] for point in of_frame} == {"truth", "estimate", "fix"}
    assert {point["tags"] for point in of_frame} == {"cloud glint"}
    assert "cloud glint" in (tmp_path / f"{FLIGHT}.kml").read_text(encoding="utf-8")


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def searched(coarseloc: Callable[..., Any], make_captures: Callable[..., Path], flight: Path) -> str:
    root = next(path for path in flight.parents if (path / "captures").is_dir()) / "captures"
    assert coarseloc("ingest", "captures", root, "--backbone", "tiny").code == 0
    assert coarseloc("search", flight, "--no-verify").code == 0
    return flight.name


def test_the_command_marks_frames_and_a_new_search_leaves_them(
    searched: str, coarseloc: Callable[..., Any], flight: Path
) -> None:
    marked = coarseloc("tag", searched, "1", "3-9", "--add", "Glint,to-check", "--note", "sun", "--json").json
    assert marked == {
        "flight_id": searched,
        "frames": [{"frame_index": n, "tags": ["glint", "to-check"], "note": "sun"} for n in (1, 3, 4)],
    }
    coarseloc("tag", searched, "3", "--remove", "glint", "--note", "")
    assert coarseloc("search", flight, "--no-verify", "--batch", "2").code == 0
    assert len(coarseloc("flights", "--json").json[0]["runs"]) == 2
    listed = coarseloc("tag", searched, "--json").json["frames"]
    assert {entry["frame_index"]: (entry["tags"], entry["note"]) for entry in listed} == {
        1: (["glint", "to-check"], "sun"),
        3: (["to-check"], ""),
        4: (["glint", "to-check"], "sun"),
    }
    for arguments, said in (
        (("tag", searched, "--add", "x"), "no frames are named"),
        (("tag", searched, "99", "--add", "x"), "has no frame 99"),
        (("tag", searched, "99"), "has no frame 99"),
        (("tag", searched, "1", "--add", ""), "no tag is given"),
        (("tag", searched, "7-9", "--add", "x"), "has no frame 7-9"),
        (("tag", searched, "three", "--add", "x"), "names no frame"),
        (("tag", searched, "1", "--add", "a b/c"), "'b/c' is no tag"),
        (("tag", "nobody"), "is not known"),
    ):
        refused = coarseloc(*arguments)
        assert refused.code == 2 and said in refused.err
    assert "3 frames" in coarseloc("flights", "delete", searched, "--yes").out
