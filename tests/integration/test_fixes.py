"""Fixes: after its search every frame of a flight is placed in metres, or there is no match and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from data_folders import copy_data, own_database

import coarseloc as cl
from coarseloc.core.camera import Camera
from coarseloc.core.fixes import FrameFix, NotVerified, Pose2D
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.places import places_of
from coarseloc.simulate.captures import write_captures
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from coarseloc.store import fixes, localizations, runs
from coarseloc.store.localizations import FIX
from search import verification

FLIGHT, FRAMES, FOOTPRINT_M = "251124155712", 3, 300.0
CAMERA = Camera(FOOTPRINT_M, 67.0)
VERIFIED = 1  # the run of `searched`


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two areas that have nothing in common, and a flight over the first one."""
    root = tmp_path_factory.mktemp("sources")
    for name, seed in (("area", 7), ("elsewhere", 8)):
        write_area(root / f"{name}.tif", seed, width_m=900, height_m=800, style="suburb")
    simulate_flight(
        root / "area.tif",
        root / "flights",
        flight_id=FLIGHT,
        frames=FRAMES,
        footprint_m=FOOTPRINT_M,
        seed=5,
        side_px=160,
    )
    return root


@pytest.fixture(scope="module")
def pristine(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with both areas ingested."""
    folder = tmp_path_factory.mktemp("ingested") / "data"
    with own_database(), cl.open(folder, device="cpu", input_px=96) as workspace:
        for name in ("area", "elsewhere"):
            workspace.ingest(
                cl.orthophoto(sources / f"{name}.tif", name=name, footprint_m=FOOTPRINT_M, altitude_m=300), ["demo"]
            )
    return folder


@pytest.fixture
def workspace(pristine: Path, tmp_path: Path) -> Iterator[cl.Workspace]:
    copy_data(pristine, tmp_path / "data")
    with cl.open(tmp_path / "data", device="cpu", input_px=96) as opened:
        yield opened


@pytest.fixture(scope="module")
def searched(pristine: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, the flight searched by its camera on the area that it is over, as run 1."""
    folder = copy_data(pristine, tmp_path_factory.mktemp("searched") / "data")
    with cl.open(folder, device="cpu", input_px=96) as workspace:
        workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA)
    return folder


@pytest.fixture
def searched_workspace(searched: Path, tmp_path: Path) -> Iterator[cl.Workspace]:
    with cl.open(copy_data(searched, tmp_path / "data"), device="cpu", input_px=96) as opened:
        yield opened


def on(name: str) -> cl.Where:
    return cl.Where(reference_sets=(name,))


def answers(workspace: cl.Workspace, run_id: int, method: str = "best-place") -> list[runs.FrameResult]:
    with workspace.db.read() as session:
        return runs.results(session, run_id, method=method)


def test_every_frame_of_the_map_gets_metres_an_ellipse_and_its_corners(workspace: cl.Workspace, sources: Path):
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"))
    summary = run.summary.fix
    assert summary is not None and (summary.verified, summary.matches) == (FRAMES, FRAMES)
    assert summary.median_verify_ms > 0
    for result in answers(workspace, run.id):
        pose = result.fix.pose
        assert isinstance(pose, Pose2D) and pose.probability > 0.9
        assert pose.ground_covariance_m2.east_east > 0 and len(set(pose.corners)) == 4
        assert result.fix.conditions.map_name == "area" and "altitude" in result.fix.conditions.footprint_source


def test_with_the_cameras_field_of_view_the_aircraft_is_known_in_metres(workspace: cl.Workspace, sources: Path):
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA)
    summary = run.summary.fix
    assert summary.median_aircraft_error_m < 3.0 < run.summary.median_error_m
    assert summary.median_heading_error_deg < 0.5
    by_fix = answers(workspace, run.id, FIX)
    assert all(result.estimate.location == result.fix.pose.aircraft for result in by_fix)
    assert all(result.estimate.covariance_m2 == result.fix.pose.aircraft_covariance_m2 for result in by_fix)


