"""Runs in a real database, scored: counts, agreement, off the map, CSV, JSON, and what the pages will read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from study_runs import FOOTPRINT_M, ORIGIN, make_runs

from coarseloc.cli import cli
from coarseloc.core import geo
from coarseloc.core.errors import StoreError
from coarseloc.store import Database, studies
from search.evaluation import evaluate


def evaluate_runs(db: Database, names: list[str]) -> list[evaluate.Evaluation]:
    return evaluate.evaluate(db, evaluate.find_runs(db, names))


@pytest.fixture
def run_ids(db: Database, tmp_path: Path) -> list[int]:
    return make_runs(db, tmp_path, backbones=3, frames=40, columns=8, rows=6, k=10)


def test_a_flight_means_its_newest_run_of_each_backbone(db: Database, run_ids: list[int]) -> None:
    assert [run.id for run in evaluate.find_runs(db, ["251124155712"])] == run_ids
    assert [run.id for run in evaluate.find_runs(db, [str(run_ids[1])])] == [run_ids[1]]
    with pytest.raises(StoreError, match="expected one of 251124155712"):
        evaluate.find_runs(db, ["nowhere"])


def test_frames_are_counted_by_what_became_of_them(db: Database, run_ids: list[int]) -> None:
    """Of 40 frames the generator leaves 2 unreadable, 3 without truth, and 4 off the map."""
    evaluation = evaluate_runs(db, [str(run_ids[0])])[0]
    assert evaluation.counts == evaluate.FrameCounts(frames=40, failed=2, without_truth=3, judged=35, off_map=4)
    assert evaluation.scores["error_median"].n == 31
    assert evaluation.scores["margin_area"].n == 35
    assert (
        evaluation.scores["agreement_area"].n == 35
    )  # with the backbones beside it, whether they are asked for or not


def test_better_backbones_score_better_and_agreement_needs_company(db: Database, run_ids: list[int]) -> None:
    evaluations = evaluate_runs(db, ["251124155712"])
    shares = [evaluation.scores["hit_footprint@1"].value for evaluation in evaluations]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    for evaluation in evaluations:
        assert evaluation.scores["agreement_area"].n == 35
        assert 1 <= evaluation.scores["hit_footprint@1"].n_eff <= evaluation.scores["hit_footprint@1"].n == 31
        assert evaluation.hit_curves[1][100].value <= evaluation.ceiling[100]
        curve = [share.value for share in evaluation.hit_curves[10].values()]
        assert curve == sorted(curve)


def test_json_and_csv_hold_every_score_with_n(db: Database, run_ids: list[int]) -> None:
    evaluations = evaluate_runs(db, ["251124155712"])
    document = json.loads(json.dumps([evaluation.to_json() for evaluation in evaluations], allow_nan=False))
    assert document[0]["scores"]["error_median"].keys() >= {"unit", "better", "value", "low", "high", "n", "title"}
    rows = list(csv.DictReader(io.StringIO(evaluate.to_csv(evaluate.Evaluations(evaluations)))))
    assert len(rows) == 3 * len(document[0]["scores"])
    for row in rows[: len(document[0]["scores"])]:
        stated = document[0]["scores"][row["score"]]
        numbers = {name: float(row[name]) if row[name] else None for name in ("value", "low", "high", "n", "n_eff")}
        assert numbers == {name: stated[name] for name in numbers}


@pytest.mark.parametrize(("frames", "has_interval"), [(40, False), (200, True)])
def test_an_interval_is_said_of_a_long_flight_and_n_eff_of_any(
    db: Database, tmp_path: Path, frames: int, has_interval: bool
) -> None:
    run_ids = make_runs(db, tmp_path, backbones=1, frames=frames, columns=8, rows=6, k=10)
    facts = evaluate_runs(db, [str(run_ids[0])])[0].to_json()
    median = facts["scores"]["error_median"]
    assert (median["n_eff"] >= facts["interval"]["least_n_eff"]) == has_interval
    assert (median["low"] is not None) == (median["high"] is not None) == has_interval
    assert not has_interval or median["low"] < median["value"] < median["high"]
    printed = CliRunner().invoke(cli, ["--data-dir", str(tmp_path / "state"), "evaluate", str(run_ids[0]), "--all"])
    row = next(line for line in printed.stdout.splitlines() if "top-1 error, median" in line)
    assert f"n_eff {median['n_eff']:.0f}" in row and ("[" in row) == has_interval


def test_evaluations_are_stored_where_pages_read_them_and_replaced_by_newer_ones(
    db: Database, run_ids: list[int]
) -> None:
    evaluations = evaluate_runs(db, ["251124155712"])
    evaluate.save_evaluations(db, evaluations)
    evaluate.save_evaluations(db, evaluations)
    with db.read() as session:
        stored = studies.studies(session, "evaluation")
        assert len(stored) == 3
        points = studies.curves(session, stored[0].id, "hit@10")
    assert [point.x for point in points] == list(range(10, 101, 10))


def test_a_run_with_a_filter_is_judged_by_the_map_it_searched(db: Database, tmp_path: Path) -> None:
    near = {"near": {"lon": ORIGIN.lon, "lat": ORIGIN.lat, "radius_m": 1.0}}
    runs = make_runs(db, tmp_path, backbones=1, frames=40, columns=8, rows=6, k=10, where=near)
    evaluation = evaluate_runs(db, [str(runs[0])])[0]
    assert evaluation.counts.off_map > 25
    per_lon = geo.metres_per_degree(ORIGIN.lat)[0]
    in_footprint = abs(evaluation.frames.ranked.truth_lon - ORIGIN.lon) * per_lon <= FOOTPRINT_M / 2
    assert not evaluation.frames.on_map[~in_footprint].any()


def test_the_command_takes_a_flight_its_folder_or_a_run(db: Database, run_ids: list[int], tmp_path: Path) -> None:
    state = ["--data-dir", str(tmp_path / "state")]
    table = tmp_path / "out" / "scores.csv"
    answers = [
        CliRunner().invoke(cli, [*state, "evaluate", name, "--json", "--csv", str(table)])
        for name in ("251124155712", str(tmp_path / "251124155712"), str(run_ids[0]))
    ]
    assert [answer.exit_code for answer in answers] == [0, 0, 0], answers[0].output
    documents = [json.loads(answer.stdout) for answer in answers]
    assert (
        documents[0] == documents[1]
        and len(documents[0]) == 3
        and [document["run"] for document in documents[2]] == [run_ids[0]]
    )
    assert table.read_text(encoding="utf-8").startswith("flight,reference_set,run,backbone,score,unit")
    printed = CliRunner().invoke(cli, [*state, "evaluate", "251124155712"])
    assert "top-1 error, median (↓)" in printed.stdout and "without truth, left out" in printed.stdout


def test_the_report_command_writes_one_file(db: Database, run_ids: list[int], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    arguments = ["--data-dir", str(tmp_path / "state"), "report", str(run_ids[0]), "--out", str(out), "--json"]
    answer = CliRunner().invoke(cli, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == {"file": str(out), "bytes": out.stat().st_size, "runs": [run_ids[0]]}
