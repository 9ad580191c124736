"""What a set, a flight and a frame are known by, and that what a finished run found never changes."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import record_run
from sqlalchemy import text

from coarseloc.core import geo, ids
from coarseloc.core.clock import FlightClock
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import EmbeddingSpec, Flight, Frame, LonLat, Pose, ReferenceSet, Tile, Timing, View
from coarseloc.store import Database, embeddings, flights, references, runs
from coarseloc.vectors import sync
from coarseloc.vectors.protocol import VectorStore

PLACE = LonLat(127.0, 37.5)
SPEC = EmbeddingSpec("fake", 4, "weights", 32, (0.5,) * 3, (0.5,) * 3, "cls")
KOREAN = "강남 300 m"


def reference_set(name: str = KOREAN, source: str = "/nowhere/area.tif", **changed: object) -> ReferenceSet:
    return replace(ReferenceSet(name, "orthophoto", source, 300.0, 0.5, 300.0, (0, 90)), **changed)


def tiles(count: int = 4, east_m: float = 0.0) -> list[Tile]:
    centres = [geo.offset(PLACE, east_m + 150.0 * i, 0.0) for i in range(count)]
    return [Tile(i, centre, geo.square(centre, 300.0)) for i, centre in enumerate(centres, 1)]


def ingest(db: Database, wanted: ReferenceSet, of: list[Tile]) -> references.StoredReferenceSet:
    """The set with its tiles and vectors."""
    with db.write() as session:
        stored = references.save_reference_set(session, wanted, of)
        keys = references.save_tiles(session, stored.id, of)
        spec = embeddings.save_spec(session, SPEC)
        views = [
            (t, View(a, np.zeros((1, 1, 3), np.uint8), f"{t.index:060d}{a:04d}", 1.0, None), "s")
            for t in of
            for a in (0, 90)
        ]
        rotated = references.save_views(session, stored.point_key, keys, views)
        vector = np.array([1, 0, 0, 0], np.float32)
        embeddings.write_embeddings(session, [(key, spec.id, "c", vector) for key in rotated.values()])
    return stored


def flight(folder: Path, names: list[str], flight_id: str | None = None) -> Flight:
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for index, name in enumerate(names, 1):
        (folder / name).write_text(name)
        frames.append(Frame(index, folder / name, name, Pose(PLACE, yaw_deg=10.0), None, f"print of {name}"))
    return Flight(ids.label(flight_id or folder.name), folder, tuple(frames), None, "labels")


def found(db: Database, run: int) -> list[object]:
    with db.read() as session:
        return [
            (r.frame.index, [(h.score, h.tile, h.path) for h in r.hits], r.estimate, r.error)
            for r in runs.results(session, run)
        ]


def recorded(db: Database, of: Flight, stored: references.StoredReferenceSet) -> int:
    with db.read() as session:
        (spec,) = embeddings.specs(session)
        keys = [one.id for _, one in sorted(references.rotated_tiles(session, stored.id).items())]
    hits = [(key, 0.9 - 0.01 * rank) for rank, key in enumerate(keys)]
    answers = {frame.index: (Timing(1.0, 2.0, 3.0), hits) for frame in of.frames}
    parameters = {"k": 2, "where": {}, "batch": 1, "angle_deg": None, "index_version": "1"}
    return record_run(db, of, stored, spec, parameters, {"backend": "faiss-cpu", "device": "cpu"}, answers)


# --- reference sets -------------------------------------------------------------------------------


def test_a_set_keeps_its_id_and_its_name_in_any_script(db: Database):
    first = ingest(db, reference_set(), tiles())
    again = ingest(db, reference_set(unicodedata.normalize("NFD", KOREAN)), tiles())
    assert (again.uid, again.name) == (first.uid, KOREAN) and len(first.uid) == 32
    with db.read() as session:
        assert references.find_reference_set(session, unicodedata.normalize("NFD", KOREAN)).uid == first.uid


def test_another_source_under_a_known_name_is_refused_with_how_to_name_it(db: Database, tmp_path: Path):
    here = tmp_path / "area.tif"
    here.touch()
    ingest(db, reference_set(source=str(here)), tiles())
    with pytest.raises(InputError, match=rf"was built from {here}.*Name the new one with --reference-set"):
        ingest(db, reference_set(source="/other/area.tif"), tiles(east_m=9000.0))


def test_a_source_that_has_moved_is_the_same_set_and_other_tiles_are_not(db: Database):
    first = ingest(db, reference_set(source="/gone/area.tif"), tiles())
    assert ingest(db, reference_set(source="/moved/area.tif"), tiles()).uid == first.uid
    with pytest.raises(InputError, match="is known already"):
        ingest(db, reference_set(source="/third/area.tif"), tiles(east_m=500.0))


def test_a_run_keeps_what_it_found_when_its_tiles_move_and_when_its_set_is_deleted(db: Database, tmp_path: Path):
    stored = ingest(db, reference_set(), tiles())
    run = recorded(db, flight(tmp_path / "f", ["a.jpg", "b.jpg"]), stored)
    before = found(db, run)
    ingest(db, reference_set(), tiles(east_m=3e5))
    assert found(db, run) == before
    with db.write() as session:
        references.delete_reference_set(session, stored.id)
    assert found(db, run) == before
    with db.read() as session:
        (kept,) = runs.runs(session)
    assert kept.reference_set.name == KOREAN and kept.set_uids == (stored.uid,)


# --- flights and frames ---------------------------------------------------------------------------


def save(db: Database, of: Flight) -> flights.StoredFlight:
    with db.write() as session:
        return flights.save_flight(session, of)


def test_another_flight_under_a_known_name_is_refused_with_how_to_name_it(db: Database, tmp_path: Path):
    save(db, flight(tmp_path / "day1/100MEDIA", ["DJI_0001.jpg"]))
    with pytest.raises(InputError, match=r"is known already.*--flight-id day2-100MEDIA"):
        save(db, flight(tmp_path / "day2/100MEDIA", ["DJI_0001.jpg"]))
    renamed = save(db, flight(tmp_path / "day2/100MEDIA", ["DJI_0001.jpg"], "둘째 날"))
    assert renamed.flight.flight_id == "둘째 날"


def test_a_flight_that_has_moved_is_the_same_and_said(db: Database, tmp_path: Path):
    first = save(db, flight(tmp_path / "here/f", ["a.jpg", "b.jpg"]))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = save(db, flight(tmp_path / "there/f", ["a.jpg", "b.jpg"]))
    assert moved.uid == first.uid and "has moved from" in moved.notices[0]


def test_frames_that_come_and_go_change_no_number_and_no_result(db: Database, tmp_path: Path):
    stored = ingest(db, reference_set(), tiles())
    of = flight(tmp_path / "f", ["f_00056.jpg", "f_00057.jpg", "f_00058.jpg"])
    of = replace(of, frames=tuple(replace(frame, index=55 + i) for i, frame in enumerate(of.frames, 1)))
    run = recorded(db, of, stored)
    before = found(db, run)
    copy = flight(tmp_path / "f", ["f_00056.jpg", "f_00057 (1).jpg", "f_00057.jpg"])
    saved = save(db, copy)
    assert [(frame.filename, frame.index) for frame in saved.flight.frames] == [
        ("f_00056.jpg", 56), ("f_00057 (1).jpg", 2), ("f_00057.jpg", 57)
    ]  # fmt: skip
    assert saved.missing == {58} and any("1 frames are no longer in" in text for text in saved.notices)
    assert found(db, run) == before
    with db.read() as session:
        known = flights.find_flight(session, "f")
    assert [frame.index for frame in known.flight.frames] == [56, 2, 57, 58]  # in the flight's order


def test_a_frame_without_results_that_goes_is_forgotten(db: Database, tmp_path: Path):
    save(db, flight(tmp_path / "f", ["a.jpg", "b.jpg"]))
    saved = save(db, flight(tmp_path / "f", ["b.jpg"]))
    assert [(frame.filename, frame.index) for frame in saved.flight.frames] == [("b.jpg", 2)] and not saved.missing


def test_changed_pictures_and_truths_are_said(db: Database, tmp_path: Path):
    of = flight(tmp_path / "f", ["a.jpg", "b.jpg"])
    save(db, of)
    first, second = of.frames
    changed = (replace(first, fingerprint="another"), replace(second, truth=Pose(LonLat(128.0, 37.5))))
    notices = save(db, replace(of, frames=changed)).notices
    assert any("files of 1 frames have changed" in text for text in notices)
    assert any("truth of 1 frames has changed" in text for text in notices)


@pytest.mark.parametrize("clock", [FlightClock("exif", -12_600), FlightClock("interval", None, 0.5), FlightClock()])
def test_times_clocks_and_attitudes_are_stored_and_read(db: Database, tmp_path: Path, clock: FlightClock):
    of = flight(tmp_path / "f", ["a.jpg"])
    taken = datetime(2025, 11, 24, 15, 57, 12, 500_000)
    pose = Pose(LonLat(127.0, 37.5), 110.0, 90.0, -2.5, 1.5, "takeoff")
    save(db, replace(of, frames=(replace(of.frames[0], time=taken, truth=pose),), clock=clock))
    with db.read() as session:
        stored = flights.find_flight(session, "f").flight
    assert (stored.frames[0].time, stored.frames[0].truth, stored.clock) == (taken, pose, clock)


names = st.lists(st.text("ab12", min_size=1, max_size=3), unique=True, max_size=6)


@given(names, names, st.data())
def test_a_number_once_given_never_changes_and_no_two_are_alike(
    first: list[str], second: list[str], data: st.DataObject
):
    def frames(of: list[str]) -> list[Frame]:
        return [Frame(data.draw(st.integers(1, 8)), Path(name), name) for name in of]

    stored = flights.frame_indices(frames(first), {})
    then = flights.frame_indices(frames(second), stored)
    assert all(then[name] == stored[name] for name in second if name in stored)
    together = stored | then
    assert len(set(together.values())) == len(together)


# --- renamed and deleted ----------------------------------------------------------------------------


def test_a_renamed_flight_keeps_its_answers_and_its_folder_is_told_of(db: Database, tmp_path: Path):
    stored = ingest(db, reference_set(), tiles())
    flown = flight(tmp_path / "flight", ["a_0001.jpg"])
    recorded(db, flown, stored)
    with db.write() as session:
        flights.rename_flight(session, "flight", "  둘째 비행 ")
        assert flights.flight_ids(session) == ["둘째 비행"] and len(runs.runs(session, "둘째 비행")) == 1
        with pytest.raises(InputError, match="taken"):
            flights.rename_flight(session, "둘째 비행", "둘째 비행")
        with pytest.raises(InputError, match="empty"):
            flights.rename_flight(session, "둘째 비행", " ")
        (notice,) = flights.save_flight(session, flown).notices
    assert "--flight-id 둘째 비행" in notice


def test_a_deleted_flight_takes_its_answers_along_and_nothing_of_another(db: Database, tmp_path: Path):
    stored = ingest(db, reference_set(), tiles())
    for name in ("one", "two"):
        recorded(db, flight(tmp_path / name, ["a_0001.jpg"]), stored)
    tables = ("frames", "search_runs", "hits", "localizations", "frame_estimates", "tile_snapshots", "search_maps")

    def count() -> dict[str, int]:
        with db.read() as session:
            return {name: session.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in tables}

    both = count()
    with db.write() as session:
        expected = {"runs": 1, "hits": both["hits"] // 2, "answers": 1, "marked": 0}
        assert flights.flight_results(session, "one") == expected
        flights.delete_flight(session, "one")
        assert flights.flight_ids(session) == ["two"]
    shared = ("tile_snapshots", "search_maps")  # both flights found the same tiles
    assert count() == {name: n if name in shared else n // 2 for name, n in both.items()}
    with db.write() as session:
        flights.delete_flight(session, "two")
        with pytest.raises(StoreError, match="'two' is not known"):
            flights.delete_flight(session, "two")
    assert count() == dict.fromkeys(tables, 0)


def test_a_renamed_set_is_itself_in_both_stores_and_its_runs_keep_the_name_that_it_had(
    db: Database, vectors: VectorStore, tmp_path: Path
):
    stored = ingest(db, reference_set("old"), tiles())
    recorded(db, flight(tmp_path / "flight", ["a_0001.jpg"]), stored)
    sync.drain(db, vectors)
    with db.write() as session:
        references.rename_reference_set(session, "old", "new")
        with pytest.raises(InputError, match="taken"):
            references.rename_reference_set(session, "new", "new")
        assert sum(embeddings.pending_counts(session).values()) == 8
    sync.drain(db, vectors)
    (collection,) = vectors.collections()
    query = np.array([1, 0, 0, 0], np.float32)
    assert len(vectors.query(collection, query, 10, Where(reference_sets=("new",)))) == 8
    assert vectors.query(collection, query, 10, Where(reference_sets=("old",))) == []
    with db.read() as session:
        (run,) = runs.runs(session, "flight")
        assert run.reference_set.name == "old"
        assert references.find_reference_set(session, "new").uid == stored.uid