def test_the_best_place_stays_what_it_is_without_verification(searched_workspace: cl.Workspace, sources: Path):
    (plain,) = searched_workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA, verify=False)
    assert plain.summary.fix is None and plain.id != VERIFIED
    verified = answers(searched_workspace, VERIFIED)
    assert all(isinstance(result.fix.answer, Pose2D) for result in verified)
    assert [(r.hits, r.estimate) for r in answers(searched_workspace, plain.id)] == [
        (r.hits, r.estimate) for r in verified
    ]
    assert all(result.fix is None for result in answers(searched_workspace, plain.id))


def test_frames_on_the_wrong_map_have_no_match_and_no_position(workspace: cl.Workspace, sources: Path, tmp_path: Path):
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("elsewhere"), camera=Camera(FOOTPRINT_M))
    summary = run.summary.fix
    assert summary is not None and summary.matches == 0 and sum(summary.no_match.values()) == FRAMES
    assert answers(workspace, run.id, FIX)[0].estimate is None
    workspace.export(FLIGHT, tmp_path / "out", formats=["json"])
    record = json.loads(next((tmp_path / "out").glob("*_00001_demo.json")).read_text())
    fix = record["estimate"]["fix"]
    assert fix["match"] is False and fix["reason"] in ("ambiguous", "no-ground")
    assert (fix["ground"], fix["aircraft"], fix["heading_deg"], fix["corners"], fix["runner_up"]) == (None,) * 5
    assert record["errors"]["fix_ground_m"] is None and record["estimate"]["location"]["lon"] > 0


def test_a_flight_far_from_the_references_is_warned_of(workspace: cl.Workspace, sources: Path):
    flight = cl.flight(sources / "flights" / FLIGHT)
    away = tuple(
        replace(frame, truth=replace(frame.truth, location=cl.core.types.LonLat(frame.truth.location.lon - 90.0, 10.0)))
        for frame in flight.frames
    )
    (run,) = workspace.search(replace(flight, frames=away), where=on("area"), verify=False)
    (notice,) = [notice for notice in run.notices if "lie where no reference" in notice]
    assert f"{FRAMES} of the {FRAMES} frames" in notice and "km away" in notice


