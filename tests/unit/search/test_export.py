"""CoarseLocalizationInfo and its files, as other programs read them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from coarseloc.core import geo
from coarseloc.core.clock import FlightClock
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import LonLat
from search.export.files import export
from search.export.infos import frame_infos, group_by_question, newest_runs
from search.export.records import SCHEMAS, CoarseLocalizationInfo, json_schema
from search.flight import run_search

SCHEMA_FOLDER = Path(__file__).parents[3] / "schemas"
FLIGHT = "251124155712"
USERS_KEYS = ["encoder", "backend", "dim", "metric", "topk", "timing_ms", "results", "index_build_ms"]


@pytest.fixture
def searched(world, make_fake_backbone):
    """Search the flight with two backbones (by default) and hand out the world."""

    def search(names=("vits16", "vits16+"), flight=None, reference_set=None, **options):
        owner = reference_set or world
        for name in names:
            backbone = make_fake_backbone(name)
            owner.embed(backbone)
            run_search(
                world.db,
                world.mirrors,
                flight or world.flight(),
                [owner.reference_set],
                backbone,
                **({"k": 5} | options),
            )
        return world

    return search


def exported(world, **options):
    out = world.folder / "out"
    return out, export(world.db, world.thumbnails, FLIGHT, out, **options)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check(document, name="coarse-localization-info.v1.schema.json"):
    schema = read(SCHEMA_FOLDER / name)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_that_of_the_models(name):
    """If this fails on purpose: `python -m search.export.records schemas`, and a line in the changelog."""
    text = (SCHEMA_FOLDER / name).read_text(encoding="utf-8")
    assert text == json_schema(SCHEMAS[name])
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_one_json_a_frame_and_backbone_named_after_them(searched):
    world = searched()
    out, done = exported(world, formats=["json"])
    frames = [f"{FLIGHT}_{i:05d}_{slug}.json" for i in range(1, 7) for slug in ("vits16", "vits16plus")]
    assert sorted(path.name for path in out.iterdir()) == sorted(frames)
    assert (done.records, done.files, done.runs, done.failures) == (12, 12, 2, 0)
    assert str(done) == f"12 records of flight {FLIGHT} in 12 files to {out}"
    for path in out.iterdir():
        check(read(path))


def test_the_users_keys_come_first_and_are_spelled_as_they_were(searched):
    world = searched(["vits16"])
    out, _ = exported(world)
    record = read(out / f"{FLIGHT}_00001_vits16.json")
    assert list(record)[: len(USERS_KEYS)] == USERS_KEYS
    assert {"embed", "search", "total"} <= record["timing_ms"].keys()
    assert record["timing_ms"]["total"] == pytest.approx(record["timing_ms"]["embed"] + record["timing_ms"]["search"])
    assert list(record["results"][0])[:4] == ["rank", "path", "filename", "score"]
    assert (record["encoder"], record["dim"], record["metric"], record["topk"]) == ("vits16", 16, "ip", 5)
    assert [result["rank"] for result in record["results"]] == [1, 2, 3, 4, 5]


def test_a_record_says_where_facing_where_and_how_far_off(searched):
    world = searched()
    out, _ = exported(world)
    record = read(out / f"{FLIGHT}_00002_vits16.json")
    best, centre = record["results"][0], world.centre(1)
    assert (record["schema_version"], record["flight_id"], record["frame_index"]) == ("1.3", FLIGHT, 2)
    assert best["tile_id"] == "gangnam-300m/00002" and best["angle_deg"] == 90
    assert best["path"] == "/captures/251210182149_300_50_0_090_00002.jpg"
    assert best["filename"] == "251210182149_300_50_0_090_00002.jpg"
    assert best["bbox"] == pytest.approx(list(geo.square(centre, 300.0)))
    assert (best["altitude_m"], best["overlap"]) == (300.0, 0.5)
    estimate = record["estimate"]
    assert estimate["location"] == pytest.approx({"lon": centre.lon, "lat": centre.lat})
    assert (estimate["heading_deg"], estimate["place_id"]) == (90, best["place_id"])
    assert estimate["agreement"] == {"backbones": 2, "of": 2, "within_m": 157.5}
    second = next(result for result in record["results"] if result["place_id"] != best["place_id"])
    assert estimate["margin"] == pytest.approx(best["score"] - second["score"])
    assert record["truth"]["heading_deg"] == 80 and record["truth"]["source"] == "labels"
    assert record["errors"]["error_m"] == pytest.approx(30.0, rel=5e-3)  # ellipsoid against sphere
    assert record["errors"]["heading_error_deg"] == pytest.approx(10.0)
    assert record["errors"]["inside_footprint"] is True
    assert record["reference_set"]["name"] == "gangnam-300m" and record["reference_set"]["references"] == 24


def test_without_truth_there_is_neither_truth_nor_error(searched, world):
    searched(["vits16"], flight=world.flight(truth=False))
    out, _ = exported(world)
    record = read(out / f"{FLIGHT}_00001_vits16.json")
    assert "truth" not in record and "errors" not in record
    check(record)
    kinds = [f["properties"]["kind"] for f in read(out / f"{FLIGHT}.geojson")["features"]]
    assert kinds == ["estimate"] * 6
    rows = list(csv.DictReader((out / f"{FLIGHT}.csv").open()))
    assert {row["truth_lon"] for row in rows} == {row["error_m"] for row in rows} == {""}


def test_a_position_without_a_heading_is_truth_enough(searched, world):
    flight = world.flight(1)
    (frame,) = flight.frames
    bare = replace(flight, frames=(replace(frame, truth=replace(frame.truth, yaw_deg=None)),))
    searched(["vits16"], flight=bare)
    out, _ = exported(world)
    record = read(out / f"{FLIGHT}_00001_vits16.json")
    check(record)
    assert record["truth"]["heading_deg"] is None and record["errors"]["heading_error_deg"] is None
    assert record["errors"]["error_m"] == pytest.approx(30.0, rel=5e-3)


def test_per_angle_runs_carry_their_heading_in_the_name(searched):
    world = searched(["vits16"], per_angle=True)
    searched(["vits16"])
    out, done = exported(world, formats=["json"])
    assert done.runs == 5 and len(list(out.iterdir())) == 30
    record = read(out / f"{FLIGHT}_00001_vits16_090.json")
    assert {result["angle_deg"] for result in record["results"]} == {90}
    assert record["query"]["threads"].keys() == {"torch", "faiss", "omp"} and record["query"]["batch"] == 1
    assert record["query"]["angle_deg"] == 90 and record["reference_set"]["references"] == 6
    assert (out / f"{FLIGHT}_00001_vits16.json").exists()


def test_several_reference_sets_have_a_folder_each(searched, world):
    searched(["vits16"])
    searched(["vits16"], reference_set=world.add_reference_set("강남 600 m"))
    out, _ = exported(world)
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert folders == ["gangnam-300m", "강남 600 m"]
    assert (out / "강남 600 m" / f"{FLIGHT}_00001_vits16.json").exists()
    rows = list(csv.DictReader((out / f"{FLIGHT}.csv").open()))
    assert {row["reference_set"] for row in rows} == {"gangnam-300m", "강남 600 m"} and len(rows) == 12
    one, done = exported(world, reference_set="강남 600 m", formats=["csv"])
    assert done.records == 6 and one == out


def test_the_newest_run_is_exported_and_a_filtered_one_beside_it(searched):
    world = searched(["vits16"], k=3)
    searched(["vits16"], k=7)
    searched(["vits16"], k=7, where=Where(angles=(0,)))
    out, done = exported(world, formats=["json"])
    names = sorted(path.name for path in out.glob(f"{FLIGHT}_00001_*"))
    assert names == [f"{FLIGHT}_00001_vits16_run2.json", f"{FLIGHT}_00001_vits16_run3.json"]
    assert read(out / names[0])["topk"] == 7 and read(out / names[0])["query"]["where"] == {}
    assert read(out / names[1])["query"]["where"] == {"angles": [0]}
    assert done.records == 12


def test_a_tile_cut_from_an_orthophoto_is_shown_by_its_thumbnail(searched, world):
    cut = world.add_reference_set("ortho", kind="orthophoto")
    searched(["vits16"], reference_set=cut)
    out, _ = exported(world)
    best = read(out / f"{FLIGHT}_00003_vits16.json")["results"][0]
    assert best["filename"] == "ortho_00003_090.jpg"
    path = Path(best["path"])
    assert path.suffix == ".jpg" and path.parent.parent == world.thumbnails and len(path.stem) == 64


def test_frames_that_failed_have_no_record_and_are_named_elsewhere(searched, world):
    flight = world.flight()
    flight.frames[3].path.write_bytes(b"no picture")
    searched(["vits16"], flight=flight)
    out, done = exported(world)
    assert (done.records, done.failures) == (5, 1) and "1 could not be searched" in str(done)
    assert not (out / f"{FLIGHT}_00004_vits16.json").exists()
    row = list(csv.DictReader((out / f"{FLIGHT}.csv").open()))[3]
    assert "is not a JPEG" in row["error"] and row["lon"] == "" and row["embed_ms"] == ""
    geojson = read(out / f"{FLIGHT}.geojson")["features"]
    assert [f["properties"]["frame_index"] for f in geojson if f["properties"]["kind"] == "truth"] == [1, 2, 3, 4, 5, 6]


def test_single_is_one_document_for_the_flight(searched, world):
    flight = world.flight()
    flight.frames[0].path.unlink()
    searched(flight=flight)
    out, done = exported(world, single=True, formats=["json"])
    assert [path.name for path in out.iterdir()] == [f"{FLIGHT}.json"] and done.files == 1
    document = read(out / f"{FLIGHT}.json")
    check(document, "coarse-localization-flight.v1.schema.json")
    assert (document["flight_id"], document["frames"], document["truth_source"]) == (FLIGHT, 6, "labels")
    assert len(document["localizations"]) == 10 and len(document["failures"]) == 2
    for record in document["localizations"]:
        check(record)


def test_geojson_has_an_estimate_for_each_backbone_and_the_truth_once(searched):
    world = searched()
    out, _ = exported(world, formats=["geojson"])
    collection = read(out / f"{FLIGHT}.geojson")
    assert collection["type"] == "FeatureCollection"
    kinds = [feature["properties"]["kind"] for feature in collection["features"]]
    assert (kinds.count("truth"), kinds.count("estimate")) == (6, 12)
    estimate = next(f for f in collection["features"] if f["properties"]["kind"] == "estimate")
    assert estimate["geometry"] == {
        "type": "Point",
        "coordinates": [round(world.centre(0).lon, 7), round(world.centre(0).lat, 7)],
    }
    assert estimate["properties"]["error_m"] == pytest.approx(30.0, rel=5e-3)


def test_kml_has_a_folder_for_the_truth_and_one_for_each_backbone(searched):
    world = searched()
    out, _ = exported(world, formats=["kml"])
    assert [path.name for path in out.iterdir()] == [f"{FLIGHT}.kml"]
    kml = ElementTree.parse(out / f"{FLIGHT}.kml")
    folders = {folder.findtext("{*}name"): folder for folder in kml.iterfind(".//{*}Folder")}
    counts = {name: len(folder.findall("{*}Placemark")) for name, folder in folders.items()}
    assert counts == {"truth": 6, "vits16": 6, "vits16+": 6}
    first = folders["vits16+"].find("{*}Placemark")
    lon, lat = map(float, first.findtext(".//{*}coordinates").split(","))
    assert (lon, lat) == pytest.approx(world.centre(0), abs=1e-7)
    told = {data.get("name"): data.findtext("{*}value") for data in first.iterfind(".//{*}Data")}
    assert (told["frame_index"], told["encoder"]) == ("1", "vits16+")
    assert float(told["error_m"]) == pytest.approx(30.0, rel=5e-3)


def test_names_that_xml_cannot_hold_do_not_spoil_the_kml(searched, world):
    flight = world.flight(1)
    (frame,) = flight.frames
    odd = frame.path.rename(frame.path.with_name("a<b>&\x07\x1b.png"))
    searched(["vits16"], flight=replace(flight, frames=(replace(frame, path=odd),)))
    out, _ = exported(world, formats=["kml"])
    kml = ElementTree.parse(out / f"{FLIGHT}.kml")
    names = {data.findtext("{*}value") for data in kml.iterfind(".//{*}Data[@name='filename']")}
    assert names == {"a<b>&\ufffd\ufffd.png"}


def test_a_flight_across_the_antimeridian_stays_in_one_place(world, make_fake_backbone):
    """Places 150 m apart: the first column lies in the east of the world, the others in its west."""
    across = replace(world, origin=LonLat(179.9995, -17.0))
    backbone = make_fake_backbone("vits16")
    across.embed(backbone)
    run_search(world.db, world.mirrors, across.flight(), [across.reference_set], backbone, k=5)
    out, _ = exported(across)
    features = read(out / f"{FLIGHT}.geojson")["features"]
    assert {f["geometry"]["type"] for f in features} == {"Point"}
    lon = [f["geometry"]["coordinates"][0] for f in features]
    assert all(-180 <= each <= 180 for each in lon) and {each > 0 for each in lon} == {True, False}
    estimates = [f["properties"] for f in features if f["properties"]["kind"] == "estimate"]
    assert len(estimates) == 6 and all(one["error_m"] == pytest.approx(30, rel=0.01) for one in estimates)
    placed = ElementTree.parse(out / f"{FLIGHT}.kml").iterfind(".//{*}coordinates")
    assert sorted(float(each.text.split(",")[0]) for each in placed) == sorted(lon)
    record = read(out / f"{FLIGHT}_00001_vits16.json")
    check(record)
    west, _, east, _ = record["results"][0]["bbox"]
    assert west > east and record["errors"]["inside_footprint"], "as RFC 7946, 5.2 writes a box that crosses"


def test_csv_has_one_row_for_each_frame_and_backbone(searched):
    world = searched()
    out, _ = exported(world, formats=["csv"])
    rows = list(csv.DictReader((out / f"{FLIGHT}.csv").open()))
    assert len(rows) == 12 and {row["encoder"] for row in rows} == {"vits16", "vits16+"}
    assert float(rows[0]["lat"]) == pytest.approx(world.centre(0).lat)
    assert (rows[0]["heading_deg"], rows[0]["agreement"], rows[0]["inside_footprint"]) == ("90.0", "2", "True")


def test_records_and_the_tables_last_columns_say_when_how_high_and_facing_where(searched, world):
    of = world.flight()
    pose = replace(of.frames[0].truth, altitude_label_m=110.0, altitude_datum="takeoff", pitch_deg=-2.5, roll_deg=1.5)
    first = replace(of.frames[0], time=datetime(2025, 11, 24, 15, 57, 12, 500_000), truth=pose)
    clock = FlightClock("exif", 9 * 3600)
    searched(["vits16"], flight=replace(of, frames=(first, *of.frames[1:]), clock=clock))
    out, _ = exported(world)
    record, second = (read(out / f"{FLIGHT}_{index:05d}_vits16.json") for index in (1, 2))
    check(record)
    facts = {
        "taken_at": "2025-11-24T15:57:12.500000", "time_source": "exif", "utc_offset_s": 32400,
        "altitude_label_m": 110.0, "altitude_datum": "takeoff", "yaw_deg": pose.yaw_deg, "pitch_deg": -2.5,
        "roll_deg": 1.5,
    }  # fmt: skip
    assert facts.items() <= record["query"].items()
    assert second["query"]["taken_at"] is None and second["query"]["altitude_datum"] == "unknown"
    row = next(csv.DictReader((out / f"{FLIGHT}.csv").open()))
    columns = [*(name for name in facts if name != "yaw_deg"), "tags", "note"]
    assert list(row)[-len(columns) :] == columns
    assert (row["taken_at"], row["utc_offset_s"], row["pitch_deg"]) == ("2025-11-24 15:57:12.500000", "32400", "-2.5")
    feature = read(out / f"{FLIGHT}.geojson")["features"][0]
    assert feature["properties"]["taken_at"] == "2025-11-24T15:57:12.500000"


def test_nothing_half_written_is_left(searched):
    world = searched(["vits16"])
    out, _ = exported(world)
    exported(world)  # over what is there
    assert not list(out.rglob("*.part"))


def test_mistakes_are_named(searched, world, tmp_path):
    with pytest.raises(StoreError, match="flight '251124155712' is not known"):
        exported(world)
    searched(["vits16"])
    with pytest.raises(InputError, match="format shp is not known"):
        exported(world, formats=["shp"])
    with pytest.raises(StoreError, match="no finished search against 'elsewhere'"):
        exported(world, reference_set="elsewhere")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        export(world.db, world.thumbnails, FLIGHT, tmp_path / "file")


def test_one_frame_can_be_had_without_the_others(searched):
    world = searched()
    from coarseloc.store import flights

    with world.db.read() as session:
        flight = flights.find_flight(session, FLIGHT).flight
    (group,) = group_by_question(newest_runs(world.db, FLIGHT))
    found = list(frame_infos(world.db, world.thumbnails, flight, group, [4]))
    assert [(one.run.spec.backbone, one.info.frame_index) for one in found] == [("vits16", 4), ("vits16+", 4)]


def test_a_record_survives_a_round_trip(searched):
    world = searched(["vits16"])
    out, _ = exported(world)
    document = read(out / f"{FLIGHT}_00001_vits16.json")
    assert CoarseLocalizationInfo.model_validate(document).to_json() == document
