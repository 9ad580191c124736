"""`coarseloc localize`: frames found on a whole map, without any embedding."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from registration_scenes import pictured
from textured_maps import textured_map

from coarseloc.core import geo
from coarseloc.core.camera import ALTITUDE_AND_FOV, REFERENCE_FOOTPRINT, Camera, Distortion
from coarseloc.core.fixes import Pose2D
from coarseloc.core.types import BBox, Flight, LonLat, Near
from coarseloc.imagery.flight_toml import FILE_NAME
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.simulate.camera import Changes
from coarseloc.simulate.captures import write_captures
from coarseloc.simulate.flight import simulate_flight
from search.map_localization import MapLocalization, MapLocalizer

FOOTPRINT_M = 300.0


@pytest.fixture(scope="module")
def ground_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textured_map(tmp_path_factory.mktemp("map") / "map.tif", seed=1)


@pytest.fixture(scope="module")
def frames(ground_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight of three frames with truth, of whose camera nobody said anything."""
    flight = simulate_flight(
        ground_map, tmp_path_factory.mktemp("flights"), flight_id="f1", frames=3, footprint_m=FOOTPRINT_M, side_px=160,
        seed=5, path="random", changes=Changes.none(),
    )  # fmt: skip
    (flight.path / FILE_NAME).unlink()
    return flight.path


