"""The commands that doubt a map or a flight, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import rasterio

from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_rgb

SCHEMAS = Path(__file__).parents[2] / "schemas"


def check(document, name):
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text(encoding="utf-8"))).validate(document)


def test_localizability_of_captures_says_shares_and_writes_rasters_and_a_page(coarseloc, ingested, tmp_path):
    page, rasters = tmp_path / "page.html", tmp_path / "rasters"
    answer = coarseloc("localizability", "--geotiff", rasters, "--html", page, "--lang", "ko", "--json").json
    check(answer, "localizability-info.v1.schema.json")
    (ground,) = answer["backbones"]
    assert ground["views"] == 12 and ground["places"] == 6 and set(ground["share_by_heading"]) == {"0", "45"}
    assert answer["footprint_m"] == pytest.approx(300, abs=0.01)
    assert answer["not_measured"] == ["backbone", "altitude"]
    assert [gain["kind"] for gain in answer["gains"]] == ["heading"]
    for path in answer["rasters"]:
        with rasterio.open(path) as raster:
            assert raster.crs.to_epsg() == 4326 and raster.height == 4
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 2 and "예상 오차" in text and 'src="http' not in text


def test_localizability_of_an_unknown_set_names_those_that_are_here(coarseloc, ingested):
    result = coarseloc("localizability", "elsewhere")
    assert result.code == 2 and "captures-300m-50" in result.err


def test_truth_check_of_a_flight_that_was_never_fixed_cannot_say(coarseloc, ingested, flight, tmp_path):
    unknown = coarseloc("truth-check", flight)
    assert unknown.code == 2 and "251124155712" in unknown.err
    assert coarseloc("search", flight, "--no-verify").code == 0
    page, corrections = tmp_path / "page.html", tmp_path / "labels.csv"
    answer = coarseloc("truth-check", flight, "--html", page, "--csv", corrections, "--lang", "ko", "--json").json
    check(answer, "truth-check-info.v1.schema.json")
    assert answer["counts"] == {"not contradicted": 0, "contradicted": 0, "cannot say": 4}
    assert answer["witnesses"] == ["best place (run 1, tiny)"] and answer["off_map"] == 0
    assert len(corrections.read_text().splitlines()) == 5 and "영상" in page.read_text(encoding="utf-8")
    assert coarseloc("search", flight, "--labels", corrections, "--no-verify", "--json").json[0]["frames"] == 4


def test_preflight_of_captures_and_their_flight_is_ok_and_records_nothing(coarseloc, flight, tmp_path):
    page = tmp_path / "page.html"
    arguments = ("--flight", flight, "--backbone", "tiny", "--html", page, "--lang", "ko")
    answer = coarseloc("preflight", tmp_path / "captures", *arguments, "--json").json
    check(answer, "preflight-info.v1.schema.json")
    assert [source["tiles"] for source in answer["sources"]] == [6] and answer["flight"]["off_map"] == 0
    (backbone,) = answer["backbones"]
    assert (backbone["embeddings"], backbone["views"]) == (12, 12) and backbone["embed_ms"] > 0
    coarse = next(finding["sentence"] for finding in answer["findings"] if finding["key"] == "coarse")
    assert "A footprint of 300 m is only 64 pixels of" in coarse
    assert answer["ingest_minutes"] > 0 and answer["disk_free_bytes"] > answer["disk_needed_bytes"] > 0
    assert "사전 점검" in page.read_text(encoding="utf-8")
    assert coarseloc("references", "list", "--json").json == []


def test_preflight_of_a_stored_set_counts_only_what_is_missing(coarseloc, ingested, flight):
    answer = coarseloc("preflight", "captures-300m-50", "--quick", "--json").json
    assert [(b["backbone"], b["embeddings"], b["embed_ms"]) for b in answer["backbones"]] == [("tiny", 0, None)]


def test_preflight_says_no_for_a_wrong_map_missing_weights_and_what_cannot_be_opened(coarseloc, ingested, flight):
    labels = flight / "labels.json"
    labels.write_text(labels.read_text().replace('"longitude": 127.', '"longitude": 12.'))
    far = coarseloc("preflight", "--flight", flight, "--quick")
    assert far.code == 2 and "4 of 4 frames lie where no reference shows the ground" in far.err
    missing = coarseloc("preflight", "--backbone", "vitl16sat", "--quick")
    assert missing.code == 2 and "The weights of vitl16sat are not here" in " ".join(missing.err.split())
    gone = coarseloc("preflight", "elsewhere.tif", "--quick")
    assert gone.code == 2 and "elsewhere.tif is no file" in gone.err


def test_preflight_takes_a_folder_of_sheets_as_one_map_and_says_what_is_doubtful_of_it(coarseloc, tmp_path):
    pixels = np.random.default_rng(2).integers(0, 255, (50, 50, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_rgb(tmp_path / "sheets" / "a.tif", pixels, center=LonLat(127.03, 37.5), gsd_m=2.0)
    arguments = (tmp_path / "sheets", "--footprint-m", 200, "--backbone", "tiny", "--quick")
    answer = coarseloc("preflight", *arguments, "--json").json
    assert answer["verdict"] == "doubtful" and answer["sources"][0]["crs"] == "EPSG:32652"
    assert [finding["key"] for finding in answer["findings"] if finding["level"] != "ok"] == ["coarse"]
    ingest = coarseloc("ingest", "orthophoto", *arguments[:-1], "--angles", "0")
    assert "preflight: doubtful: A footprint of" in " ".join(ingest.err.split())
