"""The pure parts of the tool that measures fixes: constants fitted on rows, and its tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import accuracy_figures as figures
import numpy as np
import pytest
from accuracy_figures import Row

from coarseloc.core.fixes import CHI2_95
from coarseloc.localize.registration.fix import CALIBRATION_FILE, FITTED, read_calibration


def row(
    name: str = "NAIP 2018→2020, west",
    *,
    way: str = "top10",
    frame: int = 1,
    error_m: tuple[float, float] = (1.0, 0.5),
    score: float = 0.6,
    margin: float = 0.4,
    share: str = "report",
    on_map: bool = True,
    reachable: bool = True,
) -> Row:
    pose = {
        "error_m": error_m, "aircraft_error_m": (2 * error_m[0], 2 * error_m[1]), "heading_error_deg": -0.1,
        "tilt_error_deg": 0.3, "score": score, "pixel_m": 2.0, "half_width_px": 100.0, "scale": 1.0,
        "ground_fraction": 1.0, "scatter": np.eye(6).tolist(),
        "curvature": np.diag([-0.02, -0.005, -50.0, -60.0, -30.0, -30.0]).tolist(),
    }  # fmt: skip
    answer: Row = {
        "set": name, "share": share, "map_seed": 1, "frame": frame, "way": way, "footprint_m": 400.0,
        "map_gsd_m": 2.0, "on_map": on_map, "reachable": reachable, "fine": [score], "rival": score - margin,
        "ms": 500.0, "cpu_ms": 300.0, "embed_cpu_ms": 20.0,
    }  # fmt: skip
    return answer | ({"pose": pose} if on_map else {})


def drawn(name: str, c: float, g: float, count: int, seed: int) -> list[Row]:
    """Rows whose errors have the covariance of these constants."""
    rng = np.random.default_rng(seed)
    truth = replace(FITTED, covariance=c, gsd_variance=g)
    rows = []
    for frame in range(count):
        plain = row(name, frame=frame, score=float(rng.uniform(0.3, 0.9)), margin=0.3, share="calibrate")
        covariance = figures.ground_covariance(figures.fine_pose(plain), 2.0, 0.0, truth)
        east, north = rng.multivariate_normal([0.0, 0.0], covariance)
        rows.append(row(name, frame=frame, score=plain["pose"]["score"], margin=0.3, share="calibrate",
                        error_m=(float(east), float(north))))  # fmt: skip
    return rows


@pytest.mark.parametrize(("c", "g"), [(0.01, 0.5), (0.004, 0.1)])
def test_fitted_ellipses_hold_their_share_of_errors_drawn_from_such_constants(c: float, g: float):
    sets = {name: drawn(name, c, g, 1200, seed) for seed, name in enumerate(("one season", "another season"))}
    sets["own season"] = drawn("own season", c, 0.0, 1200, 7)
    fitted = replace(FITTED, **dict(zip(("covariance", "gsd_variance"), figures.fitted_covariance(sets), strict=True)))
    assert math.isclose(fitted.covariance, c, rel_tol=0.15) and math.isclose(fitted.gsd_variance, g, rel_tol=0.3)
    nees = np.array([figures.ground_nees(entry, 0.0, fitted) for entry in drawn("one season", c, g, 1500, 9)])
    assert abs(np.mean(nees <= CHI2_95) - 0.95) < 0.02
    assert math.isclose(nees.mean(), 2.0, rel_tol=0.15)


def test_one_row_a_frame_is_fitted_on_that_of_the_ten_places_first():
    rows = [row(way="map", score=0.5), row(score=0.6), row(frame=2, way="map"), row(frame=3, error_m=(90.0, 0.0))]
    rows.append(row(frame=3, way="label"))
    right = figures.right_frames(rows)["NAIP 2018→2020, west"]
    assert [(entry["frame"], entry["way"]) for entry in right] == [(1, "top10"), (2, "map")]


def labelled(count: int, seed: int) -> list[Row]:
    """Right answers of high margin, and frames off the map of low ones, either way of search."""
    rng = np.random.default_rng(seed)
    rows = []
    for frame in range(count):
        for way in ("top10", "map"):
            rows.append(row(way=way, frame=frame, score=float(rng.uniform(0.3, 0.8)), share="calibrate",
                            margin=float(rng.uniform(0.1, 0.5))))  # fmt: skip
            rows.append(row("off the map", way=way, frame=frame, score=float(rng.uniform(0.05, 0.2)), on_map=False,
                            margin=float(rng.uniform(0.0, 0.04)), share="calibrate"))  # fmt: skip
    return rows


def test_a_calibration_accepts_no_wrong_answer_it_was_fitted_on_and_is_read_back(tmp_path: Path):
    rows = labelled(60, 4)
    record = figures.calibration_record(rows, "2026-11-26", {"torch": "2.9"})
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    calibration = read_calibration(file)
    wrong = [figures.logit_of(entry, calibration) for entry in rows if not figures.is_right(entry)]
    right = [figures.probability_of(entry, calibration) for entry in rows if figures.is_right(entry)]
    threshold = math.log(calibration.accepted_probability / (1 - calibration.accepted_probability))
    assert threshold - max(wrong) == pytest.approx(figures.SPARED, abs=0.02)
    assert np.mean(np.array(right) >= calibration.accepted_probability) > 0.95
    assert calibration.digest == record["digest"] and "off the map (60)" in calibration.fitted_on
    assert [entry["top10"]["right"] for entry in record["sets"]] == [60, 0]
    record["constants"]["covariance"] *= 2
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="not by hand"):
        read_calibration(file)


def test_the_packages_constants_name_what_they_were_fitted_on():
    record = json.loads(CALIBRATION_FILE.read_text(encoding="utf-8"))
    assert record["digest"] == FITTED.digest
    assert record["sets"] and all(f"{entry['set']} ({entry['frames']})" in FITTED.fitted_on for entry in record["sets"])
    assert not any("east" in entry["set"] or "demo" in entry["set"] for entry in record["sets"])


def test_weights_of_separate_classes_are_finite_and_separate_them():
    features = np.column_stack([np.ones(40), np.linspace(0.0, 1.0, 40), np.zeros(40) + np.tile([0.0, 0.1], 20)])
    labels = (np.arange(40) >= 20).astype(float)
    weights = figures.logistic_weights(features, labels)
    assert np.isfinite(weights).all() and ((features @ weights > 0) == labels.astype(bool)).all()


def test_recall_at_full_precision_counts_what_lies_above_every_wrong_answer():
    rows = [row(margin=0.5, frame=1), row(margin=0.4, frame=2), row(margin=0.05, score=0.2, frame=3)]
    rows += [row("off the map", margin=0.08, score=0.22, on_map=False), row(way="map", score=0.1, margin=0.0)]
    recall = figures.recall_at_full_precision(rows, "top10", FITTED)
    assert (recall.value, recall.n) == (pytest.approx(2 / 3), 3)
    assert figures.recall_at_full_precision(rows, "map", FITTED).value == 1.0


def test_the_table_of_goals_says_what_is_reached_and_leaves_out_what_was_not_measured():
    rows = [row(frame=frame, error_m=(0.1 * frame, 0.0)) for frame in range(40)]
    rows += [row(frame=40, error_m=(300.0, 0.0), reachable=False)]
    table = {goal.what: goal for goal in figures.goals(rows)}
    assert table["NAIP, Top-10: right"].figure.value == pytest.approx(40 / 41)
    assert table["NAIP, Top-10: right beyond reachable, points"].figure.value == 0.0
    assert table["NAIP, Top-10: ground, median"].figure.value == pytest.approx(1.95)
    assert table["NAIP, Top-10: ground, median"].verdict == "yes"
    assert table["NAIP, Top-10: ground, p90"].verdict == "moonshot"
    assert table["aircraft, estimated, NAIP"].figure.value == pytest.approx(3.9)
    assert table["K = 10 a frame, CPU, median"].figure.value == pytest.approx(0.32)
    assert not any("demo" in what or "whole map" in what for what in table)
    lines = figures.goals_table(rows)
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + len(table)
    assert any("1.95 [" in line and line.endswith("| yes |") for line in lines)
    sets = figures.sets_table(rows)
    assert any(line.startswith("| NAIP 2018→2020, west | top10 | 41 | 98 | 98 |") for line in sets)


def test_a_band_is_reached_inside_it():
    share = figures.intervals.share(np.array([1.0] * 95 + [0.0] * 5))
    assert figures.Goal("", share, "%", (0.92, 0.98), (0.94, 0.96)).verdict == "moonshot"
    assert figures.Goal("", share, "%", (0.96, 0.98), (0.97, 0.98)).verdict == "**no**"
    assert figures.Goal("", share, "%", 0.93, (0.96, 0.97), at_most=False).verdict == "yes"


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    assert figures.read_rows(file) == []
    lines = [json.dumps(row()), json.dumps(row(frame=2))[:50], json.dumps(row(score=0.7))]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert figures.read_rows(file)[0]["fine"] == [0.7]
    assert [figures.row_key(entry) for entry in figures.read_rows(file)] == [("NAIP 2018→2020, west", 1, 1, "top10")]
