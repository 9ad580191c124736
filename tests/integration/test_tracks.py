"""`coarseloc track`: a flight's frames as one track, stored, gone on with, and read by every reader."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from data_folders import copy_data, own_database
from PIL import Image
from textured_maps import textured_map

import coarseloc as cl
from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.types import Flight, Float32, Floats
from coarseloc.imagery.flights import open_flight
from coarseloc.localize.tracking.rank_grid import ReferenceGrid
from coarseloc.localize.tracking.virtual_flights import learned_ellipse_factor
from coarseloc.simulate.flight import simulate_flight
from coarseloc.store import localizations, runs
from coarseloc.store.localizations import TRACK, TRACK_SMOOTHED
from search.export.records import FrameTrackInfo
from search.tracking import cascade as cascades
from search.tracking import frames as track_frames
from search.tracking import ranks

FLIGHT, FRAMES, FOOTPRINT_M, CLOUD = "251124155712", 8, 300.0, 5
CLEAR = {1, 2, 3, 4, 7, 8}  # a cloud, and the frame after it, register with nothing


@pytest.fixture(scope="module")
def ground_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textured_map(tmp_path_factory.mktemp("map") / "map.tif", seed=1)


@pytest.fixture(scope="module")
def flight(ground_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames in a row; the fifth one shows a cloud."""
    folder = simulate_flight(
        ground_map, tmp_path_factory.mktemp("flights"), flight_id=FLIGHT, frames=FRAMES, footprint_m=FOOTPRINT_M,
        side_px=160, seed=5,
    ).path  # fmt: skip
    noise = np.random.default_rng(0).normal(235, 0.7, (160, 160, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(folder / f"{FLIGHT}_{CLOUD:05d}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def searched(ground_map: Path, flight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the map ingested and the flight searched."""
    folder = tmp_path_factory.mktemp("searched") / "data"
    with own_database(), cl.open(folder, device="cpu", input_px=96) as workspace:
        workspace.ingest(cl.orthophoto(ground_map, name="area", footprint_m=FOOTPRINT_M, altitude_m=300), ["demo"])
        workspace.search(flight)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _ellipses_learnt_once() -> Iterator[None]:
    """A rank filter's ellipses are learnt on the references alone, in seconds: many tracks here have the same."""
    factors: dict[tuple[bytes, bytes], float | None] = {}

    def remembered(vectors: Float32, tiles: Floats, grid: ReferenceGrid) -> float | None:
        references = vectors.tobytes(), tiles.tobytes()
        if references not in factors:
            factors[references] = learned_ellipse_factor(vectors, tiles, grid)
        return factors[references]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "learned_ellipse_factor", remembered)
        yield


class Tracked(NamedTuple):
    """A data folder in which the flight was tracked, to be copied, and its causal track."""

    folder: Path
    records: list[FrameTrackInfo]


def as_wide_as_it_is(flight: Path) -> Flight:
    return open_flight(flight, camera=Camera(FOOTPRINT_M))


@pytest.fixture(scope="module")
def map_track(ground_map: Path, flight: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Tracked on the map, by frames whose width was given."""
    folder = tmp_path_factory.mktemp("map-track") / "data"
    with own_database(), cl.open(folder, device="cpu") as workspace:
        records = list(workspace.track(as_wide_as_it_is(flight), map_request=cl.MapRequest(ground_map)))
    return Tracked(folder, records)


@pytest.fixture(scope="module")
def run_track(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """Tracked by fixes at the best places of its run."""
    folder = copy_data(searched, tmp_path_factory.mktemp("run-track") / "data")
    with cl.open(folder, device="cpu", input_px=96) as workspace:
        return Tracked(folder, tracked(workspace))


@pytest.fixture
def map_tracked(map_track: Tracked, coarseloc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which commands work on."""
    monkeypatch.setenv("COARSELOC_DATA_DIR", str(tmp_path / "map-tracked"))
    monkeypatch.delenv("COARSELOC_DATABASE_URL", raising=False)
    return copy_data(map_track.folder, tmp_path / "map-tracked")


@pytest.fixture
def run_tracked(run_track: Tracked, tmp_path: Path) -> Iterator[cl.Workspace]:
    with cl.open(copy_data(run_track.folder, tmp_path / "run-tracked"), device="cpu", input_px=96) as opened:
        yield opened


@pytest.fixture
def workspace(searched: Path, tmp_path: Path) -> Iterator[cl.Workspace]:
    copy_data(searched, tmp_path / "data")
    with cl.open(tmp_path / "data", device="cpu", input_px=96) as opened:
        yield opened


def tracked(workspace: cl.Workspace, **options: object) -> list[FrameTrackInfo]:
    return list(workspace.track(FLIGHT, **options))


def results(workspace: cl.Workspace, method: str) -> list[runs.FrameResult]:
    with workspace.db.read() as session:
        return runs.results(session, 1, method=method)


# --- on a map, without any embedding ------------------------------------------------------------


def test_a_folder_is_tracked_on_a_map_and_a_cloud_has_no_position(coarseloc, ground_map, flight):
    records = coarseloc("track", flight, "--map", ground_map, "--json").json
    assert [record["frame_index"] for record in records] == list(range(1, FRAMES + 1))
    for record in records:
        track = record["track"]
        if record["frame_index"] not in CLEAR:
            assert not track["measured"]
            continue
        assert track["state"] in ("tracking", "recovered") and track["point"] == "aircraft"
        assert record["errors"]["track_m"] < 5.0 and record["errors"]["heading_error_deg"] < 1.0
        ellipse = track["location"]["ellipse_95"]
        assert record["errors"]["track_m"] < ellipse["major_m"] < 30.0
    assert records[0]["track"]["mode"] == "causal" and records[0]["track"]["odometry"] == "frames"


def test_frames_in_a_row_are_searched_nearby_and_the_cloud_nowhere(map_tracked):
    with cl.open(map_tracked) as workspace, workspace.db.read() as session:
        causal, smoothed = localizations.newest_tracks(session, FLIGHT)
        estimates = localizations.track(session, causal)
        smooth = localizations.track(session, smoothed)
    assert [estimate.searched for estimate in estimates.values()][:4] == ["map", "nearby", "nearby", "nearby"]
    assert estimates[CLOUD].searched is None
    assert (causal.method, smoothed.method) == (TRACK, TRACK_SMOOTHED)
    assert {estimate.mode for estimate in smooth.values()} == {"smoothed"} and len(smooth) == FRAMES


def test_the_same_command_gives_the_same_track_without_reading_a_picture(
    coarseloc, ground_map, flight, map_track, map_tracked, monkeypatch: pytest.MonkeyPatch
):
    options = ("track", flight, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json")
    first = [record.model_dump(mode="json") for record in map_track.records]
    monkeypatch.setattr(track_frames, "read_frame", lambda frame: pytest.fail(f"{frame.path} was read again"))
    again = coarseloc(*options).json
    assert all(record.pop("track_ms") is None for record in again)
    assert all(record.pop("track_ms") > 0 for record in first)
    assert again == first


def test_an_interrupted_track_goes_on_to_the_same_estimates(workspace: cl.Workspace, ground_map, flight, map_track):
    part = workspace.track(as_wide_as_it_is(flight), map_request=cl.MapRequest(ground_map))
    for _ in range(4):
        next(part)
    part.close()
    with workspace.db.read() as session:
        assert localizations.newest_tracks(session, FLIGHT) == []
    rest = list(workspace.track(as_wide_as_it_is(flight), map_request=cl.MapRequest(ground_map)))
    assert [record.track for record in rest] == [record.track for record in map_track.records]
    assert [record.track_ms is None for record in rest] == [True] * 4 + [False] * 4
    with workspace.db.read() as session:
        assert len(localizations.newest_tracks(session, FLIGHT)) == 2


def test_a_frame_that_comes_later_changes_what_comes_after_it(coarseloc, ground_map, flight, map_track, tmp_path):
    """Motion and searches of the frames behind it were of another frame before them."""
    options = ("--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json")
    growing = shutil.copytree(flight, tmp_path / "growing")
    late = growing / f"{FLIGHT}_00003.jpg"
    late.rename(tmp_path / late.name)
    coarseloc("track", growing, *options)
    (tmp_path / late.name).rename(late)
    result = coarseloc("track", growing, *options)
    assert f"tracked anew from {FLIGHT}_00003.jpg on" in " ".join(result.err.split())
    assert [record["track_ms"] is None for record in result.json] == [True] * 2 + [False] * 6
    whole = [record.track.model_dump(mode="json") for record in map_track.records]
    assert [record["track"] for record in result.json] == whole


def test_an_online_track_stores_no_smoothed_one(coarseloc, ground_map, flight, state):
    assert coarseloc("track", flight, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--online").code == 0
    with cl.open(state) as workspace, workspace.db.read() as session:
        (causal,) = localizations.newest_tracks(session, FLIGHT)
    assert causal.method == TRACK


def test_a_picture_that_cannot_be_read_is_named_and_the_track_goes_on(coarseloc, ground_map, flight, tmp_path):
    damaged = shutil.copytree(flight, tmp_path / FLIGHT)
    (damaged / f"{FLIGHT}_{CLOUD:05d}.jpg").write_bytes(b"no picture")
    records = coarseloc("track", damaged, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--json").json
    assert len(records) == FRAMES
    errors = {record["frame_index"]: record["error"] for record in records}
    assert f"{FLIGHT}_{CLOUD:05d}.jpg is not" in errors.pop(CLOUD) and set(errors.values()) == {None}
    measured = {record["frame_index"] for record in records if record["track"]["measured"]}
    assert measured == CLEAR


def test_without_odometry_it_is_said_that_only_the_smoothed_track_counts(coarseloc, ground_map, flight, tmp_path):
    short = shutil.copytree(flight, tmp_path / "short", ignore=shutil.ignore_patterns("*_0000[3-9].jpg"))
    result = coarseloc("track", short, "--map", ground_map, "--footprint-m", FOOTPRINT_M, "--odometry", "none")
    assert result.code == 0 and "take the smoothed one" in result.err


def test_a_track_is_shown_as_a_table_with_its_states(coarseloc, ground_map, flight, map_tracked):
    result = coarseloc("track", flight, "--map", ground_map, "--footprint-m", FOOTPRINT_M)
    assert "tracked" in result.out and "median error" in result.out and "recovered" in result.out


def motion_file(path: Path, flight: Path, columns: str, per: float = 1.0) -> Path:
    """Each frame's motion east and north from the one before, by the truth."""
    frames = open_flight(flight).frames
    lines = [columns]
    for before, frame in itertools.pairwise(frames):
        east, north = geo.offset_m(before.truth.location, frame.truth.location)
        lines.append(f"{frame.filename},{east / per:.3f},{north / per:.3f}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(("columns", "per", "options"), [
    ("filename,east_m,north_m", 1.0, ()),
    ("filename,east_mps,north_mps", 4.0, ("--interval", "4")),
])  # fmt: skip
def test_motion_from_a_file_carries_the_track_through_the_cloud(
    coarseloc, ground_map, flight, tmp_path, columns, per, options
):
    file = motion_file(tmp_path / "motion.csv", flight, columns, per)
    records = coarseloc("track", flight, "--map", ground_map, "--odometry", file, *options, "--json").json
    assert {record["track"]["odometry"] for record in records} == {"file"}
    assert all(record["track"]["state"] in ("tracking", "recovered") for record in records)
    assert max(record["errors"]["track_m"] for record in records) < 20.0
    speeds = [record["track"]["speed_mps"] for record in records[1:]]
    assert all(speeds) if options else not any(speeds)


def test_what_a_motion_file_does_not_say_is_told(coarseloc, ground_map, flight, tmp_path):
    def said(text: str, *options: str) -> tuple[int, str]:
        (tmp_path / "motion.csv").write_text(text)
        on_map = ("--map", ground_map, "--footprint-m", FOOTPRINT_M)
        result = coarseloc("track", flight, *on_map, "--odometry", tmp_path / "motion.csv", *options)
        return result.code, " ".join(result.err.split())  # lines are broken by the path's length

    code, err = said("filename,x,y\na.jpg,1,2")
    assert code == 2 and "east_m and north_m" in err and "filename, x, y" in err
    code, err = said("filename,east_m,north_m\nother_00002.jpg,1,2")
    assert code == 2 and "none is of this flight" in err and "'other_00002'" in err
    code, err = said(f"filename,right_mps,forward_mps\n{FLIGHT}_00002.jpg,0,30")
    assert code == 2 and "--interval" in err
    code, err = said(f"filename,right_m,forward_m\n{FLIGHT}_00002.jpg,0,120")
    assert code == 0 and "1 of the 7 frames" in err and "states no errors" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--map", "area.tif", "--run", "1"), "not both"),
        (("--near", "127,37.5,500"), "go with --map or --reference-set"),
        (("--cascade", "tiny,demo"), "give --evidence ranks or both"),
        (("--cascade", "tiny", "--evidence", "ranks"), "expected two backbones"),
        (("--map", "MAP", "--footprint-m", "300", "--speed", "30:10"), "such as 10:35"),
        (("--map", "MAP", "--footprint-m", "300", "--speed", "10:30"), "give --interval SECONDS"),
    ],
)
def test_options_that_do_not_go_together_are_refused(coarseloc, ground_map, flight, options, message):
    result = coarseloc("track", flight, *(ground_map if option == "MAP" else option for option in options))
    assert result.code == 2 and message in result.err


def test_a_flight_that_was_never_searched_is_refused_with_what_to_do(coarseloc, flight):
    result = coarseloc("track", FLIGHT)
    assert result.code == 2 and "search" in result.err


# --- on a recorded run --------------------------------------------------------------------------


def test_a_run_is_tracked_and_its_answer_is_a_method_of_its_own(workspace: cl.Workspace, tmp_path: Path):
    before = [result.estimate for result in results(workspace, "best-place")]
    records = tracked(workspace)
    clear = [record for record in records if record.frame_index in CLEAR]
    assert all(record.track.state in ("tracking", "recovered") for record in clear)
    assert max(record.errors.track_m for record in clear) < 5.0
    assert [result.estimate for result in results(workspace, "best-place")] == before
    with workspace.db.read() as session:
        assert localizations.methods(session, 1) == ["best-place", "fix", TRACK, TRACK_SMOOTHED]
    for method in (TRACK, TRACK_SMOOTHED):
        by_track = {result.frame.index: result for result in results(workspace, method)}
        for record in clear:
            estimate = by_track[record.frame_index].estimate
            assert estimate is not None and estimate.covariance_m2 is not None
            assert by_track[record.frame_index].track.mode == ("causal" if method == TRACK else "smoothed")
            assert estimate.location == by_track[record.frame_index].track.position


def test_every_export_says_where_the_track_has_a_frame(run_tracked: cl.Workspace, tmp_path: Path):
    run_tracked.export(FLIGHT, tmp_path / "out", formats=["json"], crs="EPSG:32652")
    for path in sorted((tmp_path / "out").glob("*_demo.json")):
        record = json.loads(path.read_text())
        track = record["estimate"]["track"]
        if track["location"] is None:
            assert track["state"] in ("acquiring", "lost") and record["errors"]["track_m"] is None
        else:
            assert track["mode"] == "smoothed" and record["errors"]["track_m"] is not None
            assert track["location"]["grid"]["crs"] == "EPSG:32652"


def test_without_the_map_a_track_takes_the_fixes_that_are_stored_and_says_so(
    workspace: cl.Workspace, ground_map: Path, caplog: pytest.LogCaptureFixture
):
    notices: list[str] = []
    workspace.notice = notices.append
    moved = ground_map.rename(ground_map.with_suffix(".away"))
    try:
        records = tracked(workspace)
    finally:
        moved.rename(ground_map)
    assert any("only fixes that are stored are tracked" in notice for notice in notices)
    assert max(record.errors.track_m for record in records if record.frame_index in CLEAR - {7}) < 5.0
    assert sum(record.track.location is not None for record in records) >= FRAMES - 2


def test_a_run_without_fixes_is_tracked_by_its_best_places(workspace: cl.Workspace, flight: Path):
    (run,) = workspace.search(flight, verify=False)
    records = tracked(workspace, run_ids=[run.id])
    assert records[0].track.location is not None and records[0].errors.track_m < 5.0


def test_a_run_of_another_flight_is_refused(workspace: cl.Workspace, flight: Path, tmp_path: Path):
    other = shutil.copytree(flight, tmp_path / "251124160000")
    (run,) = workspace.search(other, verify=False)
    with pytest.raises(cl.core.errors.InputError, match=f"run {run.id} is of flight 251124160000"):
        tracked(workspace, run_ids=[run.id])


def test_tracks_are_evaluated_beside_the_run_they_are_of(run_tracked: cl.Workspace):
    evaluations = run_tracked.evaluate(FLIGHT)
    causal, smoothed = evaluations.tracks
    assert (causal.label, smoothed.label) == ("track, fixes", "track-smoothed, fixes")
    assert causal.scores["track_error_median"].value < 5.0 and causal.scores["track_claimed"].n == FRAMES
    assert causal.scores["track_claimed"].value == pytest.approx(len(CLEAR) / FRAMES)
    bound = causal.scores["track_false_claims"]
    assert (bound.value, bound.n) == (0.0, len(CLEAR)) and bound.high == pytest.approx(1 - 0.05 ** (1 / len(CLEAR)))
    assert (causal.acquired_after, causal.losses) == (0, [2])
    rows = [row for row in evaluations.to_json() if "track" in row]
    assert [row["track"]["method"] for row in rows] == [TRACK, TRACK_SMOOTHED]
    (group,) = rows[0]["track"]["reliability"]
    assert group["right"]["value"] == 1.0 and group["right"]["n"] == len(CLEAR) and group["low"] >= 0.7
    assert rows[0]["track"]["gaps"][0]["start_index"] == CLOUD and rows[1]["track"]["gaps"] == []


def test_a_flight_tracked_on_a_map_alone_is_evaluated_without_a_run(coarseloc, map_tracked, tmp_path, undrawn):
    result = coarseloc("evaluate", FLIGHT, "--csv", tmp_path / "scores.csv")
    assert result.code == 0 and "track: claims that are false" in result.out and "n 6" in result.out
    assert "track_error_median" in (tmp_path / "scores.csv").read_text()
    page = tmp_path / "report.html"
    assert coarseloc("report", FLIGHT, "--out", page, "--lang", "ko").code == 0
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="([a-z0-9-]+)"', text) == ["tracks", "track-1-belief", "track-1-ground"]
    assert f"프레임 {CLOUD}에서 놓침: " in text
    assert re.search(r"<small>≤ 39.3%</small><small>n 6</small>", text), "none of six is not none"


# --- ranks --------------------------------------------------------------------------------------


def test_ranks_alone_need_no_imagery_of_the_map(workspace: cl.Workspace, ground_map: Path, flight: Path):
    moved = ground_map.rename(ground_map.with_suffix(".away"))
    try:
        records = tracked(workspace, evidence="ranks")
    finally:
        moved.rename(ground_map)
    assert len(records) == FRAMES and all(record.track.odometry == "frames" for record in records)
    nearest = [min(record.track.alternatives, key=lambda place: -place.probability) for record in records[2:4]]
    truths = {frame.index: frame.truth.location for frame in open_flight(flight).frames}
    for record, place in zip(records[2:4], nearest, strict=True):  # too few frames for a claim, and the place is right
        assert float(geo.distance_m(*truths[record.frame_index], place.lon, place.lat)) < FOOTPRINT_M / 2
    with workspace.db.read() as session:
        assert {stored.parameters["evidence"] for stored in localizations.newest_tracks(session, FLIGHT)} == {"ranks"}


def test_both_registers_at_the_places_that_ranks_say(workspace: cl.Workspace):
    records = tracked(workspace, evidence="both")
    assert max(record.errors.track_m for record in records if record.frame_index in CLEAR) < 5.0
    again = tracked(workspace, evidence="both")
    assert [record.track for record in again] == [record.track for record in records]


def test_labels_yaw_is_evidence_of_ranks_and_another_question(workspace: cl.Workspace, flight: Path, tmp_path: Path):
    plain = tracked(workspace, evidence="ranks")
    labelled = tracked(workspace, evidence="ranks", yaw="labels")
    yaws = {frame.index: frame.truth.yaw_deg for frame in open_flight(flight).frames}
    for record in (labelled[0], labelled[2]):
        best = max(record.track.alternatives, key=lambda place: place.probability)
        assert geo.heading_difference(best.heading_deg, yaws[record.frame_index]) < 10.0
    assert [record.track for record in labelled] != [record.track for record in plain]
    with workspace.db.read() as session:
        newest = localizations.newest_tracks(session, FLIGHT)
    assert [stored.track_options for stored in newest[::2]] == [("demo",), ("demo", "--yaw labels")]
    for name, options in ((None, ["demo"]), ("ranks --yaw labels", ["demo", "--yaw labels"])):
        workspace.export(FLIGHT, tmp_path / str(name), formats=["json"], track_name=name)
        record = json.loads(next((tmp_path / str(name)).glob("*_demo.json")).read_text())
        assert (record["estimate"]["track"]["evidence"], record["estimate"]["track"]["options"]) == ("ranks", options)
    with pytest.raises(StoreError, match="expected one of 'ranks', 'ranks --yaw labels'"):
        workspace.export(FLIGHT, tmp_path / "no", formats=["json"], track_name="fixes")
    assert [record.track for record in tracked(workspace, evidence="ranks")] == [record.track for record in plain]


def test_yaw_of_labels_that_say_none_is_refused(coarseloc, ground_map, flight, tmp_path):
    unlabelled = shutil.copytree(flight, tmp_path / "unlabelled", ignore=shutil.ignore_patterns("labels.json"))
    options = ("--map", ground_map, "--footprint-m", FOOTPRINT_M, "--yaw", "labels")
    result = coarseloc("track", unlabelled, *options)
    assert result.code == 2 and "no label of flight unlabelled says a yaw" in result.err


def test_each_evidence_is_a_track_of_its_own(run_tracked: cl.Workspace):
    tracked(run_tracked, evidence="ranks")
    with run_tracked.db.read() as session:
        stored = localizations.newest_tracks(session, FLIGHT)
    assert [(track.method, track.parameters["evidence"]) for track in stored] == [
        (TRACK, "fixes"), (TRACK_SMOOTHED, "fixes"), (TRACK, "ranks"), (TRACK_SMOOTHED, "ranks"),
    ]  # fmt: skip


def test_ranks_on_a_map_alone_are_refused(coarseloc, ground_map, flight):
    result = coarseloc("track", flight, "--map", ground_map, "--evidence", "ranks")
    assert result.code == 2 and "needs hits" in result.err


# --- a cascade of two backbones -----------------------------------------------------------------


QUARTERS = cl.Where(angles=(0, 90, 180, 270))


@pytest.fixture(scope="module")
def cascade_folder(
    searched: Path,
    ground_map: Path,
    flight: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: CustomBackbone,
) -> Path:
    """References embedded by `demo` and a small backbone; the flight is searched by the small one among some of them,
    as run 2."""
    folder = copy_data(searched, tmp_path_factory.mktemp("cascade") / "data")
    with cl.open(folder, device="cpu", input_px=96, backbones=(tiny_backbone,)) as workspace:
        workspace.ingest(cl.orthophoto(ground_map, name="area", footprint_m=FOOTPRINT_M, altitude_m=300), ["tiny"])
        workspace.search(flight, backbones=["tiny"], where=QUARTERS, verify=False)
    return folder


@pytest.fixture
def cascade_workspace(cascade_folder: Path, tmp_path: Path, tiny_backbone: CustomBackbone) -> Iterator[cl.Workspace]:
    folder = copy_data(cascade_folder, tmp_path / "data")
    with cl.open(folder, device="cpu", input_px=96, backbones=(tiny_backbone,)) as opened:
        yield opened


def test_a_cascade_asks_the_larger_backbone_while_the_place_is_not_sure(
    cascade_workspace: cl.Workspace, monkeypatch: pytest.MonkeyPatch
):
    alone = tracked(cascade_workspace, evidence="ranks", run_ids=[2])
    small = tracked(cascade_workspace, evidence="ranks", cascade=("tiny", "demo"))
    by_index = {record.frame_index: record for record in small}
    # a frame that registers with nothing is no evidence by any backbone
    assert {index for index, record in by_index.items() if record.larger_ms is None} == {CLOUD, CLOUD + 1}
    assert [record.track for record in small] != [record.track for record in alone]
    monkeypatch.setattr(cascades, "decode", lambda path: pytest.fail(f"{path} was embedded again"))
    again = tracked(cascade_workspace, evidence="ranks", cascade=("tiny", "demo"))
    assert [record.track for record in again] == [record.track for record in small]


def test_a_cascade_by_fixes_asks_nothing_once_it_tracks_and_says_what_it_saved(
    cascade_workspace: cl.Workspace, coarseloc, monkeypatch: pytest.MonkeyPatch
):
    records = tracked(cascade_workspace, evidence="both", cascade=("tiny", "demo"))
    folder, backbone = cascade_workspace.settings.data_dir, cascade_workspace.settings.backbones[0]
    (folder / "coarseloc.toml").write_text(f'[[backbones]]\nname = "tiny"\npath = "{backbone.path}"\n')
    monkeypatch.setenv("COARSELOC_DATA_DIR", str(folder))
    shown = " ".join(coarseloc("track", FLIGHT, "--evidence", "both", "--cascade", "tiny,demo").out.split())
    assert re.search(r"larger backbone was asked for [1-4] of 8 frames, [\d.]+ s; the [4-7] others", shown)
    asked = {record.frame_index for record in records if record.larger_ms is not None}
    states = [record.track.state for record in records]
    assert states[1] == "tracking" and asked == {
        record.frame_index
        for record, before in zip(records, ["lost", *states], strict=False)
        if before not in ("tracking", "recovered") and record.frame_index not in (CLOUD, CLOUD + 1)
    }


def test_a_cascade_takes_the_larger_backbones_run_where_there_is_one(cascade_workspace: cl.Workspace, flight: Path):
    embedded = tracked(cascade_workspace, evidence="ranks", cascade=("tiny", "demo"))
    notices: list[str] = []
    cascade_workspace.notice = notices.append
    cascade_workspace.search(flight, backbones=["demo"], where=QUARTERS, verify=False)
    with cascade_workspace.db.write() as session:
        for stored in localizations.newest_tracks(session, FLIGHT):
            localizations.delete_localization(session, stored.id)
    recorded = tracked(cascade_workspace, evidence="ranks", cascade=("tiny", "demo"))
    assert any("the hits of demo are those of run 3" in text for text in notices)
    assert [record.track for record in recorded] == [record.track for record in embedded]


def test_a_cascade_without_a_run_of_its_small_backbone_is_refused(workspace: cl.Workspace):
    with pytest.raises(InputError, match="no search by vits16, only by demo"):
        tracked(workspace, evidence="ranks", cascade=("vits16", "demo"))
