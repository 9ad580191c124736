"""Labels against the imagery: single frames, and what is wrong with all of them together."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.fixes import FixConditions, FrameFix, Pose2D
from coarseloc.core.types import Covariance, Flight, Frame, LonLat, Pose
from coarseloc.imagery.label_tables import read_table
from search.evaluation.truth_check import ConfidentFix, WitnessStatement, judge, to_csv

ORIGIN = LonLat(127.03, 37.49)
FOOTPRINT_M = 400.0
EXACT = Covariance(0.01, 0.0, 0.01)


def curve(count=24, step_m=80.0):
    """(positions, headings) of a flight that turns all the time."""
    spots, headings, spot = [], [], ORIGIN
    for number in range(count):
        heading = (number * 12.0) % 360
        spots.append(spot)
        headings.append(heading)
        spot = geo.offset(spot, *geo.turned_m(0.0, step_m, heading))
    return spots, headings


def flight_of(labels, yaws):
    frames = [
        Frame(n, Path(f"f_{n:03d}.jpg"), f"f_{n:03d}.jpg", Pose(label, 300.0, yaw, 0.0, 0.0, "ground"))
        for n, (label, yaw) in enumerate(zip(labels, yaws, strict=True), start=1)
    ]
    return Flight("flight", Path("/flights/flight"), tuple(frames), truth_source="labels")


def fix_at(spot, heading, label, run=1):
    pose = Pose2D(
        spot, EXACT, spot, EXACT, heading, 0.1, 0.0, 1.0, 1.0, 0.5, 0.2, 4, 0.99, "label", "test", "digest",
        (spot, spot, spot, spot),
    )  # fmt: skip
    conditions = FixConditions(FOOTPRINT_M, "given", "map", 0.5, 0.25, "given", 1.0)
    apart = None if label is None else float(geo.distance_m(*label, *spot))
    testimony = WitnessStatement(f"fix (run {run})", "fix", spot, apart, 25.0, 0.99, heading, run)
    return ConfidentFix(testimony, FrameFix(pose, conditions), Camera(fov_deg=67.0))


def check_of(labels, spots, headings, *, yaws=None, fixed=None, extra=None):
    """Fixes at the true spots of all frames, or of those numbered in `fixed`."""
    flight = flight_of(labels, headings if yaws is None else yaws)
    best = {
        n: fix_at(spot, heading, label)
        for n, (spot, heading, label) in enumerate(zip(spots, headings, labels, strict=True), start=1)
        if fixed is None or n in fixed
    }
    testimonies = {n: [fix.testimony] for n, fix in best.items()}
    for n, testimony in (extra or {}).items():
        testimonies.setdefault(n, []).append(testimony)
    return judge(flight, testimonies, best)


def moved(spots, east_m, north_m):
    return [geo.offset(spot, east_m, north_m) for spot in spots]


def test_right_labels_are_not_contradicted_and_nothing_explains_them():
    spots, headings = curve()
    check = check_of(spots, spots, headings)
    assert check.counts == {"not contradicted": 24, "contradicted": 0, "cannot say": 0}
    assert check.accepted == [] and not any(leg.constant for leg in check.legs)


def test_one_label_far_off_is_contradicted_by_its_fix_and_those_of_the_frames_beside_it():
    spots, headings = curve()
    labels = [geo.offset(spot, 900.0, 0.0) if n == 9 else spot for n, spot in enumerate(spots)]
    check = check_of(labels, spots, headings)
    assert check.counts == {"not contradicted": 23, "contradicted": 1, "cannot say": 0}
    wrong = check.frames[9]
    assert wrong.proposal == spots[9] and "beside" in wrong.reason and check.accepted == []


def test_one_witness_alone_cannot_say_and_a_best_place_of_its_own_run_is_no_second():
    spots, headings = curve()
    labels = moved(spots, 5000.0, 0.0)
    alone = check_of(labels, spots, headings, fixed={12})
    assert alone.counts == {"not contradicted": 0, "contradicted": 0, "cannot say": 24}
    best_place = WitnessStatement("best place (run 1)", "best-place", spots[11], 5000.0, 300.0, None, 0.0, 1)
    assert check_of(labels, spots, headings, fixed={12}, extra={12: best_place}).counts["contradicted"] == 0
    another = replace(best_place, witness="best place (run 2)", run=2)
    supported = check_of(labels, spots, headings, fixed={12}, extra={12: another})
    assert supported.counts["contradicted"] == 1 and "run 2" in supported.frames[11].reason


def test_witnesses_that_differ_and_frames_without_a_label_are_not_settled():
    spots, headings = curve()
    labels = [None if n == 3 else spot for n, spot in enumerate(spots)]
    track = WitnessStatement("track", "track", geo.offset(spots[5], 700.0, 0.0), 700.0, 20.0, 0.95)
    check = check_of(labels, spots, headings, extra={6: track})
    assert [c.frame.index for c in check.frames if c.verdict == "cannot say"] == [4, 6]
    assert check.frames[3].reason == "it has no label" and "does not" in check.frames[5].reason


WRONG = {
    "lon-sign": lambda spots, _: [LonLat(-lon, lat) for lon, lat in spots],
    "lat-sign": lambda spots, _: [LonLat(lon, -lat) for lon, lat in spots],
    "time": lambda spots, _: [spots[max(n - 2, 0)] for n in range(len(spots))],
    "shift": lambda spots, _: moved(spots, 60.0, -40.0),
    "body-shift": lambda spots, headings: [
        geo.offset(spot, *geo.turned_m(0.0, 40.0, heading)) for spot, heading in zip(spots, headings, strict=True)
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_are_wrong_together_are_explained_and_undone(name):
    spots, headings = curve(step_m=80.0)
    labels = WRONG[name](spots, headings)
    check = check_of(labels, spots, headings)
    assert check.accepted[0].name == name
    assert check.counts["contradicted"] >= 21 and check.counts["not contradicted"] <= 1
    undone = check.accepted[0].labels[2:-2]
    assert geo.distance_m(*undone.T, *np.array(spots[2:-2]).T).max() < 5.0


def test_exchanged_latitudes_and_longitudes_are_told():
    spots, headings = curve()
    spots = [LonLat(lon - 100.0, lat) for lon, lat in spots]  # 27° E: the exchanged ones can be latitudes
    check = check_of([LonLat(lat, lon) for lon, lat in spots], spots, headings)
    assert [explanation.name for explanation in check.accepted] == ["lat-lon"]


def test_on_one_straight_leg_a_shift_and_another_time_are_not_told_apart():
    spots = [geo.offset(ORIGIN, 80.0 * n, 0.0) for n in range(16)]
    check = check_of(moved(spots, -160.0, 0.0), spots, [90.0] * 16)
    assert {explanation.name for explanation in check.accepted} == {"time", "shift", "body-shift"}
    assert [explanation.tied for explanation in check.accepted] == [False, True, True]


def test_one_leg_that_is_off_by_a_constant_is_told_and_contradicted():
    spots = [geo.offset(ORIGIN, 80.0 * n, 0.0) for n in range(10)]
    back = [geo.offset(spots[-1], -80.0 * n, -300.0) for n in range(10)]
    headings = [90.0] * 10 + [270.0] * 10
    check = check_of([*spots, *moved(back, 0.0, 50.0)], [*spots, *back], headings)
    assert [leg.constant for leg in check.legs] == [False, True]
    assert check.legs[1].north_m == pytest.approx(-50.0, abs=0.2)
    assert check.legs[1].right_m == pytest.approx(-50.0, abs=0.2), "south of an aircraft that flies west is its left"
    assert check.counts == {"not contradicted": 10, "contradicted": 10, "cannot say": 0}


@pytest.mark.parametrize(("yaw_of", "median", "mirrored"), [(lambda h: h + 90, -90, False), (lambda h: -h, None, True)])
def test_yaws_that_are_turned_or_count_the_other_way_are_told(yaw_of, median, mirrored):
    spots, headings = curve()
    heading = check_of(spots, spots, headings, yaws=[yaw_of(h) % 360 for h in headings]).heading
    assert heading.mirrored == mirrored and heading.frames == 24
    assert median is None or heading.median_deg == pytest.approx(median)


def test_the_table_to_correct_with_is_one_that_labels_are_read_from():
    spots, headings = curve()
    labels = WRONG["time"](spots, headings)
    text = to_csv(check_of(labels, spots, headings, fixed=set(range(1, 22))))
    table = read_table(text)
    assert all(table.column(word) for word in ("filename", "latitude", "longitude", "yaw", "pitch", "roll", "altitude"))
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, spot in list(zip(rows, spots, strict=True))[2:-2]:
        at = float(row["longitude"]), float(row["latitude"])
        assert geo.distance_m(*at, *spot) < 5.0, row
    assert {row["proposed_by"] for row in rows} == {"label", "imagery", "time"}
    assert math.isclose(float(rows[5]["label_latitude"]), labels[5].lat, abs_tol=1e-7)