def test_frames_are_found_in_metres_with_an_ellipse(coarseloc, ground_map, frames):
    records = coarseloc("localize", frames, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json").json
    assert len(records) == 3
    for record in records:
        fix = record["estimate"]["fix"]
        assert fix["match"] is True and fix["reason"] is None and fix["probability"] > 0.9
        assert record["errors"]["fix_ground_m"] < 2.5 and record["errors"]["heading_error_deg"] < 0.5
        ellipse = fix["ground"]["ellipse_95"]
        assert 0 < ellipse["minor_m"] <= ellipse["major_m"] < 20
        assert fix["aircraft"] is None and record["errors"]["fix_aircraft_m"] is None  # no field of view was given


def test_a_field_of_view_gives_the_aircrafts_own_position(coarseloc, ground_map, frames):
    options = ("--map", ground_map, "--footprint-m", FOOTPRINT_M, "--fov-deg", "60", "--json")
    (record,) = coarseloc("localize", frames / "f1_00001.jpg", *options).json
    fix = record["estimate"]["fix"]
    assert fix["aircraft"]["ellipse_95"]["major_m"] > fix["ground"]["ellipse_95"]["major_m"]  # its tilt is estimated
    assert fix["attitude"] == "estimated" and record["truth"] is None and record["errors"] is None


@pytest.mark.parametrize("kind", ["one colour", "another place"])
def test_what_is_not_on_the_map_gets_no_match_and_no_position(coarseloc, ground_map, tmp_path, kind):
    image = tmp_path / "frame.png"
    if kind == "one colour":
        Image.new("RGB", (160, 160), (90, 110, 80)).save(image)
    else:
        other = textured_map(tmp_path / "other.tif", seed=77)
        with Image.open(other) as picture:
            picture.crop((50, 50, 170, 170)).resize((160, 160)).save(image)
    shown = coarseloc("localize", image, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json")
    fix = shown.json[0]["estimate"]["fix"]
    assert fix["match"] is False and fix["reason"] in ("ambiguous", "no-ground")
    assert fix["ground"] is None and fix["aircraft"] is None and fix["heading_deg"] is None


def test_an_interrupted_run_goes_on_where_it_was(coarseloc, ground_map, frames, tmp_path, monkeypatch):
    command = ("localize", frames, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--out", tmp_path / "out")
    counted: list[int] = []
    register = MapLocalizer.localize

    def stop_at_the_third(self, frame):
        counted.append(frame.index)
        if len(counted) == 3:
            raise KeyboardInterrupt
        return register(self, frame)

    monkeypatch.setattr(MapLocalizer, "localize", stop_at_the_third)
    assert coarseloc(*command).code == 130
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    assert coarseloc(*command).code == 0 and counted == [1, 2, 3, 3]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["f1_00001_map.json", "f1_00002_map.json", "f1_00003_map.json"]
    other_question = (*command[:5], "310", *command[6:])
    assert coarseloc(*other_question).code == 0 and counted[4:] == [1, 2, 3]


def test_a_frame_that_cannot_be_read_is_said_and_the_rest_go_on(coarseloc, ground_map, frames, tmp_path):
    folder = tmp_path / "f2"
    folder.mkdir()
    (folder / "f2_00001.jpg").write_bytes(b"no image")
    (folder / "f2_00002.jpg").write_bytes((frames / "f1_00002.jpg").read_bytes())
    records = coarseloc("localize", folder, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json").json
    assert records[0]["estimate"] is None and "f2_00001.jpg" in records[0]["error"]
    assert records[1]["estimate"]["fix"]["match"] is True


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--footprint-m"),
        (("--footprint-m", "300", "--near", "10,10,100"), "does not reach"),
        (("--footprint-m", "300", "--near", "10,10"), "near"),
        (("--footprint-m", "300", "--device", "cuda:9"), "cuda:9"),
    ],
)
def test_what_cannot_be_localized_is_refused_in_a_line(coarseloc, ground_map, frames, options, says):
    refused = coarseloc("localize", frames, "--map", ground_map, *options)
    assert refused.code == 2 and says in refused.err


def test_a_map_that_is_none_is_refused(coarseloc, frames, tmp_path):
    (tmp_path / "map.tif").write_bytes(b"no raster")
    refused = coarseloc("localize", frames, "--map", tmp_path / "map.tif", "--footprint-m", "300")
    assert refused.code == 2 and "map.tif" in refused.err


def test_the_record_holds_what_was_asked(coarseloc, ground_map, frames, tmp_path):
    out = tmp_path / "out"
    asked = ("--map", ground_map, "--footprint-m", "300", "--map-sd-m", "2", "--out", out)
    assert coarseloc("localize", frames / "f1_00001.jpg", *asked).code == 0
    record = json.loads((out / "f1_00001_00001_map.json").read_text())  # a picture alone is a flight of its own name
    assert record["map"]["registration_sd_m"] == 2.0 and record["map"]["registration_sd_source"] == "given"
    assert record["map"]["gsd_m"] == pytest.approx(2.5, abs=0.01)
    assert record["query"]["footprint_m"] == 300.0 and record["query"]["footprint_source"] == "given"


def test_a_reference_sets_captures_are_laid_together_as_its_map(coarseloc, ground_map, tmp_path, tiny_dinov3):
    cut = open_orthophoto(ground_map, footprint_m=250, altitude_m=200, angles=(0, 90), tile_px=160)
    captures = tmp_path / "captures"
    write_captures(cut, captures)
    assert coarseloc("ingest", "captures", captures, "--backbone", "tiny", "--footprint-m", "250").code == 0
    flight = simulate_flight(
        ground_map, tmp_path, flight_id="f9", frames=2, footprint_m=250, side_px=160, seed=8, path="random",
        changes=Changes.none(),
    )  # fmt: skip
    (flight.path / FILE_NAME).unlink()
    name = coarseloc("references", "list", "--json").json[0]["name"]
    records = coarseloc("localize", flight.path, "--reference-set", name, "--json").json
    for record in records:
        assert record["query"]["footprint_source"] == "the reference set's footprint"
        assert record["map"]["name"] == f"reference set {name}"
        assert record["estimate"]["fix"]["match"] is True and record["errors"]["fix_ground_m"] < 5
    next(path for path in captures.rglob("*_000*/*.jpg")).unlink()
    refused = coarseloc("localize", flight.path, "--reference-set", name)
    assert refused.code == 2 and "captures are not where they were" in refused.err


def test_a_map_and_a_reference_set_are_one_too_many(coarseloc, ground_map, frames):
    for options in ((), ("--map", ground_map, "--reference-set", "x")):
        refused = coarseloc("localize", frames, *options, "--footprint-m", "300")
        assert refused.code == 2 and "--reference-set" in refused.err


# --- the camera -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tilted(ground_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight of four frames with tilt, altitude labels and its camera's flight.toml."""
    flight = simulate_flight(
        ground_map, tmp_path_factory.mktemp("tilted"), flight_id="f6", frames=4, footprint_m=FOOTPRINT_M, side_px=160,
        seed=6, path="random", altitude_m=250.0, changes=Changes(2.0, 0.04, 0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    return flight.path


def copied(flight: Path, folder: Path, *, raised_m: float | None = 0.0, toml: str | None = None) -> Path:
    """The same flight with other altitude labels (None: the second frame has none) and another flight.toml."""
    shutil.copytree(flight, folder)
    labels = json.loads((folder / "labels.json").read_text())
    for number, label in enumerate(labels["images"]):
        if raised_m is not None:
            label["position"]["altitude"] += raised_m
        elif number == 1:
            label["position"]["altitude"] = None
    (folder / "labels.json").write_text(json.dumps(labels))
    if toml is not None:
        (folder / FILE_NAME).write_text(toml)
    return folder


def test_the_flights_own_camera_gives_width_and_aircraft(coarseloc, ground_map, tilted):
    shown = coarseloc("localize", tilted, "--map", ground_map, "--json")
    assert shown.err == ""
    for record in shown.json:
        assert record["query"]["footprint_source"] == ALTITUDE_AND_FOV
        assert record["query"]["fov_deg"] == pytest.approx(61.93, abs=0.01)
        assert record["estimate"]["fix"]["attitude"] == "label" and record["errors"]["fix_aircraft_m"] < 1.5


def test_options_come_before_a_camera_file_and_that_before_the_flights_own(coarseloc, ground_map, tilted, tmp_path):
    file = tmp_path / "camera.toml"
    file.write_text("[camera]\nfov_deg = 50\nstabilised = true\nmount_yaw_deg = 90\n")
    options = ("--map", ground_map, "--camera", file, "--footprint-m", "300", "--not-stabilised", "--json")
    record = coarseloc("localize", tilted / "f6_00001.jpg", *options).json[0]["query"]
    assert (record["footprint_m"], record["fov_deg"], record["stabilised"]) == (300.0, 50.0, False)
    assert record["mount_yaw_deg"] == 90.0
    file.write_text("[camera]\nfov = 50\n")
    refused = coarseloc("localize", tilted, *options)
    assert refused.code == 2 and "camera.toml: `[camera] fov` is unknown" in refused.err


def test_a_camera_mounted_askew_finds_the_aircraft_and_the_frames_heading(coarseloc, ground_map, tilted, tmp_path):
    """The same pictures, told of an aircraft that flew 90° to the left of where their upper edge faces."""
    folder = copied(tilted, tmp_path / "askew", toml=(tilted / FILE_NAME).read_text() + "")
    labels = json.loads((folder / "labels.json").read_text())
    for label in labels["images"]:
        attitude = label["attitude"]
        attitude["yaw"] = (attitude["yaw"] - 90.0) % 360.0
        attitude["pitch"], attitude["roll"] = attitude["roll"], -attitude["pitch"]  # to the first order
    (folder / "labels.json").write_text(json.dumps(labels))
    text = (folder / FILE_NAME).read_text()
    (folder / FILE_NAME).write_text(text.replace("[camera]", "[camera]\nmount_yaw_deg = 90"))
    for record in coarseloc("localize", folder, "--map", ground_map, "--json").json:
        assert record["errors"]["heading_error_deg"] < 0.5 and record["errors"]["fix_aircraft_m"] < 1.5


def test_a_frame_whose_width_nothing_says_is_said_and_the_rest_go_on(coarseloc, ground_map, tilted, tmp_path):
    folder = copied(tilted, tmp_path / "f7", raised_m=None)
    out = tmp_path / "out"
    shown = coarseloc("localize", folder, "--map", ground_map, "--out", out, "--json")
    assert shown.code == 0
    assert [record["error"] is None for record in shown.json] == [True, False, True, True]
    record = shown.json[1]
    assert "no label gives its altitude" in record["error"] and record["query"]["footprint_m"] is None
    assert record["estimate"] is None and record["errors"] is None
    assert coarseloc("localize", folder, "--map", ground_map, "--out", out, "--json").json[1] == record


def test_an_answered_flight_is_not_registered_again(coarseloc, ground_map, tilted, tmp_path, monkeypatch):
    command = ("localize", tilted, "--map", ground_map, "--out", tmp_path / "out", "--json")
    answered = coarseloc(*command).json
    monkeypatch.setattr(MapLocalizer, "_localize", None)
    assert coarseloc(*command).json == answered


def width_m(folder: Path) -> float:
    """The median of the first three frames on the ground."""
    flight = open_flight(folder)
    return float(np.median([flight.camera.footprint("", f.truth.altitude_label_m).metres for f in flight.frames[:3]]))


def poses_of(localizer: MapLocalizer, flight: Flight) -> list[Pose2D]:
    """Of a flight's first three frames, all of which match."""
    poses = [localizer.localize(frame).fix.pose for frame in flight.frames[:3]]
    assert all(isinstance(pose, Pose2D) for pose in poses)
    return poses


def error_m(poses: list[Pose2D], flight: Flight) -> float:
    """The median of the aircraft's position."""
    pairs = zip(poses, flight.frames[:3], strict=True)
    return float(np.median([geo.distance_m(*pose.aircraft, *frame.truth.location) for pose, frame in pairs]))


def test_a_width_said_30_percent_wrong_is_scanned_on_the_first_frames(ground_map, tilted):
    flight = open_flight(tilted)
    localizer = MapLocalizer(
        OrthophotoWindows(ground_map), "map", Camera(), reference_footprint_m=1.3 * FOOTPRINT_M
    )  # fmt: skip
    (notice,) = localizer.fit_widths(flight.frames)
    metres, source = localizer.footprint(flight.frames[3])
    assert metres == pytest.approx(width_m(tilted), rel=0.02) and REFERENCE_FOOTPRINT in source
    assert source.startswith("scale scanned on the first frames: 0.7") and "(390 m)" in notice and "0.7" in notice
    assert isinstance(localizer.localize(flight.frames[3]).fix.pose, Pose2D)


def test_altitudes_above_sea_are_found_out_by_the_references_width(ground_map, tilted, tmp_path):
    flight = open_flight(copied(tilted, tmp_path / "sea", raised_m=600.0))
    localizer = MapLocalizer(
        OrthophotoWindows(ground_map), "map", flight.camera, reference_footprint_m=1.1 * FOOTPRINT_M
    )  # fmt: skip
    assert localizer.footprint(flight.frames[0]).metres > 900.0
    (notice,) = localizer.fit_widths(flight.frames)
    metres, source = localizer.footprint(flight.frames[0])
    assert metres == pytest.approx(width_m(tilted), rel=0.02) and REFERENCE_FOOTPRINT in source
    assert ALTITUDE_AND_FOV in notice and "--footprint-m" in notice
    assert error_m(poses_of(localizer, flight), flight) < 1.0


def test_a_width_that_fits_the_first_frames_is_not_scanned_and_they_are_not_registered_twice(
    ground_map, tilted, monkeypatch
):
    registered: list[tuple[int, int]] = []
    localize = MapLocalizer._localize

    def counted(self, frame, width, settings):
        registered.append((frame.index, len(settings.hypotheses.scales)))
        return localize(self, frame, width, settings)

    monkeypatch.setattr(MapLocalizer, "_localize", counted)
    flight = open_flight(tilted)
    localizer = MapLocalizer(OrthophotoWindows(ground_map), "map", flight.camera)
    assert localizer.fit_widths(flight.frames) == []
    answers: list[MapLocalization] = [localizer.localize(frame) for frame in flight.frames]
    assert registered == [(index, 3) for index in range(1, 5)]
    assert [answer.frame.index for answer in answers] == [1, 2, 3, 4]


def test_a_distorted_frame_is_found_as_well_as_a_straight_one(ground_map, tilted, tmp_path):
    distortion = Distortion(-0.25, 0.08, 0.004, -0.003, 0.0)
    flight = open_flight(tilted)
    folder = copied(tilted, tmp_path / "distorted")
    for path in folder.glob("*.jpg"):
        Image.fromarray(pictured(np.asarray(Image.open(path)), distortion, 0.6)).save(path, quality=95)
    distorted = open_flight(folder)
    source, told = OrthophotoWindows(ground_map), replace(flight.camera, distortion=distortion)
    straight = poses_of(MapLocalizer(source, "map", flight.camera), flight)
    corrected = poses_of(MapLocalizer(source, "map", told), distorted)
    untold = poses_of(MapLocalizer(source, "map", flight.camera), distorted)
    assert error_m(corrected, flight) < error_m(straight, flight) + 0.3
    scores = [np.median([pose.score for pose in poses]) for poses in (straight, corrected, untold)]
    assert scores[1] > scores[0] - 0.08 and scores[1] > scores[2] + 0.1


# --- a part of the map ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "near", "part"),
    [
        (BBox(179.0, 10.0, -179.0, 12.0), Near(179.9, 11.0, 50_000), (179.443, -179.643)),
        (BBox(179.0, 10.0, -179.0, 12.0), Near(-179.9, 11.0, 50_000), (179.643, -179.443)),
        (BBox(-180.0, 10.0, -179.0, 12.0), Near(179.9, 11.0, 50_000), (-180.0, -179.643)),
        (BBox(126.0, 10.0, 128.0, 12.0), Near(127.0, 11.0, 50_000), (126.543, 127.457)),
        (BBox(126.9, 10.0, 127.1, 12.0), Near(127.0, 11.0, 50_000), (126.9, 127.1)),
        (BBox(-180.0, -80.0, 180.0, 80.0), Near(179.8, 0.0, 111_319.5), (178.8, -180.0)),
    ],
)
def test_a_part_of_the_map_may_lie_across_the_antimeridian(bounds, near, part):
    class Source:
        gsd_m = 10.0

        def window(self, center, side_m, gsd_m):
            raise AssertionError("nothing is looked for")

    source = Source()
    source.bounds = bounds
    found = MapLocalizer(source, "map", Camera(), near=near).map.bounds
    assert (found.west, found.east) == pytest.approx(part, abs=1e-3)


def test_a_flight_beside_the_antimeridian_is_found_near_a_position_across_it(coarseloc, tmp_path):
    file = textured_map(tmp_path / "map.tif", seed=3, center=LonLat(180.0, -16.5))
    flight = simulate_flight(
        file, tmp_path, flight_id="f8", frames=1, footprint_m=FOOTPRINT_M, side_px=160, seed=2, path="random",
        changes=Changes.none(),
    )  # fmt: skip
    lon, lat = flight.frames[0].truth.location
    across = geo.offset(LonLat(lon, lat), -100.0 if lon < 0 else 100.0, 50.0)
    near = f"{across.lon:.6f},{across.lat:.6f},400"
    (record,) = coarseloc("localize", flight.path, "--map", file, "--near", near, "--json").json
    assert record["estimate"]["fix"]["match"] is True and record["errors"]["fix_ground_m"] < 2.5
