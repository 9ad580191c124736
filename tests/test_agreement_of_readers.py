"""One answer, many readers: the web's JSON, the exports, `evaluate --json` and the command line say the same of every
frame of a flight under two backbones.

The record that `coarseloc export` writes is what the others are held against. Among the frames are one that cannot be
read, one without truth, one whose yaw is not known, one whose yaw is given below zero, one off the map, and some whose
hits are all of one place.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from databases import environment_of, settings_of

from coarseloc import cli
from coarseloc.core import config
from coarseloc.embedding.specs import BACKBONES
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from web import create_app

FLIGHT = "251124155712"
FRAMES = 14
K = 2  # few, so that some frames' hits are all of one place while no more than K are kept
UNREADABLE, WITHOUT_TRUTH, WITHOUT_YAW, YAW_BELOW_ZERO, OFF_MAP = 4, 7, 10, 11, 12

Key = tuple[str, int]  # backbone, frame index
Row = Mapping[str, Any]  # what a reader says of one frame under one backbone; None where it says "unknown"

PLACE = ("lon", "lat", "heading_deg", "score", "margin")
ERRORS = ("error_m", "heading_error_deg")
TRUTH = ("truth_lon", "truth_lat", "truth_heading_deg")
TIMES = ("decode_ms", "embed_ms", "search_ms", "total_ms")
ALL = (
    *("tile_id", "place_id", *PLACE, "agreement", "agreement_of", "agreement_within_m"),
    *(*ERRORS, "best_error_m", "inside_footprint", *TRUTH, *TIMES, "failure"),
)


@dataclass(frozen=True)
class Answers:
    """Everything that was said of the flight."""

    search: list[dict[str, Any]]  # `search --json`
    evaluate: list[dict[str, Any]]  # `evaluate --json`
    lookup: dict[str, list[dict[str, Any]]]  # `lookup --json` of frame 1: {backbone: hits}
    exports: Path  # `export`: a JSON for each frame and backbone, GeoJSON, KML, CSV
    single: dict[str, Any]  # `export --single`
    web: Mapping[str, Any]  # {address: its JSON, or its text}

    @property
    def runs(self) -> dict[str, int]:
        return {run["backbone"]: run["run"] for run in self.search}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    root = tmp_path_factory.mktemp("readers")
    state = root / "state"
    state.mkdir()
    weights = BACKBONES["demo"].folder
    (state / "coarseloc.toml").write_text(
        "input_px = 128\ndevice = 'cpu'\n"
        f"[[backbones]]\nname = 'demo-mean'\npath = {str(weights)!r}\npooling = 'mean'\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COARSELOC_") and "TEST" not in name]:
            patch.delenv(name)
        patch.setenv("COARSELOC_DATA_DIR", str(state))
        for name, value in environment_of(state).items():
            patch.setenv(name, value)
        area = write_area(root / "area.tif", 12, width_m=1000, height_m=850, style="suburb")
        flight = _fly(area, root / "flights")
        cut = ("--footprint-m", 300, "--altitude-m", 300, "--reference-set", "area")
        _run("ingest", "orthophoto", area, *cut, "--backbone", "demo", "--backbone", "demo-mean")
        search = json.loads(_run("search", flight, "--k", K, "--json"))
        _run("export", FLIGHT, "--out", root / "out")
        _run("export", FLIGHT, "--out", root / "single", "--single", "--format", "json")
        yield Answers(
            search,
            json.loads(_run("evaluate", FLIGHT, "--json")),
            json.loads(_run("lookup", flight / f"{FLIGHT}_00001.jpg", "--k", K, "--json")),
            root / "out",
            json.loads((root / "single" / f"{FLIGHT}.json").read_text(encoding="utf-8")),
            _browse(state, search),
        )


def _fly(area: Path, folder: Path) -> Path:
    """The demonstration's flight, made less tidy."""
    made = simulate_flight(area, folder, flight_id=FLIGHT, frames=FRAMES, footprint_m=300, seed=5, side_px=192)
    made.frames[UNREADABLE - 1].path.write_bytes(b"not a picture")
    labels = json.loads((made.path / "labels.json").read_text(encoding="utf-8"))
    images = labels["images"]
    images[WITHOUT_YAW - 1]["attitude"]["yaw"] = None
    images[YAW_BELOW_ZERO - 1]["attitude"]["yaw"] -= 360.0
    images[OFF_MAP - 1]["position"]["latitude"] += 0.05
    del images[WITHOUT_TRUTH - 1]
    (made.path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return made.path


def _run(*args: object) -> str:
    """A command's standard output."""
    done = CliRunner().invoke(cli.cli, [*map(str, args)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def _browse(state: Path, search: list[dict[str, Any]]) -> dict[str, Any]:
    settings = config.load(state).model_copy(update={"database_url": settings_of(state).database_url})
    app = create_app(settings)
    client = app.test_client()
    addresses = ["/flights.json", f"/compare.json?flight={FLIGHT}", f"/flights/{FLIGHT}/export.json"]
    addresses += [f"/flights/{FLIGHT}.json?model={run['backbone']}" for run in search]
    addresses += [f"/flights/{FLIGHT}/{frame}.json" for frame in range(1, FRAMES + 1)]
    addresses += [f"/search.json?flight={FLIGHT}&frame=1&model={run['backbone']}&reference-set=area" for run in search]
    read = {address: client.get(address).get_json(force=True) for address in addresses}
    for run in search:
        for frame in range(1, FRAMES + 1):
            address = f"/flights/{FLIGHT}/{frame}/info/{run['run']}.json"
            read[address] = client.get(address).json
    read["csv"] = client.get(f"/flights/{FLIGHT}/export.csv").text
    app.extensions["coarseloc"].close()
    return read


# --- what each reader says ------------------------------------------------------------------------


def of_record(record: Mapping[str, Any]) -> Row:
    """A CoarseLocalizationInfo."""
    estimate, best = record["estimate"], record["results"][0]
    errors, truth = record.get("errors") or {}, record.get("truth") or {}
    return {
        "tile_id": best["tile_id"],
        **estimate["location"],
        **{key: estimate[key] for key in ("place_id", "heading_deg", "score", "margin")},
        "agreement": estimate["agreement"]["backbones"],
        "agreement_of": estimate["agreement"]["of"],
        "agreement_within_m": estimate["agreement"]["within_m"],
        **{key: errors.get(key) for key in (*ERRORS, "best_error_m", "inside_footprint")},
        "truth_lon": truth.get("location", {}).get("lon"),
        "truth_lat": truth.get("location", {}).get("lat"),
        "truth_heading_deg": truth.get("heading_deg"),
        **{f"{name}_ms": value for name, value in record["timing_ms"].items()},
        "failure": None,
    }


def of_document(document: Mapping[str, Any]) -> dict[Key, Row]:
    records = {(one["encoder"], one["frame_index"]): of_record(one) for one in document["localizations"]}
    failures = {(one["encoder"], one["frame_index"]): {"failure": one["error"]} for one in document["failures"]}
    return records | failures


def of_export(answers: Answers) -> dict[Key, Row]:
    """What the others are held against."""
    return of_document(answers.single)


def of_files(answers: Answers) -> dict[Key, Row]:
    records = [json.loads(file.read_text(encoding="utf-8")) for file in answers.exports.glob("*.json")]
    return {(one["encoder"], one["frame_index"]): of_record(one) for one in records}


def of_table(text: str) -> dict[Key, Row]:
    said: dict[Key, Row] = {}
    for row in csv.DictReader(text.splitlines()):
        numbers = {key: _number(row[key]) for key in (*PLACE, *ERRORS, "best_error_m", *TRUTH, *TIMES)}
        said[row["encoder"], int(row["frame_index"])] = {
            **numbers,
            "place_id": row["place_id"] or None,
            "agreement": _number(row["agreement"]),
            "agreement_of": _number(row["agreement_of"]),
            "inside_footprint": {"True": True, "False": False, "": None}[row["inside_footprint"]],
            "failure": row["error"] or None,
        }
    return said


def _number(text: str) -> float | None:
    return float(text) if text else None


def of_csv(answers: Answers) -> dict[Key, Row]:
    return of_table((answers.exports / f"{FLIGHT}.csv").read_text(encoding="utf-8"))


def of_geojson(answers: Answers) -> dict[Key, Row]:
    features = json.loads((answers.exports / f"{FLIGHT}.geojson").read_text(encoding="utf-8"))["features"]
    return _of_points([(one["geometry"]["coordinates"], one["properties"]) for one in features])


def of_kml(answers: Answers) -> dict[Key, Row]:
    kml = "{http://www.opengis.net/kml/2.2}"
    points = []
    for mark in ElementTree.parse(answers.exports / f"{FLIGHT}.kml").iter(f"{kml}Placemark"):
        if mark.find(f"{kml}Point") is None:  # a fix's shape, or a frame without a place
            continue
        data = {one.get("name", ""): one.findtext(f"{kml}value", "") for one in mark.iter(f"{kml}Data")}
        numbers = (*PLACE[2:], *ERRORS, "agreement", "frame_index")
        properties = data | {key: _number(data.get(key, "")) for key in numbers}
        points.append(
            ([float(part) for part in mark.findtext(f"{kml}Point/{kml}coordinates", "").split(",")], properties)
        )
    return _of_points(points)


def _of_points(points: list[tuple[list[float], dict[str, Any]]]) -> dict[Key, Row]:
    """Points of truth and of estimates, joined by frame."""
    truths = {int(told["frame_index"]): (at, told) for at, told in points if told["kind"] == "truth"}
    said: dict[Key, Row] = {}
    for at, told in points:
        if told["kind"] == "estimate":
            frame = int(told["frame_index"])
            (truth_lon, truth_lat), truth = truths.get(frame, ((None, None), {}))
            said[told["encoder"], frame] = {
                "lon": at[0],
                "lat": at[1],
                **{key: told[key] for key in ("place_id", "heading_deg", "score", "margin", "agreement", *ERRORS)},
                "truth_lon": truth_lon,
                "truth_lat": truth_lat,
                "truth_heading_deg": truth.get("heading_deg"),
            }
    return said


def of_web_frame(answers: Answers) -> dict[Key, Row]:
    """The frame's page."""
    said: dict[Key, Row] = {}
    for frame in range(1, FRAMES + 1):
        page = answers.web[f"/flights/{FLIGHT}/{frame}.json"]
        truth, agreed = page["frame"]["truth"], page["agreement"]
        for row in page["rows"]:
            if row["error"]:
                said[row["backbone"], frame] = {"failure": row["error"]}
                continue
            best, estimate = row["hits"][0], row["estimate"]
            said[row["backbone"], frame] = {
                "tile_id": best["tile_id"],
                "place_id": best["place_id"],
                **estimate["location"],
                "heading_deg": estimate["heading_deg"],
                "score": estimate["score"],
                "margin": estimate["margin"]["score"],
                "agreement": len(agreed["models"]) if row["key"] in agreed["models"] else 1,
                "agreement_of": agreed["of"],
                "agreement_within_m": agreed["within_m"],
                **{key: estimate[key] for key in ERRORS},
                "inside_footprint": _inside(best["verdict"]),
                "truth_lon": truth["location"] and truth["location"]["lon"],
                "truth_lat": truth["location"] and truth["location"]["lat"],
                "truth_heading_deg": truth["yaw_deg"],
                **row["timing"],
                "failure": None,
            }
    return said


def _inside(verdict: str | None) -> bool | None:
    """The page says whether truth lies in the footprint as `on`, `near` or `far`."""
    return None if verdict is None else verdict == "on"


def of_web_flight(answers: Answers) -> dict[Key, Row]:
    """The flight's page: each frame's best place."""
    said: dict[Key, Row] = {}
    for backbone in answers.runs:
        for frame in answers.web[f"/flights/{FLIGHT}.json?model={backbone}"]["frames"]:
            if best := frame["best"]:
                said[backbone, frame["index"]] = {
                    **best["location"],
                    "heading_deg": best["angle_deg"],
                    "score": best["score"],
                    "margin": best["margin"],
                    "error_m": best["error_m"],
                    "inside_footprint": _inside(best["verdict"]),
                    "truth_lon": frame["truth"] and frame["truth"]["lon"],
                    "truth_lat": frame["truth"] and frame["truth"]["lat"],
                }
    return said


def of_web_record(answers: Answers) -> dict[Key, Row]:
    return {
        (backbone, frame): of_record(record)
        for backbone, run in answers.runs.items()
        for frame in range(1, FRAMES + 1)
        if "estimate" in (record := answers.web[f"/flights/{FLIGHT}/{frame}/info/{run}.json"])
    }


def of_web_export(answers: Answers) -> dict[Key, Row]:
    return of_document(answers.web[f"/flights/{FLIGHT}/export.json"])


def of_web_csv(answers: Answers) -> dict[Key, Row]:
    return of_table(answers.web["csv"])


def of_evaluate(answers: Answers) -> dict[Key, Row]:
    """The frames of `evaluate --json`, told as records are."""
    said: dict[Key, Row] = {}
    for run in answers.evaluate:
        for frame in run["frames"]:
            if frame["estimate"] is None:
                continue
            errors = frame["errors"] or {}
            said[run["backbone"], frame["frame_index"]] = {
                **frame["estimate"]["location"],
                **{key: frame["estimate"][key] for key in ("place_id", "heading_deg", "score", "margin")},
                "agreement": frame["estimate"]["agreement"]["backbones"],
                **{key: errors.get(key) for key in (*ERRORS, "inside_footprint")},
            }
    return said


TABLE = tuple(key for key in ALL if key not in ("tile_id", "agreement_within_m"))
POINTS = (*PLACE, "place_id", "agreement", *ERRORS, *TRUTH)
READERS: dict[Callable[[Answers], dict[Key, Row]], tuple[str, ...]] = {
    of_files: ALL,
    of_csv: TABLE,
    of_geojson: POINTS,
    of_kml: POINTS,
    of_web_frame: tuple(key for key in ALL if key != "best_error_m"),
    of_web_flight: (*PLACE, "error_m", "inside_footprint", "truth_lon", "truth_lat"),
    of_web_record: ALL,
    of_web_export: ALL,
    of_web_csv: TABLE,
    of_evaluate: (*PLACE, "place_id", "agreement", *ERRORS, "inside_footprint"),
}
ROUNDED = {of_geojson: 5.1e-8, of_kml: 5.1e-8}  # degrees: seven decimals are written


def same(a: Any, b: Any, tolerance: float) -> bool:
    """Equal; of numbers up to the last bits of differently ordered arithmetic."""
    if a is None or b is None or isinstance(a, str | bool) or isinstance(b, str | bool):
        return bool(a == b) and type(a) is type(b)
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=tolerance)


@pytest.mark.parametrize(
    ("reader", "key"),
    [(reader, key) for reader, keys in READERS.items() for key in keys],
    ids=lambda one: one if isinstance(one, str) else one.__name__.removeprefix("of_"),
)
def test_a_reader_says_of_every_frame_what_the_export_says(
    answers: Answers, reader: Callable[[Answers], dict[Key, Row]], key: str
):
    exported, said = of_export(answers), reader(answers)
    localized = {at: row for at, row in exported.items() if row["failure"] is None}
    assert len(localized) == 2 * (FRAMES - 1) and len(exported) == 2 * FRAMES
    missing = [at for at in (exported if key == "failure" and reader not in FILES else localized) if at not in said]
    assert missing == [], f"nothing is said of {len(missing)} of {len(exported)}"
    tolerance = ROUNDED.get(reader, 0.0) if key.endswith(("lon", "lat")) else 0.0
    differing = {
        at: (said[at][key], row[key])
        for at, row in (exported if key == "failure" else localized).items()
        if at in said and not same(said[at][key], row[key], tolerance)
    }
    assert differing == {}, f"{len(differing)} of {len(localized)} differ: (said, exported)"


FILES = (of_files, of_web_record)  # a frame that could not be searched has no record


def test_the_flight_holds_every_case(answers: Answers):
    rows = of_export(answers)
    assert {rows[backbone, UNREADABLE]["failure"] is None for backbone in answers.runs} == {False}
    told = [row for row in rows.values() if row["failure"] is None]
    assert {row["agreement"] for row in told} == {1, 2}
    assert {row["inside_footprint"] for row in told} == {True, False, None}
    assert any(row["margin"] for row in told)
    assert any(row["heading_error_deg"] is None and row["error_m"] is not None for row in told)


# --- figures of a whole run -----------------------------------------------------------------------


def of_frames(answers: Answers, backbone: str) -> dict[str, float | None]:
    """Medians over the exported frames. Whether frames off the map count is one rule: they do not."""
    rows = [row for (name, _frame), row in of_export(answers).items() if name == backbone and row["failure"] is None]
    on_map = [row for (name, at), row in of_export(answers).items() if name == backbone and at != OFF_MAP]
    return {
        "median_error_m": _median([row.get("error_m") for row in on_map]),
        "median_heading_error_deg": _median([row.get("heading_error_deg") for row in on_map]),
        "median_margin": _median([row["margin"] for row in rows]),
        "median_embed_ms": _median([row["embed_ms"] for row in rows]),
        "median_search_ms": _median([row["search_ms"] for row in rows]),
        "median_total_ms": _median([row["total_ms"] for row in rows]),
        "failed": FRAMES - len(rows),
    }


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def by_search(answers: Answers, backbone: str) -> dict[str, Any]:
    run = next(run for run in answers.search if run["backbone"] == backbone)
    times = {f"median_{name}_ms": value for name, value in run["median_ms"].items()}
    return run | times | {"failed": run["unreadable"]}


def by_evaluate(answers: Answers, backbone: str) -> dict[str, Any]:
    run = next(run for run in answers.evaluate if run["backbone"] == backbone)
    return {
        "median_error_m": run["scores"]["error_median"]["value"],
        "median_heading_error_deg": run["scores"]["heading_error_median"]["value"],
        "failed": run["counts"]["failed"],
    }


def by_web_flights(answers: Answers, backbone: str) -> dict[str, Any]:
    (flight,) = answers.web["/flights.json"]["flights"]
    return next(model for model in flight["models"] if model["backbone"] == backbone)


def by_web_flight(answers: Answers, backbone: str) -> dict[str, Any]:
    page = answers.web[f"/flights/{FLIGHT}.json?model={backbone}"]
    return next(model for model in page["models"] if model["backbone"] == backbone)


def by_web_compare(answers: Answers, backbone: str) -> dict[str, Any]:
    page = answers.web[f"/compare.json?flight={FLIGHT}"]
    return next(model for model in page["models"] if model["backbone"] == backbone)


WEB = ("median_error_m", "median_margin", "median_embed_ms", "median_search_ms", "median_total_ms", "failed")


@pytest.mark.parametrize(
    ("reader", "figures"),
    [
        (by_search, (*WEB, "median_heading_error_deg")),
        (by_evaluate, ("median_error_m", "median_heading_error_deg", "failed")),
        (by_web_flights, WEB),
        (by_web_flight, WEB),
        (by_web_compare, WEB),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
def test_a_runs_figures_are_those_of_its_frames(
    answers: Answers, reader: Callable[[Answers, str], dict[str, Any]], figures: tuple[str, ...]
):
    differing = {}
    for backbone in answers.runs:
        said, due = reader(answers, backbone), of_frames(answers, backbone)
        for figure in figures:
            if not same(said[figure], due[figure], 0.0):
                differing[backbone, figure] = (said[figure], due[figure])
    assert differing == {}, "(said, of the frames)"


# --- one shape of a hit ---------------------------------------------------------------------------


def hits_of_lookup(answers: Answers, backbone: str) -> list[dict[str, Any]]:
    return answers.lookup[backbone]


def hits_of_web_frame(answers: Answers, backbone: str) -> list[dict[str, Any]]:
    page = answers.web[f"/flights/{FLIGHT}/1.json"]
    return next(row["hits"] for row in page["rows"] if row["backbone"] == backbone)


def hits_of_web_search(answers: Answers, backbone: str) -> list[dict[str, Any]]:
    page = answers.web[f"/search.json?flight={FLIGHT}&frame=1&model={backbone}&reference-set=area"]
    hits: list[dict[str, Any]] = page["answer"]["hits"]
    return hits[:K]


@pytest.mark.parametrize("reader", [hits_of_lookup, hits_of_web_frame, hits_of_web_search])
def test_a_hit_has_one_shape_everywhere(answers: Answers, reader: Callable[[Answers, str], list[dict[str, Any]]]):
    for record in answers.single["localizations"]:
        if record["frame_index"] != 1:
            continue
        hits = reader(answers, record["encoder"])
        assert len(hits) == K
        for hit, due in zip(hits, record["results"], strict=True):
            assert [key for key in due if key not in hit] == [], "keys that this reader's hits lack"
            assert hit["score"] == pytest.approx(due["score"], abs=1e-5)
            assert due["path"].endswith(hit["path"])  # a server does not say where its folders lie
            assert {key: hit[key] for key in due if key not in ("score", "path")} == {
                key: value for key, value in due.items() if key not in ("score", "path")
            }
