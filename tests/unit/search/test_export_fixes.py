"""Fixes as other programs read them: layers, overlays, columns, grids; and nothing of the kind without a match."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from recorded_runs import record_fixes

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import METHOD, FixConditions, FrameFix, NoMatch, NotVerified, Pose2D, RunnerUp
from coarseloc.core.types import Covariance, LonLat
from search.export.files import export
from search.export.geometries import unwrapped
from search.export.grid import ProjectedGrid
from search.flight import run_search

SCHEMA_FOLDER = Path(__file__).parents[3] / "schemas"
FLIGHT = "251124155712"
HEADING_DEG = 80.0
MATCHED, UNMATCHED, UNVERIFIED = (1, 2, 3, 4), 5, 6  # frames
GROUND_ERROR_M, AIRCRAFT_ERROR_M = 5.0, 2.0  # to the north and to the east
CONDITIONS = FixConditions(300.0, "given", "gangnam-300m", 1.0, 0.5, "half a pixel", 210.0)


def pose_over(truth: LonLat) -> Pose2D:
    """A fix of a 300 x 150 m frame."""
    ground, aircraft = geo.offset(truth, 0.0, GROUND_ERROR_M), geo.offset(truth, AIRCRAFT_ERROR_M, 0.0)
    upper_left, upper_right, lower_right, lower_left = (
        geo.offset(ground, *geo.turned_m(150.0 * right, 75.0 * ahead, HEADING_DEG))
        for right, ahead in ((-1, 1), (1, 1), (1, -1), (-1, -1))
    )
    return Pose2D(
        ground=ground,
        ground_covariance_m2=Covariance(1.0, 0.0, 9.0),
        aircraft=aircraft,
        aircraft_covariance_m2=Covariance(4.0, 1.0, 16.0),
        heading_deg=HEADING_DEG,
        heading_sd_deg=0.1,
        tilt_deg=1.5,
        tilt_sd_deg=1.0,
        scale=1.01,
        score=0.7,
        margin=0.4,
        hypotheses=9,
        probability=0.99,
        attitude="label",
        method=METHOD,
        fit_digest="f00d",
        corners=(upper_left, upper_right, lower_right, lower_left),
        runner_up=RunnerUp(geo.offset(ground, 900.0, 0.0), 12.0, 0.2),
    )


def fix_of(index: int, truth: LonLat) -> FrameFix:
    if index in MATCHED:
        return FrameFix(pose_over(truth), CONDITIONS)
    if index == UNMATCHED:
        return FrameFix(NoMatch("ambiguous", 0.2, 0.01, 0.03, "f00d", pose_over(truth)), CONDITIONS)
    return FrameFix(NotVerified("gangnam.tif is gone"))


@pytest.fixture
def verify(make_fake_backbone):
    """Search a world's flight, and store a fix of each frame."""

    def search(world, name="vits16", **options):
        backbone = make_fake_backbone(name)
        world.embed(backbone)
        (run_id,) = run_search(world.db, world.mirrors, world.flight(), [world.reference_set], backbone, k=5)
        frames = world.flight().frames
        record_fixes(world.db, run_id, {f.index: fix_of(f.index, f.truth.location) for f in frames})
        return world

    return search


@pytest.fixture
def verified(world, verify):
    return verify(world)


def exported(world, **options):
    out = world.folder / "out"
    return out, export(world.db, world.thumbnails, FLIGHT, out, **options)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def features(out, layer=""):
    return read(out / f"{FLIGHT}{layer}.geojson")["features"]


def truth_of(world, index):
    return world.flight().frames[index - 1].truth.location


def rows_of(out):
    return list(csv.DictReader((out / f"{FLIGHT}.csv").open()))


def folders_of(out):
    kml = ElementTree.parse(out / f"{FLIGHT}.kml")
    return {folder.findtext("{*}name"): folder for folder in kml.iterfind(".//{*}Folder")}


def data_of(mark):
    return {data.get("name"): data.findtext("{*}value") for data in mark.iterfind(".//{*}Data")}


def coordinates(element):
    return [tuple(map(float, text.split(",")[:2])) for text in element.findtext(".//{*}coordinates").split()]


def check(document, name="coarse-localization-info.v1.schema.json"):
    validator = jsonschema.Draft202012Validator(read(SCHEMA_FOLDER / name))
    validator.validate(document)


# --- GeoJSON --------------------------------------------------------------------------------------


