"""Fixes evaluated and reported, of a run and of a whole map without any backbone, from the same frames and truth."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from databases import environment_of
from PIL import Image

import coarseloc as cl
from coarseloc.cli import cli
from coarseloc.core.errors import InputError, StoreError
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from coarseloc.store import fixes, flights, localizations, studies
from coarseloc.store.localizations import WHOLE_MAP
from search import map_localization
from search.evaluation.evaluate import Evaluations, to_csv
from search.evaluation.fix_scores import FIX_SCORES
from search.evaluation.scores import SCORES
from search.recorder import fix_recorder

FLIGHT, FRAMES, FOOTPRINT_M = "251124155712", 5, 300.0
BLANK = 2  # a frame that shows nothing


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[cl.Workspace, Path]]:
    """A flight over an area, one frame of it without anything to see, searched and looked for on the whole map."""
    root = tmp_path_factory.mktemp("fixes")
    area = write_area(root / "area.tif", 7, width_m=900, height_m=800, style="suburb")
    simulate_flight(
        area, root / "flights", flight_id=FLIGHT, frames=FRAMES, footprint_m=FOOTPRINT_M, seed=5, side_px=160
    )
    frame = root / "flights" / FLIGHT / f"{FLIGHT}_{BLANK:05d}.jpg"
    grain = np.random.default_rng(3).normal((112, 120, 96), 3.0, (160, 160, 3))  # of one colour it would be no picture
    Image.fromarray(grain.astype(np.uint8)).save(frame)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(root / "data").items():
            patch.setenv(name, value)
        with cl.open(root / "data", device="cpu", input_px=96) as workspace:
            workspace.ingest(cl.orthophoto(area, name="area", footprint_m=FOOTPRINT_M, altitude_m=300), ["demo"])
            workspace.search(root / "flights" / FLIGHT)
            workspace.localize(root / "flights" / FLIGHT, reference_set="area")
            yield workspace, root


@pytest.fixture(scope="module")
def evaluations(world: tuple[cl.Workspace, Path]) -> Evaluations:
    workspace, _ = world
    return workspace.evaluate(FLIGHT, save=True)


def test_a_run_and_the_whole_map_are_judged_on_the_same_frames_and_truth(evaluations: Evaluations):
    (run,), (whole_map,) = evaluations, evaluations.whole_maps
    assert run.fixes is not None and whole_map.run is None and whole_map.backbone is None
    assert (run.fixes.method, whole_map.method) == ("fix", WHOLE_MAP)
    for evaluated in (run.fixes, whole_map):
        counts = evaluated.counts
        assert (counts.frames, counts.judged, counts.off_map) == (FRAMES, FRAMES, 0)
        assert counts.matches == counts.line_of_sight == FRAMES - 1 and sum(counts.no_match.values()) == 1
        assert evaluated.scores["fix_right"].value == pytest.approx(1 - 1 / FRAMES)
        for point in ("ground", "aircraft"):
            assert evaluated.scores[f"fix_{point}_error_median"].value < 1.0
        assert evaluated.scores["fix_verify_median"].value > 0
    assert run.fixes.fixes.frame.tolist() == whole_map.fixes.frame.tolist()
    assert run.scores["error_median"].value > 10  # the centre of the best tile stays what it was


def test_the_record_keeps_its_keys_and_holds_the_fixes(evaluations: Evaluations):
    run, whole_map = json.loads(json.dumps(evaluations.to_json()))
    assert {"run", "backbone", "scores", "hit_curves", "ceiling", "counts", "frames"} <= run.keys() == whole_map.keys()
    assert set(run["scores"]) == {score.key for score in SCORES}
    assert run["fix"].keys() == whole_map["fix"].keys() and len(run["fix"]["scores"]) == len(FIX_SCORES)
    assert (whole_map["run"], whole_map["backbone"], whole_map["method"]) == (None, None, WHOLE_MAP)
    blank = whole_map["frames"][BLANK - 1]
    assert blank["estimate"]["fix"]["ground"] is None and blank["errors"] is None
    assert whole_map["frames"][0]["errors"]["fix_aircraft_m"] < 1.0


def test_csv_gains_rows_for_fixes_and_for_no_backbone(evaluations: Evaluations):
    rows = list(csv.DictReader(io.StringIO(to_csv(evaluations))))
    assert len(rows) == len(SCORES) + 2 * len(FIX_SCORES)
    without = [row for row in rows if row["backbone"] == "no backbone"]
    assert {row["score"] for row in without} == {score.key for score in FIX_SCORES}
    assert {row["run"] for row in without} == {""}


def test_curves_are_stored_for_the_pages(world: tuple[cl.Workspace, Path], evaluations: Evaluations):
    workspace, _ = world
    with workspace.db.read() as session:
        stored = studies.studies(session, "evaluation")
        curves = [{(p.backbone, p.curve) for p in studies.curves(session, study.id)} for study in stored]
    names = {"fix_ground_cdf", "fix_aircraft_cdf", "fix_reliability", "fix_precision", "fix_recall", "fix_right"}
    assert any({("demo", name) for name in names} <= found for found in curves)
    assert any({("no backbone", name) for name in names} <= found for found in curves)


def test_an_interrupted_whole_map_goes_on_with_what_is_stored(
    world: tuple[cl.Workspace, Path], monkeypatch: pytest.MonkeyPatch
):
    workspace, root = world
    question = {"reference_set": "area", "near": (127.03, 37.49, 50_000.0)}
    looked_for = []
    localize = map_localization.MapLocalizer.localize

    def stopped(self: map_localization.MapLocalizer, frame: cl.Frame) -> map_localization.MapLocalization:
        if len(looked_for) == 2:
            raise KeyboardInterrupt
        looked_for.append(frame.index)
        return localize(self, frame)

    monkeypatch.setattr(map_localization.MapLocalizer, "localize", stopped)
    with pytest.raises(KeyboardInterrupt):
        workspace.localize(root / "flights" / FLIGHT, **question)
    assert [e.localization.parameters["where"] for e in workspace.evaluate(FLIGHT).whole_maps] == [{}]
    monkeypatch.setattr(map_localization.MapLocalizer, "localize", localize)
    records = workspace.localize(root / "flights" / FLIGHT, **question)
    assert [record.timing_ms.decode is None for record in records] == [True, True, False, False, False]
    again = workspace.localize(root / "flights" / FLIGHT, **question)
    assert [r.estimate for r in again] == [r.estimate for r in records]
    wheres = [e.localization.parameters["where"] for e in workspace.evaluate(FLIGHT).whole_maps]
    assert len(wheres) == 2 and wheres[1].keys() == {"near"}, "another question replaces none"


def test_a_recorder_saves_each_fix_once(world: tuple[cl.Workspace, Path], evaluations: Evaluations):
    workspace, _ = world
    with workspace.db.write() as session:
        flight = flights.find_flight(session, FLIGHT)
        key = localizations.start_localization(session, flight.id, WHOLE_MAP, [], [], {"test": "recorder"})
    answers = evaluations.whole_maps[0].answers
    with pytest.raises(ZeroDivisionError), fix_recorder(workspace.db, key) as recorder:
        for frame, fix in answers[:3]:
            recorder.add((flight.frame_keys[frame.index], fix))
        raise ZeroDivisionError
    with workspace.db.read() as session:
        assert fixes.fixes(session, key) == {frame.index: fix for frame, fix in answers[:3]}


def test_a_run_by_its_number_brings_the_whole_map_of_its_references_alone(world: tuple[cl.Workspace, Path]):
    workspace, _ = world
    (run,) = workspace.evaluate(FLIGHT)
    by_number = workspace.evaluate(run.run.id)
    assert [e.reference_set for e in by_number.whole_maps] == ["area"]
    assert workspace.evaluate(FLIGHT, reference_set="area").whole_maps
    with pytest.raises(StoreError):
        workspace.evaluate(FLIGHT, reference_set="elsewhere")


def test_a_flight_that_was_only_looked_for_on_a_whole_map_is_evaluated_and_reported(
    world: tuple[cl.Workspace, Path], tmp_path: Path, undrawn: None
):
    workspace, root = world
    shutil.copytree(root / "flights" / FLIGHT, tmp_path / "251124160000")
    workspace.localize(tmp_path / "251124160000", reference_set="area")
    evaluations = workspace.evaluate("251124160000", save=True)
    assert not evaluations and len(evaluations.whole_maps) == 1
    workspace.report(evaluations, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="fixes"' in page and 'id="no-match"' in page and 'id="mean-times"' not in page


def test_a_reports_figures_of_fixes_are_written_as_files_too(
    world: tuple[cl.Workspace, Path], evaluations: Evaluations, tmp_path: Path
):
    workspace, _ = world
    workspace.report(evaluations, tmp_path / "report.html", figures=tmp_path / "figures")
    for key in ("fixes", "fix-ellipses", "fix-probability"):
        assert (tmp_path / "figures" / f"{key}.png").is_file() and (tmp_path / "figures" / f"{key}.svg").is_file()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_report_tells_of_fixes_beside_best_places_and_shows_frames_without_a_match(
    world: tuple[cl.Workspace, Path], evaluations: Evaluations, tmp_path: Path, language: str
):
    workspace, _ = world
    workspace.report(evaluations, tmp_path / "report.html", language=language)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{key}"' in page for key in ("fixes", "fix-ellipses", "fix-probability", "no-match"))
    unmatched = page.split('class="unmatched"')[1].split("</section>")[0]
    assert f"{FLIGHT}_{BLANK:05d}.jpg" in unmatched and f"{FLIGHT}_{BLANK + 1:05d}.jpg" not in unmatched
    assert ("no backbone" in page) == (language == "en") and ("백본 없음" in page) == (language == "ko")


def test_the_command_shows_a_column_for_no_backbone(world: tuple[cl.Workspace, Path]):
    _, root = world
    environment = environment_of(root / "data") | {"COLUMNS": "300"}
    result = CliRunner().invoke(cli, ["--data-dir", str(root / "data"), "evaluate", FLIGHT, "--all"], env=environment)
    assert result.exit_code == 0, result.output
    (header, *rows) = result.output.splitlines()
    assert "demo" in header and "no backbone (area)" in header
    (wrong,) = (row for row in rows if row.startswith("fix: matches that are wrong"))
    assert wrong.count("0.0% [0.0%, ") >= 2, "none wrong of four is not none wrong"


def test_localize_takes_a_map_or_the_references_of_a_backbone(world: tuple[cl.Workspace, Path]):
    workspace, root = world
    image = root / "flights" / FLIGHT / f"{FLIGHT}_00003.jpg"
    assert workspace.localize(image).backbone == "demo"
    (record,) = workspace.localize(image, map=root / "area.tif", footprint_m=FOOTPRINT_M, fov_deg=53.13)
    assert record.estimate is not None and record.estimate.fix.aircraft is not None
    (row,) = workspace.localize(image, map=str(root / "area.tif"), footprint_m=FOOTPRINT_M).rows()
    assert row["match"] is True and row["lon"] == pytest.approx(record.estimate.fix.ground.lon, abs=1e-6)
    before = len(workspace.evaluate(FLIGHT).whole_maps)
    workspace.localize(image, reference_set="area")
    assert len(workspace.evaluate(FLIGHT).whole_maps) == before, "a picture is no flight: nothing of it is stored"


@pytest.mark.parametrize("picture", [np.zeros((8, 8, 3), np.uint8), Path("a-flight")])
def test_what_localize_cannot_take_is_refused(world: tuple[cl.Workspace, Path], picture: object, tmp_path: Path):
    workspace, root = world
    if isinstance(picture, Path):
        with pytest.raises(InputError, match="search it, or name a map"):
            workspace.localize(root / "flights" / FLIGHT)
    else:
        with pytest.raises(InputError, match="a picture's file"):
            workspace.localize(picture, map=root / "area.tif")


def test_no_position_of_a_frame_without_a_match_leaves_the_evaluation(evaluations: Evaluations):
    for evaluated in evaluations.fixes:
        index = evaluated.fixes.frame.tolist().index(BLANK)
        assert not evaluated.fixes.match[index]
        assert np.isnan(evaluated.fixes.ground.offset_m[index]).all()
        assert math.isnan(evaluated.fixes.heading_error_deg[index])
