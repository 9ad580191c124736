"""A flight searched: what is recorded, what is timed, and how it goes on after a stop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from coarseloc.core.errors import InputError, LockedError, StoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import BBox, Frame, Near
from coarseloc.localize.localizer import rank
from coarseloc.store import runs
from search import faiss_vectors, recorder
from search import flight as module
from search.environment import WARM_UP
from search.faiss_cpu import max_threads
from search.flight import find_spec, run_search, shape_notices
from search.mirror import open_mirror
from search.mirror_index import index_tiles


@pytest.fixture
def search(world, fake_backbone):
    """Search a flight of the world with the fake backbone."""
    world.embed(fake_backbone)

    def run(flight=None, backbone=fake_backbone, **options):
        return run_search(world.db, world.mirrors, flight or world.flight(), [world.reference_set], backbone, **options)

    return run


def results(world, run):
    with world.db.read() as session:
        return runs.results(session, run)


def stored_runs(world):
    with world.db.read() as session:
        return runs.runs(session)


@pytest.mark.parametrize(
    ("frame_px", "reference_px", "text"),
    [
        ((160, 90), (8, 8), "160 x 90 px (16:9) and references square"),
        ((80, 80), (80, 60), "80 x 80 px (square) and references 4:3"),
        ((160, 120), (8, 6), None),
        ((100, 101), (8, 8), None),
        ((160, 90), None, None),
    ],
)
def test_frames_of_another_shape_than_the_references_are_told_of(
    world, fake_backbone, tmp_path, frame_px, reference_px, text
):
    Image.new("RGB", frame_px).save(tmp_path / "1.png")
    flight = replace(world.flight(), frames=(Frame(1, tmp_path / "1.png", "1.png"),))
    facts = replace(world.reference_set.reference_set, parameters={"picture_px": reference_px and list(reference_px)})
    sets = [replace(world.reference_set, reference_set=facts)]
    notices = shape_notices(flight, sets, fake_backbone.spec)
    assert text in notices[0] if text else not notices
    assert not shape_notices(flight, sets, replace(fake_backbone.spec, fit="crop"))


def test_each_frame_finds_its_place_at_its_heading(world, search):
    (run,) = search(k=5)
    found = results(world, run)
    assert [r.frame.index for r in found] == [1, 2, 3, 4, 5, 6]
    for i, result in enumerate(found):
        assert [hit.rank for hit in result.hits] == list(range(1, len(result.hits) + 1))
        best = result.hits[0]
        assert (best.tile.tile_id, best.tile.angle_deg) == (f"gangnam-300m/{i + 1:05d}", 90)
        assert best.score == pytest.approx(1.0, abs=1e-6)
        assert result.timing and min(result.timing.decode_ms, result.timing.embed_ms, result.timing.search_ms) > 0


def test_a_run_says_what_was_asked_and_what_answered(world, search):
    search(k=3, where=Where(angles=(0, 90), near=Near(127.03, 37.5, 5000.0)))
    (run,) = stored_runs(world)
    assert run.finished_at is not None and run.references == 12 and run.index_build_ms > 0
    assert run.parameters["where"] == {
        "angles": [0, 90],
        "near": {"lon": 127.03, "lat": 37.5, "radius_m": 5000.0},
    }
    assert (run.parameters["k"], run.parameters["batch"], run.parameters["angle_deg"]) == (3, 1, None)
    assert run.parameters["index_version"].startswith("24-")
    assert run.environment["backend"] in ("faiss-cpu", "faiss-gpu")
    assert run.environment["device"] == "cpu" and run.environment["warm_up"] == WARM_UP
    assert {"torch", "faiss", "coarseloc"} <= run.environment["versions"].keys()
    torch_threads, omp_threads = torch.get_num_threads(), faiss_vectors.library().omp_get_max_threads()
    assert run.environment["threads"] == {"torch": torch_threads, "faiss": max_threads(), "omp": omp_threads}


def test_the_warm_up_is_not_among_the_frames(world, search, fake_backbone):
    before = fake_backbone.images
    search()
    assert fake_backbone.images - before == 6 + WARM_UP


def test_frames_are_embedded_one_at_a_time_unless_a_batch_is_asked_for(world, search, fake_backbone):
    before = fake_backbone.batches
    (single,) = search()
    assert fake_backbone.batches - before == 6 + WARM_UP
    before = fake_backbone.batches
    (batched,) = search(batch=4)
    assert fake_backbone.batches - before == 2 + 2 * WARM_UP  # the last batch holds fewer
    assert [r.hits for r in results(world, single)] == [r.hits for r in results(world, batched)]


def test_frames_of_two_sizes_share_a_batch_run(world, search):
    from PIL import Image

    flight = world.flight()
    path = flight.frames[1].path
    Image.open(path).resize((128, 96)).save(path)
    (run,) = search(flight, batch=6)
    assert all(r.error is None and r.hits for r in results(world, run))


def test_per_angle_searches_each_heading_as_a_set_of_its_own_and_embeds_once(world, search, fake_backbone):
    before = fake_backbone.images
    made = search(per_angle=True, k=10)
    assert fake_backbone.images - before == 6 + WARM_UP
    assert [run.parameters["angle_deg"] for run in stored_runs(world)] == [0, 90, 180, 270]
    for run, angle in zip(made, (0, 90, 180, 270), strict=True):
        for result in results(world, run):
            assert {hit.tile.angle_deg for hit in result.hits} == {angle}
            assert len(result.hits) == 6  # all there are
    assert all(run.references == 6 for run in stored_runs(world))


def test_per_angle_leaves_out_headings_that_the_filter_leaves_out(world, search):
    search(per_angle=True, where=Where(angles=(0, 180)))
    assert [run.parameters["angle_deg"] for run in stored_runs(world)] == [0, 180]


def test_an_unreadable_frame_is_recorded_and_the_rest_go_on(world, search):
    flight = world.flight()
    flight.frames[2].path.write_bytes(b"not a picture")
    flight.frames[4].path.unlink()
    (run,) = search(flight)
    found = results(world, run)
    assert [r.error is None for r in found] == [True, True, False, True, False, True]
    assert "is not a JPEG" in found[2].error and "does not exist" in found[4].error
    assert found[2].timing is None and not found[2].hits


def test_a_flight_of_unreadable_frames_only_still_ends(world, search):
    flight = world.flight(2)
    for frame in flight.frames:
        frame.path.write_bytes(b"")
    (run,) = search(flight)
    assert all(r.error for r in results(world, run))


class Stopped(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("per_angle", [False, True])
def test_after_a_stop_the_same_search_goes_on_where_it_was(world, search, fake_backbone, per_angle):
    def stop(done, total, what):
        assert (total, what) == (6, "frames")
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        search(progress=stop, per_angle=per_angle)
    assert all(run.finished_at is None for run in stored_runs(world))
    seen, before = [], fake_backbone.images
    made = search(progress=lambda done, total, what: seen.append(done), per_angle=per_angle)
    assert seen == [5, 6]
    assert fake_backbone.images - before == 2 + WARM_UP
    assert [run.id for run in stored_runs(world)] == made
    assert all(run.finished_at for run in stored_runs(world))
    assert [len(results(world, run)) for run in made] == [6] * len(made)


def test_a_stopped_search_is_not_gone_on_with_elsewhere_or_against_other_references(world, search, fake_backbone):
    def stop(done, total, what):
        raise Stopped

    with pytest.raises(Stopped):
        search(progress=stop)
    fake_backbone.device = "cuda:0"  # another machine: its times are not to be mixed
    (elsewhere,) = search()
    world.embed(fake_backbone, range(1), shift=10)
    (newer,) = search()
    assert [r.id for r in stored_runs(world) if r.finished_at] == [elsewhere, newer]
    assert [len(results(world, run)) for run in (elsewhere, newer)] == [6, 6]


def test_a_finished_search_is_run_afresh(world, search):
    assert search() != search()


def test_the_same_search_at_once_is_refused(world, search):
    def again(done, total, what):
        search(k=7)  # another one may
        with pytest.raises(LockedError, match="another process is searching flight 251124155712 with fake"):
            search()

    search(progress=again, flight=world.flight(1))


def test_another_spec_of_the_same_backbone_is_not_mixed_in(world, search, make_fake_backbone):
    other = make_fake_backbone()
    other.spec = replace(other.spec, weights_digest="other")
    with pytest.raises(StoreError, match=r"has no embeddings of fake at 32 px fp32 with these weights; it has fake"):
        search(backbone=other)


def test_filters_that_match_nothing_say_so(world, search):
    with pytest.raises(InputError, match="none of the 24 rotated tiles"):
        search(where=Where(touches=BBox(0.0, 0.0, 1.0, 1.0)))


def test_a_flight_without_frames_and_nonsense_are_refused(world, search):
    with pytest.raises(InputError, match="has no frames"):
        search(replace(world.flight(), frames=()))
    with pytest.raises(InputError, match="k is 0"):
        search(k=0)


def test_one_vector_is_answered_from_the_mirror_under_any_filter(world, search, fake_backbone):
    spec = find_spec(world.db, world.reference_set, fake_backbone.spec)
    mirror = open_mirror(world.db, world.mirrors, world.reference_set, spec)
    vector = mirror.index.vectors[5]  # the second place at 90
    opened = [(world.reference_set, mirror)]
    (hits,), _ = rank(vector[None], index_tiles(world.db, opened), 1)
    assert (hits[0].key, hits[0].score) == (mirror.rotated_tile_ids[5], pytest.approx(1.0))
    (only,), _ = rank(vector[None], index_tiles(world.db, opened, Where(angles=(0,))), 100)
    assert only != [] and {hit.key for hit in only} == set(mirror.rotated_tile_ids[::4].tolist())


def test_hits_are_kept_until_k_places_are_reached(world, search):
    (run,) = search(k=3)
    for result in results(world, run):
        assert len({hit.tile.place_id for hit in result.hits}) == 3
        assert len(result.hits) == 3 or len({hit.tile.place_id for hit in result.hits[:-1]}) == 2
    assert max(len(result.hits) for result in results(world, run)) > 3  # four headings share a place


def test_several_reference_sets_are_one_search_space(world, search, fake_backbone):
    """Their tiles are ranked together, and the run says both."""
    other = world.add_reference_set("other")
    other.embed(fake_backbone, shift=3)
    mirrors = world.mirrors
    (run,) = run_search(
        world.db, mirrors, world.flight(), [world.reference_set, other.reference_set], fake_backbone, k=4
    )
    (stored,) = [one for one in stored_runs(world) if one.id == run]
    assert stored.reference_set.name == "gangnam-300m + other" and stored.references == 48
    best = {hit.tile.reference_set for result in results(world, run) for hit in result.hits[:4]}
    assert best == {"gangnam-300m", "other"}


def test_outcomes_are_committed_as_they_come(world, search, monkeypatch):
    monkeypatch.setattr(recorder, "COMMIT_EVERY_S", -1.0)
    counts = []

    def look(done, total, what):
        (run,) = stored_runs(world)
        counts.append(len(results(world, run.id)))

    search(progress=look)
    assert counts == [1, 2, 3, 4, 5, 6]


def test_a_stop_in_the_middle_of_saving_saves_nothing_twice(world, search, monkeypatch):
    monkeypatch.setattr(recorder, "COMMIT_EVERY_S", -1.0)
    save = module._save

    def saved_then_stopped(db, started, frame_keys, outcomes):
        save(db, started, frame_keys, outcomes)
        if outcomes:
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(module, "_save", saved_then_stopped)
        search()
    (run,) = search()
    assert len(results(world, run)) == 6


def test_frames_that_are_pictures_of_the_references_are_told_of(search):
    notices: list[str] = []
    search(k=2, notice=notices.append)
    assert any("6 of 6 frames have a reference's own embedding" in notice for notice in notices)