def test_the_fixes_points_stand_beside_estimates_and_truth(verified):
    out, done = exported(verified, formats=["geojson"])
    assert {feature["geometry"]["type"] for feature in features(out)} == {"Point"}
    of_kind = {kind: [f for f in features(out) if f["properties"]["kind"] == kind] for kind in ("truth", "fix")}
    assert len(of_kind["truth"]) == 6
    assert [(f["properties"]["frame_index"], f["properties"]["point"]) for f in of_kind["fix"]] == [
        (index, point) for index in MATCHED for point in ("ground", "aircraft")
    ]
    ground, aircraft = of_kind["fix"][:2]
    assert ground["geometry"]["coordinates"] == pytest.approx(pose_over(truth_of(verified, 1)).ground, abs=1e-7)
    assert ground["properties"]["error_m"] == pytest.approx(GROUND_ERROR_M, rel=5e-3)
    assert aircraft["properties"]["error_m"] == pytest.approx(AIRCRAFT_ERROR_M, rel=5e-3)
    assert ground["properties"]["ellipse_major_m"] == pytest.approx(3 * 2.4477, abs=1e-3)
    assert ground["properties"]["ellipse_azimuth_deg"] % 180 == pytest.approx(0)
    assert done.files == 4, "the points, and a file a layer"


def test_each_layer_is_a_file_of_one_kind_of_shape(verified):
    out, _ = exported(verified, formats=["geojson"])
    kinds = {
        layer: {(f["properties"]["kind"], f["geometry"]["type"]) for f in features(out, f"_{layer}")}
        for layer in ("ellipses", "errors", "footprints")
    }
    assert kinds == {
        "ellipses": {("ellipse", "Polygon")},
        "errors": {("error", "LineString")},
        "footprints": {("footprint", "Polygon")},
    }
    frames = [f["properties"]["frame_index"] for f in features(out, "_footprints")]
    assert frames == list(MATCHED)


def test_error_lines_go_from_the_truth_to_the_fix(verified):
    out, _ = exported(verified, formats=["geojson"])
    line = next(f for f in features(out, "_errors") if f["properties"]["frame_index"] == 3)
    start, end = line["geometry"]["coordinates"]
    assert start == pytest.approx(truth_of(verified, 3), abs=1e-7)
    assert end == pytest.approx(pose_over(truth_of(verified, 3)).ground, abs=1e-7)
    assert line["properties"]["error_m"] == pytest.approx(GROUND_ERROR_M, rel=5e-3)


def test_the_footprint_is_turned_as_the_frame_flew_and_counter_clockwise(verified):
    out, _ = exported(verified, formats=["geojson"])
    (ring,) = features(out, "_footprints")[0]["geometry"]["coordinates"]
    corners = pose_over(truth_of(verified, 1)).corners
    assert {tuple(corner) for corner in ring} == {(round(lon, 7), round(lat, 7)) for lon, lat in corners}
    lon, lat = (np.array(ring) - ring[0]).T
    assert np.sum(lon[:-1] * lat[1:] - lon[1:] * lat[:-1]) > 0
    upper_left, upper_right, lower_right, _ = corners
    assert geo.ellipsoid_distance_m(*upper_left, *upper_right) == pytest.approx(300, abs=0.01)
    assert geo.ellipsoid_distance_m(*upper_right, *lower_right) == pytest.approx(150, abs=0.01)


def test_without_a_match_no_layer_has_the_frame_and_its_estimate_says_why(verified):
    out, _ = exported(verified, formats=["geojson"])
    for layer in ("_ellipses", "_errors", "_footprints"):
        assert {UNMATCHED, UNVERIFIED}.isdisjoint(f["properties"]["frame_index"] for f in features(out, layer))
    said = {
        f["properties"]["frame_index"]: (f["properties"]["fix_match"], f["properties"]["fix_reason"])
        for f in features(out)
        if f["properties"]["kind"] == "estimate"
    }
    assert said[1] == (True, None)
    assert said[UNMATCHED] == (False, "ambiguous")
    assert said[UNVERIFIED] == (None, "gangnam.tif is gone")
    rejected = pose_over(truth_of(verified, UNMATCHED)).ground
    places = [f["geometry"]["coordinates"] for f in features(out)]
    assert [round(rejected.lon, 7), round(rejected.lat, 7)] not in places, "a rejected pose is no position"


