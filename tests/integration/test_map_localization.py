"""`coarseloc localize`: frames found on a whole map, without any embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.simulate.camera import Changes
from coarseloc.simulate.captures import write_captures
from coarseloc.simulate.flight import simulate_flight
from search.map_localization import MapLocalizer

FOOTPRINT_M = 300.0


def textured_map(path: Path, seed: int) -> Path:
    """A map of 1 x 1 km at 2.5 m a pixel: blotches of many sizes, no two places alike."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((400, 400, 3))
    for side in (10, 25, 80, 200):
        coarse = Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8))
        pixels += np.asarray(coarse.resize((400, 400), Image.Resampling.BICUBIC), float) / 4
    image = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    return write_rgb(path, np.asarray(image), center=LonLat(129.0, 37.5), gsd_m=2.5)


@pytest.fixture(scope="module")
def ground_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textured_map(tmp_path_factory.mktemp("map") / "map.tif", seed=1)


@pytest.fixture(scope="module")
def frames(ground_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight of three frames with truth."""
    flight = simulate_flight(
        ground_map, tmp_path_factory.mktemp("flights"), flight_id="f1", frames=3, footprint_m=FOOTPRINT_M, side_px=160,
        seed=5, path="random", changes=Changes.none(),
    )  # fmt: skip
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
    assert (
        coarseloc("localize", frames, "--map", ground_map, "--footprint-m", "300", "--map-sd-m", "2", "--out", out).code
        == 0
    )
    record = json.loads((out / "f1_00001_map.json").read_text())
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
