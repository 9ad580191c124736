"""Ingest against a real database, a real vector store and image files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from whole import Whole, whole

from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.core.types import LonLat
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.decode import thumbnail_path
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.store import Database, embeddings, references
from coarseloc.vectors import sync
from coarseloc.vectors.protocol import VectorStore
from ingest import worker


@pytest.fixture
def ingest(db: Database, tmp_path: Path) -> Callable[..., worker.IngestSummary]:
    """Ingest a capture tree's first source with some backbones."""

    def run(root: Path, *backbones: Any, **options: Any) -> worker.IngestSummary:
        by_digest = {backbone.spec.digest: backbone for backbone in backbones}
        source = open_captures(root, **options)[0]
        specs = [backbone.spec for backbone in backbones]
        return worker.run(db, source, specs, lambda spec: by_digest[spec.digest], tmp_path / "thumbnails")

    return run


def stored(db: Database, backbone: Any, name: str | None = None) -> Whole:
    with db.read() as session:
        reference_set = references.find_reference_set(session, name)
        spec = embeddings.save_spec(session, backbone.spec)
        return whole(session, reference_set.id, spec.id)


def refuse(_: object) -> Any:
    raise AssertionError("a model was loaded although nothing is to be embedded")


def test_every_tile_has_its_place_heading_and_bounds(db, make_captures, ingest, fake_backbone):
    root = make_captures(columns=3, rows=2, angles=(0, 45))
    summary = ingest(root, fake_backbone)
    assert (summary.views, summary.read, summary.embedded["fake"]) == (12, 12, 12)
    found = stored(db, fake_backbone)
    assert [(f.tile_id.split("/")[1], f.angle_deg) for f in found.facts] == [
        (f"{i:05d}", angle) for i in range(1, 7) for angle in (0, 45)
    ]
    first, right, below = (next(f for f in found.facts if f.tile_id.endswith(f"/0000{i}")) for i in (1, 2, 4))
    assert first.center.lon < right.center.lon and first.center.lat == right.center.lat
    assert below.center.lat < first.center.lat and below.center.lon == pytest.approx(first.center.lon)
    # Overlap 50 % at a stride of 150 m is a footprint of 300 m: neighbours' bounds meet each other's centres.
    assert right.bbox.west == pytest.approx(first.center.lon, abs=1e-5)
    assert first.altitude_m == 300 and first.overlap == 0.5


def test_a_stored_vector_is_the_backbones_own_answer_for_that_file(db, make_captures, ingest, fake_backbone):
    root = make_captures()
    ingest(root, fake_backbone)
    found = stored(db, fake_backbone)
    path = next(root.glob("*_045/*_00002.jpg"))
    expected = fake_backbone.embed(np.asarray(Image.open(path).convert("RGB"))[None])[0]
    row = next(i for i, f in enumerate(found.facts) if f.tile_id.endswith("/00002") and f.angle_deg == 45)
    np.testing.assert_allclose(found.vectors[row], expected, atol=1e-6)


def test_a_second_run_reads_nothing_embeds_nothing_and_loads_no_model(make_captures, ingest, fake_backbone, db):
    root = make_captures()
    ingest(root, fake_backbone)
    source = open_captures(root)[0]
    summary = worker.run(db, source, [fake_backbone.spec], refuse, Path("unused"))
    assert (summary.up_to_date, summary.read, sum(summary.embedded.values())) == (12, 0, 0)


def test_a_changed_image_is_embedded_again_and_nothing_else(make_captures, ingest, fake_backbone, db):
    root = make_captures()
    ingest(root, fake_backbone)
    before = stored(db, fake_backbone)
    path = next(root.glob("*_000/*_00003.jpg"))
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(path)
    summary = ingest(root, fake_backbone)
    assert (summary.read, summary.embedded["fake"]) == (1, 1)
    after = stored(db, fake_backbone)
    changed = np.flatnonzero((before.vectors != after.vectors).any(axis=1))
    assert [(after.facts[i].tile_id[-5:], after.facts[i].angle_deg) for i in changed] == [("00003", 0)]
    assert before.version != after.version


def test_a_touched_but_equal_image_is_read_and_not_embedded(make_captures, ingest, fake_backbone):
    root = make_captures()
    ingest(root, fake_backbone)
    os.utime(next(root.glob("*_000/*_00003.jpg")), ns=(1, 1))
    summary = ingest(root, fake_backbone)
    assert (summary.read, sum(summary.embedded.values())) == (1, 0)
    assert ingest(root, fake_backbone).read == 0  # the new stamp was kept