def test_an_export_without_fixes_has_no_layers_and_empties_old_ones(verified, world, make_fake_backbone):
    out, _ = exported(verified, formats=["geojson"])
    backbone = make_fake_backbone("vits16")
    run_search(world.db, world.mirrors, world.flight(), [world.reference_set], backbone, k=7)
    _, done = exported(world, formats=["geojson"])
    assert done.files == 4 and features(out, "_ellipses") == [] and len(features(out)) == 12
    for layer in out.glob("*_*.geojson"):
        layer.unlink()
    _, done = exported(world, formats=["geojson"])
    assert done.files == 1 and [path.name for path in out.iterdir()] == [f"{FLIGHT}.geojson"]


def test_across_the_antimeridian_every_shape_stays_on_its_side(world, verify):
    """The first column of places lies in the east of the world, the others in its west."""
    across = replace(world, origin=LonLat(179.9995, -17.0))
    out, _ = exported(verify(across))
    cut = 0
    for layer in ("_ellipses", "_errors", "_footprints"):
        for feature in features(out, layer):
            parts = feature["geometry"]["coordinates"]
            multi = feature["geometry"]["type"].startswith("Multi")
            cut += multi
            for part in parts if multi else [parts]:
                lon = np.array(part).reshape(-1, 2)[:, 0]
                assert np.abs(lon).max() <= 180 and np.ptp(lon) < 0.01
    assert cut, "some footprint lies across"
    overlays = ElementTree.parse(out / f"{FLIGHT}.kml").findall(".//{*}GroundOverlay")
    assert all(np.ptp([lon for lon, _ in coordinates(overlay)]) < 0.01 for overlay in overlays)
    check(read(out / f"{FLIGHT}_00001_vits16.json"))


# --- KML ------------------------------------------------------------------------------------------


def test_the_kml_has_a_folder_for_each_layer_of_the_fixes(verified):
    out, _ = exported(verified, formats=["kml"])
    folders = folders_of(out)
    inside = [child.findtext("{*}name") for child in folders["fixes: vits16"].findall("{*}Folder")]
    assert inside == ["points", "ellipses", "error lines", "frames"]
    counts = {name: len(folders[name].findall("{*}Placemark")) for name in ("truth", "vits16", *inside)}
    assert counts == {"truth": 6, "vits16": 6, "points": 8, "ellipses": 8, "error lines": 8, "frames": 0}
    styles = {f"#{style.get('id')}" for style in ElementTree.parse(out / f"{FLIGHT}.kml").iterfind(".//{*}Style")}
    assert {mark.findtext("{*}styleUrl") for mark in folders["ellipses"].findall("{*}Placemark")} == styles
    ring = coordinates(folders["ellipses"].find("{*}Placemark"))
    assert len(ring) == 65 and ring[0] == ring[-1]
    assert np.mean(ring[:-1], axis=0) == pytest.approx(pose_over(truth_of(verified, 1)).ground, abs=1e-7)


def test_a_frame_lies_on_the_earth_by_its_corners_from_the_lower_left_counter_clockwise(verified):
    out, _ = exported(verified, formats=["kml"])
    overlays = folders_of(out)["frames"].findall("{*}GroundOverlay")
    assert [overlay.findtext("{*}name") for overlay in overlays] == [str(index) for index in MATCHED]
    upper_left, upper_right, lower_right, lower_left = pose_over(truth_of(verified, 1)).corners
    quad = overlays[0].find("{http://www.google.com/kml/ext/2.2}LatLonQuad")
    for corner, due in zip(coordinates(quad), (lower_left, lower_right, upper_right, upper_left), strict=True):
        assert corner == pytest.approx(due, abs=1e-7)
    assert {overlay.findtext("{*}visibility") for overlay in overlays} == {"0"}, "until they are ticked"


def test_an_overlays_picture_is_the_frames_file_whatever_its_name(world, verify):
    flight = world.flight()
    odd = flight.frames[0].path.rename(flight.frames[0].path.with_name("강남 #1 & a%20b.png"))
    frames = (replace(flight.frames[0], path=odd, relative_path=odd.name), *flight.frames[1:])
    world.flight = lambda: replace(flight, frames=frames)
    out, _ = exported(verify(world), formats=["kml"])
    href = folders_of(out)["frames"].findtext("{*}GroundOverlay/{*}Icon/{*}href")
    assert href.startswith("file:///") and Path(url2pathname(urlparse(href).path)) == odd


def test_without_a_match_the_kml_has_the_reason_and_no_place_of_a_fix(verified):
    out, _ = exported(verified, formats=["kml"])
    folders = folders_of(out)
    marks = {mark.findtext("{*}name"): data_of(mark) for mark in folders["vits16"].findall("{*}Placemark")}
    assert marks[str(UNMATCHED)]["fix_match"] == "False" and marks[str(UNMATCHED)]["fix_reason"] == "ambiguous"
    for name in ("points", "ellipses", "error lines", "frames"):
        assert str(UNMATCHED) not in {mark.findtext("{*}name") for mark in folders[name]}