def test_an_interrupted_verification_goes_on_without_another_search(
    workspace: cl.Workspace, sources: Path, monkeypatch: pytest.MonkeyPatch
):
    looked_for: list[int] = []
    fix = verification.Verifier.fix

    def interrupted(verifier, frame):
        if len(looked_for) == 2:
            raise KeyboardInterrupt
        looked_for.append(frame.index)
        return fix(verifier, frame)

    monkeypatch.setattr(verification.Verifier, "fix", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA)
    with workspace.db.read() as session:
        (stored,) = runs.runs(session, FLIGHT)
        assert stored.finished_at is not None, "the best places are there for everybody"
        assert len(localizations.frame_fixes(session, stored.id)) == 2
    monkeypatch.setattr(verification.Verifier, "fix", fix)
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA)
    assert run.id == stored.id and run.summary.fix.matches == FRAMES
    assert run.stored.finished_at == stored.finished_at
    monkeypatch.setattr(verification.Verifier, "fix", lambda verifier, frame: FrameFix(NotVerified("not looked for")))
    (again,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"), camera=CAMERA)
    assert again.id != run.id, "what is finished is not gone on with"


def test_where_the_source_is_gone_the_fix_is_refused_with_the_reason(
    pristine: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    moved = sources / "area.tif.away"
    (sources / "area.tif").rename(moved)
    try:
        copy_data(pristine, tmp_path / "data")
        with cl.open(tmp_path / "data", device="cpu", input_px=96) as workspace:
            (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"))
            assert any("no fixes on reference set area" in notice for notice in run.notices)
            summary = run.summary.fix
            assert summary.verified == summary.matches == 0
            results = answers(workspace, run.id)
            assert all(isinstance(result.fix.answer, NotVerified) and result.estimate for result in results)
            assert all("area.tif" in result.fix.reason for result in results)
    finally:
        moved.rename(sources / "area.tif")


def test_sets_of_one_source_are_one_map_and_of_two_the_better_one_answers(workspace: cl.Workspace, sources: Path):
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=cl.Where(reference_sets=("area", "elsewhere")))
    results = answers(workspace, run.id)
    assert {result.fix.conditions.map_name for result in results} == {"area"}
    assert run.summary.fix.matches == FRAMES


def test_windows_of_places_that_several_frames_share_are_read_once(
    searched_workspace: cl.Workspace, monkeypatch: pytest.MonkeyPatch
):
    (stored,) = searched_workspace.reference_sets(on("area"))
    maps = verification.open_reference_maps(searched_workspace.db, [stored])
    results = answers(searched_workspace, VERIFIED)
    request = verification.FixRequest(CAMERA)
    apart = [verification.Verifier(FOOTPRINT_M, [result], maps, request).fix(result.frame).answer for result in results]
    windows: list[tuple[object, ...]] = []
    read = OrthophotoWindows.window
    monkeypatch.setattr(OrthophotoWindows, "window", lambda *asked: (windows.append(asked), read(*asked))[1])
    together = verification.Verifier(FOOTPRINT_M, results, maps, request)
    assert [together.fix(result.frame).answer for result in results] == apart
    of_places = [asked for asked in windows if asked[3] == max(gsd_m for *_, gsd_m in windows)]
    places = [{place.tile.center for place in places_of(result.hits)[:10]} for result in results]
    assert len(of_places) == len(set(of_places)) == len(set.union(*places)) < sum(map(len, places))


def test_sets_of_one_file_share_its_map_unless_they_take_it_in_another_crs(workspace: cl.Workspace):
    (stored,) = workspace.reference_sets(on("area"))
    as_stated = {"crs": "EPSG:32652"}
    sets = [
        replace(stored, reference_set=replace(stored.reference_set, name=name, parameters=parameters))
        for name, parameters in (("a", {}), ("b", {}), ("c", as_stated), ("d", as_stated))
    ]
    maps = verification.open_reference_maps(workspace.db, sets)
    assert maps["a"].source is maps["b"].source and maps["c"].source is maps["d"].source
    assert maps["a"].source is not maps["c"].source


def test_the_maps_own_error_is_kept_with_the_set_and_widens_every_ellipse(
    workspace: cl.Workspace, sources: Path, monkeypatch: pytest.MonkeyPatch
):
    source = cl.orthophoto(sources / "area.tif", name="area", footprint_m=FOOTPRINT_M, altitude_m=300)
    source.reference_set = replace(source.reference_set, map_sd_m=4.0)
    workspace.ingest(source, ["demo"])
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"))
    (closer,) = workspace.search(sources / "flights" / FLIGHT, where=on("area"), map_sd_m=0.0)
    for wide, narrow in zip(answers(workspace, run.id), answers(workspace, closer.id), strict=True):
        assert (wide.fix.conditions.map_sd_m, wide.fix.conditions.map_sd_source) == (4.0, "given")
        added = wide.fix.pose.ground_covariance_m2.east_east - narrow.fix.pose.ground_covariance_m2.east_east
        assert added == pytest.approx(16.0, abs=1e-6)


def test_a_stored_fix_is_read_back_as_it_was(searched_workspace: cl.Workspace):
    with searched_workspace.db.write() as session:
        stored = localizations.frame_fixes(session, VERIFIED)
        copy = localizations.start_localization(session, 1, "copy", [VERIFIED], [], {})
        keys = {result.frame.index: number for number, result in enumerate(runs.results(session, VERIFIED), start=1)}
        fixes.save_fixes(session, copy, [(keys[index], fix) for index, fix in stored.items()])
        session.flush()
        assert fixes.fixes(session, copy) == stored


def test_captures_are_laid_together_and_their_number_is_said(workspace: cl.Workspace, sources: Path, tmp_path: Path):
    cut = cl.orthophoto(sources / "area.tif", footprint_m=FOOTPRINT_M, altitude_m=300, angles=(0, 90), tile_px=150)
    write_captures(cut, tmp_path / "captures")
    (source,) = cl.captures(tmp_path / "captures")
    workspace.ingest(source, ["demo"])
    (run,) = workspace.search(sources / "flights" / FLIGHT, where=on(source.reference_set.name))
    assert run.summary.fix.matches == FRAMES and run.summary.fix.median_aircraft_error_m < 5.0
    assert all(result.fix.conditions.map_pictures > 4 for result in answers(workspace, run.id))
