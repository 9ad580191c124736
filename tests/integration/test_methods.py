"""Answers by another method: stored beside the best place, and read by every reader that is asked for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from databases import environment_of, settings_of
from study_runs import make_runs

from coarseloc.cli import cli
from coarseloc.core import geo
from coarseloc.core.types import Covariance, LonLat
from coarseloc.store import Database, flights, localizations, open_database, runs
from web import create_app

FLIGHT = "251124155712"
METHOD = "refined"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    for name, value in environment_of(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def refined(state: Path, tmp_path: Path) -> dict[int, LonLat]:
    """A run whose every located frame has an estimate by another method, 7 m east of the truth; {frame: where}."""
    db = open_database(settings_of(state).database)
    (run_id,) = make_runs(db, tmp_path, backbones=1, frames=40, columns=8, rows=6, k=10)
    places = _refine(db, run_id)
    db.close()
    return places


def _refine(db: Database, run_id: int) -> dict[int, LonLat]:
    with db.write() as session:
        run, flight = runs.find_run(session, run_id), flights.find_flight(session, FLIGHT)
        results = [result for result in runs.results(session, run_id) if result.estimate]
        key = localizations.start_localization(session, flight.id, METHOD, [run.id], [], {"grid_m": 5.0})
        moved, snapshots = [], {}
        for result in results:
            best, truth = result.estimate, result.frame.truth.location
            place = geo.offset(truth or best.location, 7.0, 0.0)
            estimate = replace(
                best, location=place, heading_deg=12.5, probability=0.9, covariance_m2=Covariance(4.0, 0.5, 9.0)
            )
            moved.append((flight.frame_keys[result.frame.index], estimate))
            snapshots[best.tile.point_id] = result.best.id
        localizations.save_estimates(session, key, moved, snapshots)
        localizations.finish_localization(session, key)
    return {result.frame.index: estimate.location for result, (_, estimate) in zip(results, moved, strict=True)}


def _run(state: Path, *args: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["--data-dir", str(state), *map(str, args)])
    return done.exit_code, done.stdout, str(done.exception)


def test_every_reader_tells_the_method_that_it_is_asked_for(state: Path, tmp_path: Path, refined: dict[int, LonLat]):
    code, _, said = _run(state, "export", FLIGHT, "--out", tmp_path / "out", "--single", "--method", METHOD)
    assert code == 0, said
    records = json.loads((tmp_path / "out" / f"{FLIGHT}.json").read_text())["localizations"]
    exported = {record["frame_index"]: record["estimate"] for record in records}
    assert {at: LonLat(**estimate["location"]) for at, estimate in exported.items()} == refined
    first = exported[min(exported)]
    assert (first["method"], first["heading_deg"], first["probability"]) == (METHOD, 12.5, 0.9)
    assert first["covariance_m2"] == {"east_east": 4.0, "east_north": 0.5, "north_north": 9.0}
    assert all(r["errors"]["error_m"] == pytest.approx(7.0, rel=5e-3) for r in records if "errors" in r)

    code, stdout, said = _run(state, "evaluate", FLIGHT, "--method", METHOD, "--json")
    assert code == 0, said
    (evaluation,) = json.loads(stdout)
    assert evaluation["method"] == METHOD
    assert evaluation["scores"]["error_median"]["value"] == pytest.approx(7.0, rel=5e-3)

    app = create_app(settings_of(state))
    client = app.test_client()
    page = client.get(f"/flights/{FLIGHT}.json?method={METHOD}").json
    assert page["models"][0]["median_error_m"] == evaluation["scores"]["error_median"]["value"]
    shown = {frame["index"]: LonLat(**frame["best"]["location"]) for frame in page["frames"] if frame["best"]}
    assert shown == refined
    frame = client.get(f"/flights/{FLIGHT}/20.json?method={METHOD}").json["rows"][0]["estimate"]
    assert LonLat(**frame["location"]) == refined[20]
    app.extensions["coarseloc"].close()


def test_the_best_place_is_told_where_nothing_is_asked(state: Path, tmp_path: Path, refined: dict[int, LonLat]):
    code, stdout, said = _run(state, "evaluate", FLIGHT, "--json")
    assert code == 0, said
    (evaluation,) = json.loads(stdout)
    assert evaluation["method"] == "best-place" and evaluation["scores"]["error_median"]["value"] > 20.0


def test_a_method_that_has_not_answered_is_refused_with_those_that_have(state: Path, refined: dict[int, LonLat]):
    code, _, said = _run(state, "evaluate", FLIGHT, "--method", "guess")
    assert code != 0 and "no answer by method 'guess': it has best-place, refined" in said
    app = create_app(settings_of(state))
    answer = app.test_client().get(f"/flights/{FLIGHT}.json?method=guess")
    assert answer.status_code == 400 and "best-place, refined" in answer.json["detail"]
    app.extensions["coarseloc"].close()