# --- CSV ------------------------------------------------------------------------------------------


def test_the_table_has_the_fix_behind_the_columns_of_before(verified):
    out, _ = exported(verified, formats=["csv"])
    rows = rows_of(out)
    names = list(rows[0])
    assert names[names.index("error") + 1 :][:4] == ["fix_match", "fix_reason", "fix_lon", "fix_lat"]
    row, pose = rows[0], pose_over(truth_of(verified, 1))
    assert (row["fix_match"], row["fix_reason"], row["fix_attitude"]) == ("True", "", "label")
    assert (float(row["fix_lon"]), float(row["fix_lat"])) == pytest.approx(tuple(pose.ground))
    assert (float(row["fix_aircraft_lon"]), float(row["fix_aircraft_lat"])) == pytest.approx(tuple(pose.aircraft))
    assert float(row["fix_ellipse_major_m"]) == pytest.approx(3 * 2.4477, abs=1e-3)
    assert float(row["fix_ground_m"]) == pytest.approx(GROUND_ERROR_M, rel=5e-3)
    assert float(row["fix_aircraft_m"]) == pytest.approx(AIRCRAFT_ERROR_M, rel=5e-3)
    assert (float(row["verify_ms"]), float(row["fix_heading_deg"])) == (210.0, HEADING_DEG)
    assert float(row["fix_heading_error_deg"]) == pytest.approx(0.0), "the truth flies at 80° too"


def test_a_row_without_a_match_has_the_reason_and_no_position(verified):
    out, _ = exported(verified, formats=["csv"])
    rows = rows_of(out)
    row, unverified = rows[UNMATCHED - 1], rows[UNVERIFIED - 1]
    assert (row["fix_match"], row["fix_reason"], float(row["fix_probability"])) == ("False", "ambiguous", 0.03)
    assert (unverified["fix_match"], unverified["fix_reason"]) == ("", "gangnam.tif is gone")
    for name in row:
        if name.startswith("fix_") and name.endswith(("lon", "lat", "_m", "heading_deg", "azimuth_deg")):
            assert row[name] == unverified[name] == "", name
    assert row["lon"] != "", "the best place is another answer"


# --- by the fix alone -----------------------------------------------------------------------------


def test_by_the_method_fix_frames_without_a_match_are_failures_without_any_position(verified):
    out, done = exported(verified, method="fix")
    assert (done.records, done.failures, done.unmatched) == (4, 2, 2)
    assert "2 have no fix" in str(done) and "could not be searched" not in str(done)
    estimates = [f for f in features(out) if f["properties"]["kind"] == "estimate"]
    assert [f["properties"]["frame_index"] for f in estimates] == list(MATCHED)
    assert estimates[0]["geometry"]["coordinates"] == pytest.approx(pose_over(truth_of(verified, 1)).aircraft, abs=1e-7)
    assert estimates[0]["properties"]["method"] == "fix"
    reasons = {UNMATCHED: "no match: ambiguous", UNVERIFIED: "not verified: gangnam.tif is gone"}
    failures = read(out / f"{FLIGHT}.geojson")["failures"]
    assert {failure["frame_index"]: failure["error"] for failure in failures} == reasons
    marks = folders_of(out)["failures"].findall("{*}Placemark")
    assert {int(mark.findtext("{*}name")): data_of(mark)["error"] for mark in marks} == reasons
    assert all(mark.find(".//{*}coordinates") is None for mark in marks)
    rows = rows_of(out)
    for index, reason in reasons.items():
        row = rows[index - 1]
        assert row["error"] == reason and row["lon"] == row["fix_lon"] == row["fix_aircraft_lon"] == ""
    assert rows[UNMATCHED - 1]["fix_reason"] == "ambiguous"


def test_every_record_is_what_the_schemas_say(verified):
    for method in ("best-place", "fix"):
        for crs in (None, "EPSG:32652"):
            out, _ = exported(verified, method=method, crs=crs)
            for path in out.glob("*_vits16.json"):
                check(read(path))
            exported(verified, method=method, crs=crs, single=True, formats=["json"])
            check(read(out / f"{FLIGHT}.json"), "coarse-localization-flight.v1.schema.json")


# --- the users' own grid --------------------------------------------------------------------------