def test_a_new_backbone_embeds_all_and_leaves_the_other_alone(make_captures, ingest, make_fake_backbone, db):
    root = make_captures()
    one, two = make_fake_backbone("one"), make_fake_backbone("two", dim=8)
    ingest(root, one)
    summary = ingest(root, one, two)
    assert dict(summary.embedded) == {"two": 12} and one.images == 12
    assert stored(db, two).vectors.shape == (12, 8)


def test_several_backbones_share_one_reading(make_captures, ingest, make_fake_backbone):
    summary = ingest(make_captures(), make_fake_backbone("one"), make_fake_backbone("two"))
    assert summary.read == 12 and dict(summary.embedded) == {"one": 12, "two": 12}


def test_a_new_angle_embeds_just_that(make_captures, ingest, fake_backbone, db):
    root = make_captures(angles=(0,))
    ingest(root, fake_backbone)
    make_captures(angles=(90,))
    summary = ingest(root, fake_backbone)
    assert (summary.views, summary.up_to_date, summary.embedded["fake"]) == (12, 6, 6)
    with db.read() as session:
        assert references.find_reference_set(session, None).reference_set.angles == (0, 90)


def test_an_unreadable_image_is_a_failure_and_the_rest_go_on(make_captures, ingest, fake_backbone, db):
    root = make_captures()
    broken = next(root.glob("*_045/*_00004.jpg"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    summary = ingest(root, fake_backbone)
    assert summary.embedded["fake"] == 11 and dict(summary.failures) == {"unreadable": 1}
    with db.read() as session:
        ((_, failure),) = references.failures(session)
    assert str(broken) in failure.item and failure.stage == "read"
    broken.write_bytes(whole)
    assert ingest(root, fake_backbone).embedded["fake"] == 1
    with db.read() as session:
        assert references.failures(session) == []  # mended, so forgotten


def test_thumbnails_are_written_by_content(make_captures, ingest, fake_backbone, tmp_path, db):
    ingest(make_captures(), fake_backbone)
    found = stored(db, fake_backbone)
    with db.read() as session:
        facts = embeddings.facts_by_key(session, [int(k) for k in found.rotated_tile_ids])
    for _, _, content in facts.values():
        with Image.open(thumbnail_path(tmp_path / "thumbnails", content)) as image:
            assert max(image.size) <= 192


def test_thumbnails_of_cut_tiles_that_are_gone_are_cut_again_without_a_model(db, fake_backbone, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    area = write_rgb(tmp_path / "a.tif", pixels, center=LonLat(127.0, 37.5), gsd_m=1.0)
    thumbnails = tmp_path / "thumbnails"

    def run(load: Any) -> worker.IngestSummary:
        source = open_orthophoto(area, footprint_m=60.0, overlap=0.0, angles=(0, 45, 90))
        return worker.run(db, source, [fake_backbone.spec], load, thumbnails)

    assert run(lambda _: fake_backbone).read == 27
    before, version = sorted(thumbnails.rglob("*.jpg")), stored(db, fake_backbone).version
    bytes_before = [path.read_bytes() for path in before]
    for path in (before[3], before[20]):
        path.unlink()
    again = run(refuse)
    assert (again.read, again.up_to_date, sum(again.embedded.values())) == (2, 25, 0)
    assert [path.read_bytes() for path in before] == bytes_before
    shutil.rmtree(thumbnails)
    assert (run(refuse).read, run(refuse).read) == (27, 0)
    assert sorted(thumbnails.rglob("*.jpg")) == before and stored(db, fake_backbone).version == version


def test_thumbnails_of_captures_are_left_to_the_pages_which_have_the_files(
    make_captures, ingest, fake_backbone, tmp_path
):
    root = make_captures()
    ingest(root, fake_backbone)
    shutil.rmtree(tmp_path / "thumbnails")
    assert ingest(root, fake_backbone).read == 0


def test_ctrl_c_keeps_what_is_embedded_and_the_next_run_goes_on(make_captures, ingest, fake_backbone, db, tmp_path):
    root = make_captures(columns=10, rows=4)
    source = open_captures(root)[0]

    def interrupt(done: int, total: int, what: str) -> None:
        if done >= total / 2:
            raise KeyboardInterrupt

    spec = fake_backbone.spec
    summary = worker.run(db, source, [spec], lambda _: fake_backbone, tmp_path / "t", interrupt)
    assert summary.interrupted and 0 < len(stored(db, fake_backbone).facts) < 80
    ingest(root, fake_backbone)
    assert len(stored(db, fake_backbone).facts) == 80 and fake_backbone.images == 80


def test_another_footprint_under_the_same_name_is_refused(make_captures, ingest, fake_backbone):
    root = make_captures()
    ingest(root, fake_backbone, footprint_m=300)
    with pytest.raises(InputError, match=r"footprint_m 300.*200"):
        ingest(root, fake_backbone, footprint_m=200)


def test_moved_labels_move_the_points_and_it_is_said(make_captures, ingest, fake_backbone, db, vectors, caplog):
    root = make_captures()
    ingest(root, fake_backbone, footprint_m=300)
    sync.drain(db, vectors)
    for path in root.glob("*.json"):
        labels = json.loads(path.read_text(encoding="utf-8-sig"))
        for image in labels["images"]:
            image["position"]["longitude"] += 1.0
        path.write_text(json.dumps(labels))
    summary = ingest(root, fake_backbone, footprint_m=300)
    assert "6 of 6 tiles of reference set 'captures-300m-50' lie elsewhere than before" in caplog.text
    assert sum(summary.embedded.values()) == 0
    assert sync.drain(db, vectors).upserted == 12
    far_west = Where(touches=(127.9, 37.0, 128.5, 38.0))  # type: ignore[arg-type]
    assert vectors.count(fake_backbone.spec.collection, Where(angles=(0,))) == 6
    assert far_west.touches


def test_what_is_gone_from_the_source_is_removed_and_comes_back_with_its_picture(
    make_captures, ingest, fake_backbone, db, vectors, tmp_path, caplog
):
    root = make_captures()
    ingest(root, fake_backbone)
    sync.drain(db, vectors)
    before = stored(db, fake_backbone)
    picture = next(root.glob("*_000/*_00003.jpg")).rename(tmp_path / "picture.jpg")
    (capture,) = root.glob("*_045")
    capture.rename(tmp_path / "away")
    summary = ingest(root, fake_backbone)
    assert (summary.views, summary.up_to_date, summary.removed) == (5, 5, 7)
    assert "7 views of reference set 'captures-300m-50' (first: tile 1 at 045) are no longer in" in caplog.text
    left = stored(db, fake_backbone)
    assert {(facts.tile_id[-5:], facts.angle_deg) for facts in left.facts} == {
        (f"{index:05d}", 0) for index in (1, 2, 4, 5, 6)
    }
    assert before.version != left.version
    assert sync.drain(db, vectors).deleted == 7
    with db.read() as session:
        reference_set = references.find_reference_set(session, None)
        assert reference_set.reference_set.angles == (0,)
        assert [tile.index for tile in references.tiles(session, reference_set.id)] == [1, 2, 4, 5, 6]
        assert references.count_views(session, reference_set.id) == {0: 5}
    (difference,) = sync.reconcile(db, vectors)
    assert not (difference.missing or difference.orphaned or difference.differing)
    picture.rename(next(root.glob("*_000")) / f"{next(root.glob('*_000')).name}_00003.jpg")
    assert ingest(root, fake_backbone).embedded["fake"] == 1
    assert len(stored(db, fake_backbone).facts) == 6


def test_what_comes_back_before_the_vector_store_has_heard_of_it_stays(
    make_captures, ingest, fake_backbone, db, vectors
):
    root = make_captures()
    ingest(root, fake_backbone)
    sync.drain(db, vectors)
    path = next(root.glob("*_000/*_00003.jpg"))
    content = path.read_bytes()
    path.unlink()
    assert ingest(root, fake_backbone).removed == 1
    path.write_bytes(content)
    assert ingest(root, fake_backbone).embedded["fake"] == 1
    assert sync.drain(db, vectors).deleted == 0
    assert vectors.count(fake_backbone.spec.collection, Where()) == len(stored(db, fake_backbone).facts) == 12


def test_what_is_gone_is_kept_where_that_is_asked_for(make_captures, fake_backbone, db, tmp_path, caplog):
    root = make_captures()
    spec = fake_backbone.spec
    worker.run(db, open_captures(root)[0], [spec], lambda _: fake_backbone, tmp_path / "t")
    next(root.glob("*_000/*_00003.jpg")).unlink()
    summary = worker.run(db, open_captures(root)[0], [spec], refuse, tmp_path / "t", keep_missing=True)
    assert summary.removed == 0 and len(stored(db, fake_backbone).facts) == 12
    assert "1 views of reference set 'captures-300m-50' (first: tile 3 at 000)" in caplog.text
    assert "kept, as --keep-missing says" in caplog.text


def test_a_picture_that_now_shows_nothing_is_no_reference_any_more(make_captures, ingest, fake_backbone, db):
    root = make_captures()
    ingest(root, fake_backbone)
    Image.new("RGB", (64, 64)).save(next(root.glob("*_000/*_00003.jpg")))
    summary = ingest(root, fake_backbone)
    assert (summary.failures, summary.removed) == ({"one-colour": 1}, 1)
    assert ("00003", 0) not in {(facts.tile_id[-5:], facts.angle_deg) for facts in stored(db, fake_backbone).facts}


def test_an_orthophoto_that_was_cropped_loses_the_tiles_outside_of_it_and_no_angles(db, fake_backbone, tmp_path):
    def run(side: int, *angles: int) -> worker.IngestSummary:
        pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
        path = write_rgb(tmp_path / "area.tif", pixels, center=LonLat(127.03, 37.5), gsd_m=1.0)
        source = open_orthophoto(path, footprint_m=32, angles=angles)
        return worker.run(db, source, [fake_backbone.spec], lambda _: fake_backbone, tmp_path / "thumbnails")

    whole_area = run(112, 0, 90)
    assert whole_area.read == 50 and run(112, 90).removed == 0
    cropped = run(80, 0, 90)
    assert (cropped.views, cropped.removed) == (18, 50 - 18)
    assert len(stored(db, fake_backbone).facts) == 18


def test_a_drain_brings_every_point_over_once(make_captures, ingest, make_fake_backbone, db, vectors: VectorStore):
    one, two = make_fake_backbone("one"), make_fake_backbone("two", dim=8)
    ingest(make_captures(), one, two)
    assert sync.drain(db, vectors).upserted == 24
    assert sync.drain(db, vectors).upserted == 0
    found = stored(db, one)
    hits = vectors.query(one.spec.collection, found.vectors[3], 3, Where())
    assert hits[0].id == found.facts[3].point_id and hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert all(not d.missing and not d.orphaned and not d.differing for d in sync.reconcile(db, vectors))


def test_reconcile_names_what_is_missing_orphaned_and_different(make_captures, ingest, fake_backbone, db, vectors):
    from coarseloc.core.types import Point

    ingest(make_captures(), fake_backbone)
    sync.drain(db, vectors)
    collection = fake_backbone.spec.collection
    found = stored(db, fake_backbone)
    vectors.delete(collection, [found.facts[0].point_id])
    vectors.upsert(collection, [Point(found.facts[1], -found.vectors[1])])
    from dataclasses import replace

    stranger = replace(found.facts[0], point_id="00000000-0000-4000-8000-000000000000")
    vectors.upsert(collection, [Point(stranger, found.vectors[0])])
    (difference,) = sync.reconcile(db, vectors)
    assert difference.missing == (found.facts[0].point_id,)
    assert difference.orphaned == (stranger.point_id,)
    assert difference.differing == (found.facts[1].point_id,)
    assert sync.rebuild(db, vectors).upserted == 12
    (difference,) = sync.reconcile(db, vectors)
    assert not (difference.missing or difference.orphaned or difference.differing)


def test_a_lost_collection_is_replayed_and_said_to_be(make_captures, ingest, fake_backbone, db, vectors):
    ingest(make_captures(), fake_backbone)
    sync.drain(db, vectors)
    vectors.drop(fake_backbone.spec.collection)
    done = sync.drain(db, vectors)
    assert done.rebuilt == [fake_backbone.spec.collection] and done.upserted == 12


def test_forgetting_a_set_leaves_nothing_of_it_and_the_others_whole(make_captures, ingest, fake_backbone, db, vectors):
    ingest(make_captures(name="first"), fake_backbone)
    ingest(make_captures(name="second"), fake_backbone)
    sync.drain(db, vectors)
    assert sync.delete_reference_set(db, vectors, "first-300m-50") == 12
    with db.read() as session:
        assert [s.name for s in references.reference_sets(session)] == ["second-300m-50"]
    assert vectors.count(fake_backbone.spec.collection, Where()) == 12
    assert len(stored(db, fake_backbone).facts) == 12
    assert not sync.reconcile(db, vectors)[0].orphaned
