"""Maps and flights before hours are spent: what speaks against them, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.types import Failure, Flight, Frame, LonLat, Pose
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.localize.metrics import map_overlap
from search.preflight import cost
from search.preflight.cost import EncoderCost
from search.preflight.doubts import ingest_doubts, search_doubts
from search.preflight.findings import SENTENCES, Finding, worst
from search.preflight.flight_facts import flight_facts, flight_findings, frame_findings, overlap_findings
from search.preflight.map_facts import (
    map_findings,
    places_of,
    sample_findings,
    sample_tiles,
    source_facts,
)

CENTER = LonLat(127.03, 37.5)


@pytest.fixture
def area(tmp_path: Path) -> Path:
    """1,200 m of ground at 2 m; its north-west quarter is one grey, but for the edge: a border were no ground."""
    pixels = np.random.default_rng(4).integers(0, 255, (60, 60, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    pixels[10:300, 10:300] = 118
    return write_rgb(tmp_path / "area.tif", pixels, center=CENTER, gsd_m=2.0)


def flight_at(tmp_path, spots, **pose):
    folder = tmp_path / "flight"
    folder.mkdir(exist_ok=True)
    frames = []
    for n, spot in enumerate(spots, start=1):
        Image.new("RGB", (64, 48), (n, 90, 40)).save(folder / f"f_{n}.jpg")
        frames.append(Frame(n, folder / f"f_{n}.jpg", f"f_{n}.jpg", Pose(spot, **pose)))
    return Flight("flight", folder, tuple(frames), truth_source="labels")


def by_key(findings):
    return {finding.key: finding for finding in findings}


def test_a_map_says_its_crs_resolution_and_coverage(area):
    source = open_orthophoto(area, footprint_m=400, angles=(0, 90))
    facts = source_facts(source)
    assert facts.crs == "EPSG:32652" and facts.gsd_m == pytest.approx(2.0, rel=1e-2) and facts.picture_px == 200
    assert facts.tiles == 16 or facts.tiles == 25
    side_km = geo.box_size_m(facts.box)[0] / 1e3
    assert facts.ground_km2 == pytest.approx(side_km**2, rel=0.02) and facts.holes == 0
    findings = by_key(map_findings(facts))
    assert (
        findings["crs"].sentence()
        == f"{facts.name} is in EPSG:32652, 2.00 m a pixel; a tile of 400 m is 200 px a side."
    )
    assert worst(list(findings.values())) == "ok" and f"{2 * facts.tiles} views" in findings["cover"].sentence()


def test_holes_lacking_headings_and_coarse_maps_are_doubtful(area):
    source = open_orthophoto(area, footprint_m=200, angles=(0, 90))
    source.tiles = [tile for tile in source.tiles if tile.index not in range(30, 50)]
    source.failures = [Failure("x", "list", "missing-label", "no label")]
    findings = by_key(map_findings(replace(source_facts(source), uneven=3)))
    assert {key for key, finding in findings.items() if finding.level == "doubtful"} == {
        "coarse", "holes", "uneven", "unusable",
    }  # fmt: skip
    assert "20 of" in findings["holes"].sentence() and "100 pixels" in findings["coarse"].sentence()


def test_tiles_of_one_colour_and_without_contrast_are_counted(area):
    sample = sample_tiles(open_orthophoto(area, footprint_m=200, angles=(0,)))
    assert (
        sample.blank and len(sample.plain) < len(sample.blank) and sample.read_s > 0 and sample.thumbnail_bytes >= 4096
    )
    blank = by_key(sample_findings("area", sample))["blank"]
    assert blank.level == "doubtful" and f"{len(sample.blank)} of {len(sample.tiles)} tiles" in blank.sentence()
    assert by_key(sample_findings("area", replace(sample, blank=sample.tiles)))["blank"].level == "no"
    assert by_key(sample_findings("area", replace(sample, blank=(), plain=sample.blank)))["plain"].level == "doubtful"


@pytest.mark.parametrize(
    ("east_m", "key", "level"), [([0, 50, 90], "on-map", "ok"), ([0, 50, 9e4], "partly-off", "doubtful"),
                                 ([9e4, 9e4, 0], "off-map", "no")],
)  # fmt: skip
def test_a_flight_is_held_against_the_ground_that_the_map_shows(area, tmp_path, east_m, key, level):
    flight = flight_at(tmp_path, [geo.offset(CENTER, metres, 0.0) for metres in east_m])
    places = places_of(open_orthophoto(area, footprint_m=400).tiles)
    (finding,) = overlap_findings(map_overlap(flight.frames, places))
    assert (finding.key, finding.level) == (key, level) and (key == "on-map" or "90 km" in finding.sentence())


def test_a_flight_says_what_it_knows_and_frames_of_another_width_are_doubtful(area, tmp_path):
    source = source_facts(open_orthophoto(area, footprint_m=400))
    flight = replace(
        flight_at(tmp_path, [CENTER] * 3, altitude_label_m=150.0, altitude_datum="ground"), camera=Camera(fov_deg=67.38)
    )
    facts = flight_facts(flight, source.footprint_m)
    assert facts.footprint_m == pytest.approx(200, abs=0.1) and facts.yaws == 0 and facts.span_s is None
    findings = by_key(flight_findings(facts, source))
    assert findings["width-apart"].level == "doubtful" and "200 m wide" in findings["width-apart"].sentence()
    assert {"no-yaw", "no-time"} < findings.keys()
    unknown = by_key(flight_findings(flight_facts(replace(flight, camera=Camera()), 400.0), source))
    assert unknown["width-assumed"].level == "ok"
    blind = by_key(flight_findings(flight_facts(flight_at(tmp_path, [None] * 3), 400.0), source))
    assert blind["no-positions"].level == "doubtful"


def test_frames_that_cannot_be_read_are_told(tmp_path):
    flight = flight_at(tmp_path, [CENTER] * 3)
    assert list(frame_findings(flight)) == []
    flight.frames[0].path.write_bytes(b"not a picture")
    (finding,) = frame_findings(flight)
    assert finding.level == "doubtful" and "1 of 3" in finding.sentence()


def test_minutes_and_disk_follow_from_what_was_measured():
    costs = [
        EncoderCost("a", 1000, 6000, 8000, 0.010, 0.02),
        EncoderCost("b", 500, 3000, 8000, 0.020, 0.04),
    ]
    assert cost.ingest_minutes(costs, 0.02, is_gpu=False) == pytest.approx((60 + 60 + 60) / 60)
    assert cost.ingest_minutes(costs, 0.02, is_gpu=True) == pytest.approx(2.0)
    assert cost.ingest_minutes([replace(costs[0], embed_s=None)], 0.02, is_gpu=True) is None
    needed = cost.disk_bytes(costs, 8192)
    assert needed > 6000 * (4 * 1000 * 3 + 8192) + 3000 * 4 * 500 * 3
    levels = [next(cost.disk_findings(needed, free)).level for free in (10 * needed, needed + 1, needed - 1)]
    assert levels == ["ok", "doubtful", "no"]
    assert [f.level for f in cost.cost_findings(costs, 5000.0, "cpu", 16)] == ["ok", "ok", "doubtful"]


def test_the_verdict_is_that_of_the_worst_finding():
    assert worst([]) == "ok"
    levels = [Finding("map", level, "blank") for level in ("ok", "doubtful", "ok")]
    assert worst(levels) == "doubtful" and worst([*levels, Finding("disk", "no", "disk-full")]) == "no"
    assert all(sentence[-1] in ".})?" for sentence in SENTENCES.values())


def test_an_ingest_and_a_search_say_what_matters_in_a_line_or_nothing(area, tmp_path, fake_backbone):
    good = open_orthophoto(area, footprint_m=400)
    assert ingest_doubts(good, [fake_backbone.spec], tmp_path) == []
    (line,) = ingest_doubts(open_orthophoto(area, footprint_m=200), [fake_backbone.spec], tmp_path)
    assert line.startswith("preflight: doubtful: ") and "100 pixels" in line
    flight = flight_at(tmp_path, [CENTER] * 3)
    sets = [good.reference_set]
    assert search_doubts(flight, sets) == [] and search_doubts(replace(flight, camera=Camera(500.0)), sets) == []
    (line,) = search_doubts(replace(flight, camera=Camera(900.0)), sets)
    assert "900 m wide" in line and "400 m" in line