def test_positions_have_x_and_y_in_the_grid_that_is_asked_for(verified):
    out, done = exported(verified, crs="epsg:32652")
    assert (done.crs, done.crs_accuracy_m) == ("EPSG:32652", 0.0) and "EPSG:32652, on the datum of WGS84" in str(done)
    record = read(out / f"{FLIGHT}_00001_vits16.json")
    fix, row, pose = record["estimate"]["fix"], rows_of(out)[0], pose_over(truth_of(verified, 1))
    grids = [record["estimate"]["grid"], record["truth"]["grid"], fix["ground"]["grid"], fix["aircraft"]["grid"]]
    assert {grid["crs"] for grid in grids} == {"EPSG:32652"} == {row["crs"]}
    for prefix, grid in zip(("", "truth_", "fix_", "fix_aircraft_"), grids, strict=True):
        assert (float(row[f"{prefix}x"]), float(row[f"{prefix}y"])) == (grid["x"], grid["y"])
    # UTM's scale at 127.03° E, two degrees off its central meridian, is 0.99997; north turns by 1.2°.
    steps = [(grid["x"] - grids[1]["x"], grid["y"] - grids[1]["y"]) for grid in grids]
    assert math.hypot(*steps[2]) == pytest.approx(GROUND_ERROR_M, abs=0.01)
    assert math.degrees(math.atan2(*steps[2])) == pytest.approx(1.2, abs=0.1)
    assert math.hypot(*steps[3]) == pytest.approx(AIRCRAFT_ERROR_M, abs=0.01)
    assert pose.ground.lon == fix["ground"]["lon"], "degrees stay as they are"
    points = {f["properties"].get("point", f["properties"]["kind"]): f["properties"] for f in features(out)[::-1]}
    for name, grid in zip(("estimate", "truth", "ground", "aircraft"), grids, strict=True):
        assert {key: points[name][key] for key in ("crs", "x", "y")} == grid


def test_a_row_without_a_match_has_no_x_and_y_of_a_fix(verified):
    out, _ = exported(verified, crs="EPSG:32652", method="fix")
    row = rows_of(out)[UNMATCHED - 1]
    assert {row[name] for name in ("x", "y", "fix_x", "fix_y", "fix_aircraft_x", "fix_aircraft_y")} == {""}
    assert float(row["truth_x"]) > 0


def test_without_a_grid_the_keys_are_null_and_the_columns_are_not_there(verified):
    out, done = exported(verified)
    estimate = read(out / f"{FLIGHT}_00001_vits16.json")["estimate"]
    assert (estimate["grid"], estimate["fix"]["ground"]["grid"], done.crs) == (None, None, None)
    assert {"crs", "x", "y"}.isdisjoint(rows_of(out)[0]) and "x" not in features(out)[0]["properties"]


@pytest.mark.parametrize(
    ("crs", "reason"),
    [
        ("EPSG:99999", "is not known to PROJ"),
        ("UTM 52", "expected an authority and its code, such as EPSG:32652"),
        ("EPSG:4326", "is geographic: its coordinates are degrees"),
        ("EPSG:4978", "is no map's grid"),
        ("EPSG:2099", "no transformation from WGS84 to its datum but a rough one"),
        ("EPSG:27700", "British National Grid.* is for positions from -9.01, 49.75 to 2.01, 61.01"),
        ("EPSG:32633", "not for 127.0"),
    ],
)
def test_a_grid_that_does_not_serve_is_refused_before_anything_is_written(verified, crs, reason):
    with pytest.raises(InputError, match=reason):
        exported(verified, crs=crs)
    assert not list(verified.folder.glob("out/*"))


def test_a_grid_serves_a_little_beyond_its_area_and_across_the_antimeridian():
    belt = ProjectedGrid("EPSG:5186")  # 126° to 128° E
    assert belt.position(128.5, 37.0).x > belt.position(127.9, 37.0).x
    assert belt.accuracy_m == 1.0, "as EPSG states it of Korea 2000"
    fiji = ProjectedGrid("EPSG:3460")  # from 176.81° E to 178.15° W
    east, west = fiji.position(179.999, -17.0), fiji.position(-179.999, -17.0)
    assert west.x - east.x == pytest.approx(0.002 * geo.metres_per_degree(-17.0)[0], abs=0.5)
    with pytest.raises(InputError, match=r"is for positions from 176\.81"):
        fiji.position(-170.0, -17.0)


def test_corners_across_the_antimeridian_go_on_beyond_180():
    assert unwrapped([LonLat(179.9, 1.0), LonLat(-179.9, 2.0)]) == [(179.9, 1.0), (pytest.approx(180.1), 2.0)]
