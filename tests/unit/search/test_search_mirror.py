"""The mirror on disk: opened when it matches, refused or rebuilt when it does not."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref
from itertools import chain

import numpy as np
import pytest
from whole import whole

from coarseloc.core import ids
from coarseloc.core.errors import StaleMirror, StoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import Near
from coarseloc.store import matrix, references
from search import faiss_vectors
from search import mirror as module
from search.exact_index import ExactIndex
from search.mirror import open_mirror


@pytest.fixture
def opened(world, fake_backbone):
    """(world, spec, a function that opens its mirror)."""
    spec = world.embed(fake_backbone)

    def open_(**options):
        return open_mirror(world.db, world.mirrors, world.reference_set, spec, **options)

    return world, spec, open_


def test_the_first_opening_builds_quietly_and_the_second_finds_it(opened, caplog):
    _, _, open_ = opened
    first, second = open_(), open_()
    assert (first.built, second.built) == (True, False)
    assert second.schema == first.schema and second.schema.count == 24
    assert second.build_ms == pytest.approx(first.build_ms, abs=0.001)
    np.testing.assert_array_equal(first.index.vectors, second.index.vectors)
    np.testing.assert_array_equal(first.rotated_tile_ids, second.rotated_tile_ids)
    assert not caplog.records


def test_rows_are_in_the_order_of_tile_then_angle_and_columns_are_in_theirs(opened):
    world, spec, open_ = opened
    open_()
    mirror = open_()
    assert mirror.columns.angle_deg.tolist() == [0, 90, 180, 270] * 6
    with world.db.read() as session:
        stored = whole(session, world.reference_set.id, spec.id)
    assert mirror.rotated_tile_ids.tolist() == stored.rotated_tile_ids
    assert mirror.columns.tile_id.tolist() == [facts.tile_id for facts in stored.facts]


def test_filters_become_a_selection_and_no_filter_none(opened):
    world, _, open_ = opened
    mirror = open_()
    assert mirror.selection(Where()) is None
    assert mirror.selection(Where(angles=(90,))).rows.tolist() == [1, 5, 9, 13, 17, 21]
    assert len(mirror.selection(Where(near=Near(*world.centre(2), 10.0), angles=(0, 90)))) == 2


def test_a_filter_asked_twice_is_looked_up_once(opened):
    mirror = opened[2]()
    assert mirror.selection(Where(angles=(90,))) is mirror.selection(Where(angles=(90,)))


def test_a_mirror_that_is_let_go_lets_its_files_go(opened):
    mirror = opened[2]()
    mirror.selection(Where(angles=(90,)))
    seen = weakref.ref(mirror)
    gc.disable()  # a server's collector may be far behind
    try:
        del mirror
        assert seen() is None
    finally:
        gc.enable()


def test_changed_embeddings_make_it_stale(opened, fake_backbone):
    world, _, open_ = opened
    open_()
    world.embed(fake_backbone, range(2), shift=10)
    with pytest.raises(StaleMirror, match=r"stale: version is 24-\S+, the database has 24-"):
        open_(rebuild=False)
    said = []
    rebuilt = open_(notice=said.append)
    assert rebuilt.built and "stale" in said[0] and "Building it anew" in said[0]
    assert not open_(rebuild=False).built


def test_a_missing_mirror_is_refused_where_it_may_not_be_built(opened):
    _, _, open_ = opened
    with pytest.raises(StaleMirror, match="there is no mirror"):
        open_(rebuild=False)


def test_a_reference_set_made_anew_under_its_old_name_is_never_answered_by_the_old_mirror(opened, fake_backbone):
    world, spec, open_ = opened
    open_()
    with world.db.write() as session:
        references.delete_reference_set(session, world.reference_set.id)
    anew = world.add_reference_set(world.reference_set.name)
    anew.embed(fake_backbone, shift=10)
    with pytest.raises(StaleMirror, match="there is no mirror"):
        open_mirror(world.db, world.mirrors, anew.reference_set, spec, rebuild=False)
    assert open_mirror(world.db, world.mirrors, anew.reference_set, spec).built


def test_sets_whose_names_differ_in_case_or_signs_only_have_mirrors_of_their_own(world, fake_backbone):
    """As folders, such names were one."""
    sets = [world.add_reference_set(name) for name in ("Area 1", "area-1", "area_1")]
    specs = [one.embed(fake_backbone, shift=10 * number) for number, one in enumerate(sets)]
    mirrors = [open_mirror(one.db, one.mirrors, one.reference_set, spec) for one, spec in zip(sets, specs, strict=True)]
    assert len({mirror.folder for mirror in mirrors}) == 3
    for one, spec, mirror in zip(sets, specs, mirrors, strict=True):
        again = open_mirror(one.db, one.mirrors, one.reference_set, spec, rebuild=False)
        np.testing.assert_array_equal(again.index.vectors, mirror.index.vectors)


@pytest.mark.parametrize("name", ["index.faiss", "rotated_tile_ids.npy", "point_ids.npy", "columns.npz", "schema.json"])
def test_a_truncated_file_is_found_named_and_mended(opened, name, caplog):
    _, _, open_ = opened
    path = open_().folder / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StaleMirror, match="damaged"):
        open_(rebuild=False)
    assert open_().built
    assert "damaged" in caplog.text
    assert not open_().built


@pytest.mark.parametrize("name", ["index.faiss", "rotated_tile_ids.npy", "point_ids.npy", "schema.json"])
def test_a_missing_file_is_found(opened, name):
    _, _, open_ = opened
    (open_().folder / name).unlink()
    with pytest.raises(StaleMirror, match="damaged"):
        open_(rebuild=False)


def test_a_mirror_of_another_dimension_is_refused(opened):
    _, _, open_ = opened
    path = open_().folder / "schema.json"
    facts = json.loads(path.read_text())
    facts["schema"]["dim"] = 8
    facts["digest"] = ids.digest({key: value for key, value in facts.items() if key != "digest"})
    path.write_text(json.dumps(facts))
    with pytest.raises(StaleMirror, match="dim is 8, the database has 16"):
        open_(rebuild=False)


def test_an_open_mirror_goes_on_answering_after_it_was_replaced(opened, fake_backbone):
    world, _, open_ = opened
    open_()
    before = open_()
    vectors = before.index.vectors.copy()
    world.embed(fake_backbone, range(3), shift=10)
    assert open_().built
    np.testing.assert_array_equal(before.index.vectors, vectors)
    with pytest.raises(StaleMirror, match="built anew or damaged while it was open"):
        before.selection(Where(angles=(0,)))


def test_a_killed_build_leaves_nothing_in_the_way(opened, monkeypatch):
    world, _, open_ = opened

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.np, "savez", killed)
        open_()
    assert open_().built
    assert [path.name for path in world.mirrors.glob("*/*") if path.is_dir()] == [world.reference_set.uid]


def test_a_write_while_it_is_built_leaves_a_mirror_of_the_state_before_which_is_stale(
    opened, fake_backbone, monkeypatch
):
    world, spec, open_ = opened
    with world.db.read() as session:
        before = whole(session, world.reference_set.id, spec.id)
    filled = ExactIndex.from_parts

    def filled_slowly(count, dim, parts, *others):
        first = next(parts)
        world.embed(fake_backbone, range(6), shift=10)
        return filled(count, dim, chain([first], parts), *others)

    with monkeypatch.context() as patched:
        patched.setattr(matrix, "PART", 5)
        patched.setattr(module.ExactIndex, "from_parts", filled_slowly)
        built = open_()
    np.testing.assert_array_equal(built.index.vectors, before.vectors)
    assert built.schema.version == before.version
    with pytest.raises(StaleMirror, match="version is"):
        open_(rebuild=False)
    assert not np.array_equal(open_().index.vectors, before.vectors)


def test_several_openers_at_once_build_it_once(opened):
    _, _, open_ = opened
    built = []
    threads = [threading.Thread(target=lambda: built.append(open_().built)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(built) == [False, False, False, True]


def test_two_backbones_have_mirrors_of_their_own(world, make_fake_backbone):
    specs = [world.embed(make_fake_backbone(name, dim)) for name, dim in (("vits16", 16), ("vits16+", 24))]
    mirrors = [open_mirror(world.db, world.mirrors, world.reference_set, spec) for spec in specs]
    assert [m.index.dim for m in mirrors] == [16, 24]
    assert all(not open_mirror(world.db, world.mirrors, world.reference_set, s).built for s in specs)


def test_a_set_without_embeddings_says_what_to_do(world, fake_backbone):
    spec = world.embed(fake_backbone)
    empty = world.add_reference_set("empty")
    with pytest.raises(StoreError, match="'empty' has no embeddings of fake"):
        open_mirror(world.db, world.mirrors, empty.reference_set, spec)


def test_a_folder_that_cannot_be_written_says_so(world, fake_backbone):
    spec = world.embed(fake_backbone)
    world.mirrors.write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        open_mirror(world.db, world.mirrors, world.reference_set, spec)


# --- single bits --------------------------------------------------------------------------------

FILES = (
    "index.faiss",
    "index.half.faiss",
    "rotated_tile_ids.npy",
    "point_ids.npy",
    "columns.npz",
    "schema.json",
)


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_in_a_file_is_found_and_named(opened, monkeypatch, name):
    _, _, open_ = opened
    monkeypatch.setattr(faiss_vectors, "_HALF_FROM", 1)
    monkeypatch.setattr(module, "_RECENT_S", -1.0)  # remembering what was read must not hide what is written after it
    path = open_().folder / name
    content = path.read_bytes()
    bits = np.random.default_rng(18).choice(len(content) * 8, 100, replace=False)
    for bit in map(int, bits):
        path.write_bytes(content)
        open_(rebuild=False)
        path.write_bytes(flip(content, bit))
        with pytest.raises(StaleMirror, match=r"mirror \S+ is damaged: "):
            open_(rebuild=False)


@pytest.mark.parametrize("name", FILES)
def test_a_mirror_with_a_flipped_bit_is_built_anew_and_answers_as_before(opened, monkeypatch, name):
    _, _, open_ = opened
    monkeypatch.setattr(faiss_vectors, "_HALF_FROM", 1)
    mirror = open_()
    queries = mirror.index.vectors[:3].copy()
    before = mirror.index.search(queries, 5)
    path = mirror.folder / name
    path.write_bytes(flip(path.read_bytes(), path.stat().st_size * 4))
    said = []
    rebuilt = open_(notice=said.append)
    assert rebuilt.built and name in said[0] + " schema.json" and said[0].endswith("Building it anew.")
    again = open_(rebuild=False)
    assert again.selection(Where(angles=(90,))).rows.tolist() == [1, 5, 9, 13, 17, 21]
    for expected, actual in zip(before, again.index.search(queries, 5), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_a_bit_flipped_in_the_columns_after_opening_is_found_at_the_first_filter(opened):
    _, _, open_ = opened
    open_()
    mirror = open_()
    path = mirror.folder / "columns.npz"
    path.write_bytes(flip(path.read_bytes(), 999))
    with pytest.raises(StaleMirror, match="built anew or damaged while it was open"):
        mirror.selection(Where(angles=(90,)))


def test_an_unchanged_file_is_read_once_a_process(opened, monkeypatch):
    _, _, open_ = opened
    monkeypatch.setattr(module, "_RECENT_S", -1.0)
    open_()
    open_()
    monkeypatch.setattr(module, "file_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert not open_(rebuild=False).built


def test_a_file_written_a_moment_ago_is_read_again(opened):
    """Its next change may leave its times the same."""
    _, _, open_ = opened
    path = open_().folder / "point_ids.npy"
    open_()
    assert path not in module._digests


def test_a_mirror_without_digests_is_built_anew_and_said_to_be(opened):
    _, _, open_ = opened
    path = open_().folder / "schema.json"
    facts = json.loads(path.read_text())
    del facts["digest"], facts["xxh3_128"]
    facts["schema"]["format"] = 3
    path.write_text(json.dumps(facts))
    said = []
    assert open_(notice=said.append).built
    assert "format 3, whose files carry no digests" in said[0] and "Building it anew" in said[0]


def test_every_mirror_is_checked_whatever_was_read_before(opened, monkeypatch):
    world, _, open_ = opened
    monkeypatch.setattr(module, "_RECENT_S", -1.0)
    path = open_().folder / "rotated_tile_ids.npy"
    open_()
    assert module.check_mirrors(world.mirrors) == (1, [])
    facts = path.stat()
    module._digests[path] = ((0,), "a digest that is not its own")
    assert module.check_mirrors(world.mirrors) == (1, [])
    path.write_bytes(flip(path.read_bytes(), 1500))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(StoreError, match=r"rotated_tile_ids\.npy are not those written"):
        module.check_mirrors(world.mirrors)
