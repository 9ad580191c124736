"""A finished ingest that is run again: where nothing has changed no file is opened, and every change is noticed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from databases import database_url
from PIL import Image
from sqlalchemy import select, text

from coarseloc.imagery import captures
from coarseloc.imagery.stated_labels import StatedLabels
from coarseloc.imagery.tree_state import tree_state
from coarseloc.store import finished_ingests, open_database, seals
from coarseloc.store.finished_ingests import IngestFingerprint
from coarseloc.store.tables import FinishedIngestRow
from ingest import unchanged

VIEWS = 4
Ingest = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged, "SETTLED_NS", 0)


@pytest.fixture
def root(make_captures: Callable[..., Path]) -> Path:
    return make_captures(columns=2, rows=1)


@pytest.fixture
def ingest(coarseloc: Callable[..., Any], root: Path) -> Ingest:
    """Ingest the tree; returns what became of its only set."""

    def run(*options: object, at: Path = root) -> dict[str, Any]:
        (of_set,) = coarseloc("ingest", "captures", at, "--backbone", "tiny", *options, "--json").json["reference_sets"]
        return dict(of_set)

    return run


@pytest.fixture
def finished(ingest: Ingest) -> Ingest:
    assert (ingest()["read"], ingest()["unchanged"]) == (VIEWS, True)
    return ingest


def picture(root: Path) -> Path:
    return next(root.glob("*_045/*_00002.jpg"))


def label(root: Path) -> Path:
    return next(root.glob("*_045.json"))


def repaint(path: Path) -> None:
    """Other pixels in a file of the same size and time of modification."""
    before, size = path.stat(), path.stat().st_size
    Image.radial_gradient("L").resize((16, 16)).convert("RGB").save(path)
    with path.open("ab") as file:
        file.write(bytes(size - path.stat().st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, before.st_mtime_ns)


def move_label(root: Path) -> None:
    labels = json.loads(label(root).read_text("utf-8-sig"))
    labels["images"][0]["position"]["latitude"] += 1e-6
    label(root).write_text(json.dumps(labels))


# --- nothing to do ------------------------------------------------------------------------------


def test_an_ingest_over_unchanged_files_opens_none_and_says_so(
    finished: Ingest, coarseloc, root, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(captures, "open_captures", lambda *_, **__: pytest.fail("it was opened"))
    again = finished()
    assert (again["views"], again["up_to_date"], again["read"], again["unchanged"]) == (VIEWS, VIEWS, 0, True)
    said = coarseloc("ingest", "captures", root, "--backbone", "tiny").out
    assert "no file was opened" in said and "4 up to date" in said


def test_its_notices_and_unusable_pictures_are_told_again(ingest: Ingest, coarseloc, root):
    Image.new("RGB", (64, 64), "red").save(picture(root))
    for of_label in root.glob("*.json"):
        labels = json.loads(of_label.read_text("utf-8-sig"))
        labels["images"][0]["attitude"]["yaw"] = 9000.0
        of_label.write_text(json.dumps(labels))
    first, again = ingest(), ingest()
    assert first["failures"] == again["failures"] == {"one-colour": 1}
    assert (again["unchanged"], again["views"], again["up_to_date"]) == (True, VIEWS, VIEWS - 1)
    assert "which are no degrees" in coarseloc("ingest", "captures", root, "--backbone", "tiny").err


def test_two_sets_of_one_tree_are_unchanged_together(coarseloc, root, state):
    for capture in sorted(root.glob("*_045*")):
        capture.rename(capture.with_name(capture.name.replace("_300_", "_600_")))
    for path in root.glob("*_600_*/*"):
        path.rename(path.with_name(path.name.replace("_300_", "_600_")))
    (of_600,) = root.glob("*_600_*.json")
    of_600.write_text(of_600.read_text("utf-8-sig").replace("_300_", "_600_"))

    def ingest() -> list[bool]:
        sets = coarseloc("ingest", "captures", root, "--backbone", "tiny", "--json").json["reference_sets"]
        return [of_set["unchanged"] for of_set in sets]

    assert (ingest(), ingest()) == ([False, False], [True, True])
    assert coarseloc("references", "delete", "captures-600m-50", "--yes").code == 0
    assert ingest() == [False, False]


def test_rereading_opens_every_picture_and_finds_one_whose_size_and_time_are_the_same(finished: Ingest, root):
    again = finished("--reread")
    assert (again["read"], again["embedded"], again["unchanged"]) == (VIEWS, {}, False)
    repaint(picture(root))
    assert finished("--reread")["embedded"] == {"tiny": 1}
    assert finished()["unchanged"]


# --- the vector store ---------------------------------------------------------------------------


def test_a_lost_collection_is_replayed_though_no_file_was_opened(finished: Ingest, coarseloc, root, state):
    (shard,) = (path for path in (state / "vectors").glob("*/*") if path.is_dir())
    shutil.rmtree(shard)
    result = coarseloc("ingest", "captures", root, "--backbone", "tiny", "--json").json
    assert result["reference_sets"][0]["unchanged"] and result["vector_store"]["upserted"] == VIEWS


# --- files that have changed ------------------------------------------------------------------------


def test_a_picture_of_the_same_size_and_time_is_not_taken_for_the_same(finished: Ingest, root):
    repaint(picture(root))
    assert not finished()["unchanged"]


def test_opening_lists_no_folder_and_opens_no_file_that_the_state_leaves_out(root):
    for folder in ("others", f"{picture(root).parent.name}/raw", "others/deep", "others/deep/deeper"):
        (root / folder).mkdir(exist_ok=True)
        shutil.copy2(picture(root), root / folder)
    (root / "others" / "labels.json").write_text("{}")
    seen: set[str] | None = None

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            seen is not None
            and event in ("os.scandir", "os.listdir", "open")
            and str(arguments[0]).startswith(str(root))
        ):
            seen.add(str(arguments[0]))

    sys.addaudithook(note)  # for good
    try:
        seen = by_state = set[str]()
        assert tree_state(root, None)
        seen = by_opening = set[str]()
        captures.open_captures(root)
    finally:
        seen = None
    unlisted = {path for path in by_opening - by_state if Path(path).is_dir() or path.endswith(".json")}
    assert by_opening and not unlisted


def test_files_written_shortly_before_are_not_trusted(ingest: Ingest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unchanged, "SETTLED_NS", 60_000_000_000)
    assert [ingest()["unchanged"] for _ in range(3)] == [False, False, False]


def test_a_file_that_changes_while_it_is_ingested_is_read_next_time(ingest: Ingest, root, monkeypatch):
    opened = captures.open_captures

    def open_late(*args: Any, **options: Any) -> Any:
        move_label(root)
        return opened(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(captures, "open_captures", open_late)
        ingest()
    assert [ingest()["unchanged"] for _ in range(2)] == [False, True]


def test_labels_that_look_beyond_the_tree_are_always_read(ingest: Ingest, root):
    labels = json.loads(label(root).read_text("utf-8-sig"))
    labels["images"][0]["imageref"] = f"/elsewhere/{labels['images'][0]['imageref']}"
    label(root).write_text(json.dumps(labels))
    assert [ingest()["unchanged"] for _ in range(2)] == [False, False]


def test_a_named_label_file_is_looked_at_wherever_it_lies(ingest: Ingest, root, tmp_path):
    elsewhere = tmp_path / "labels.json"
    images = [image for path in root.glob("*.json") for image in json.loads(path.read_text("utf-8-sig"))["images"]]
    elsewhere.write_text(json.dumps({"images": images}))
    assert [ingest("--labels", elsewhere)["unchanged"] for _ in range(2)] == [False, True]
    images[0]["position"]["latitude"] += 1e-6
    elsewhere.write_text(json.dumps({"images": images}))
    assert not ingest("--labels", elsewhere)["unchanged"]


def test_one_capture_alone_is_always_opened(ingest: Ingest, root):
    assert [ingest(at=picture(root).parent)["unchanged"] for _ in range(2)] == [False, False]


def test_a_picture_that_a_disk_failed_on_is_tried_again(ingest: Ingest, root, monkeypatch):
    monkeypatch.setattr(unchanged, "PASSING", ("not-an-image",))
    picture(root).write_bytes(b"")
    picture(root).write_bytes(b"no picture at all")
    assert [ingest()["unchanged"] for _ in range(2)] == [False, False]


# --- other questions --------------------------------------------------------------------------------


def test_another_question_is_answered_by_the_files(finished: Ingest):
    assert not finished("--map-sd-m", 3)["unchanged"]
    assert not finished()["unchanged"]  # the set remembers the latest alone


def test_each_option_each_spec_and_each_version_is_another_question(
    root, fake_backbone, make_fake_backbone, monkeypatch
):
    def question(options: dict[str, Any], *backbones: Any) -> str:
        stated = {"name": None, "labels": None, "footprint_m": None, "keep_missing": False, **options}
        fingerprint = unchanged.fingerprint(root, stated, lambda: [backbone.spec for backbone in backbones])
        assert fingerprint is not None
        return fingerprint.question

    questions = [
        question({}, fake_backbone),
        question({}, fake_backbone, make_fake_backbone("other")),
        question({}, make_fake_backbone("fake", input_px=64)),
        question({"footprint_m": 300.0}, fake_backbone),
        question({"keep_missing": True}, fake_backbone),
        question({"labels": StatedLabels(crs="EPSG:5186")}, fake_backbone),
        question({"labels": StatedLabels(accepted=frozenset({"order"}))}, fake_backbone),
        question({"labels": label(root)}, fake_backbone),
    ]
    code = list(unchanged._code())
    assert {"coarseloc/imagery/captures.py", "ingest/plan.py"} <= {path for path, *_ in code}
    with monkeypatch.context() as patch:
        patch.setattr(unchanged, "_code", lambda: code[1:])
        questions.append(question({}, fake_backbone))
    monkeypatch.setattr(unchanged, "__version__", "another")
    questions.append(question({}, fake_backbone))
    assert len(set(questions)) == len(questions)


# --- what the database holds ------------------------------------------------------------------------

LOSSES = {
    "an embedding": "DELETE FROM embeddings WHERE id = (SELECT max(id) FROM embeddings)",
    "an embedding marked as deleted": "UPDATE embeddings SET deleted = true WHERE id = 1",
    "an embedding of another picture": "UPDATE embeddings SET content_digest = 'other', row_digest = NULL WHERE id = 1",
    "a view": "DELETE FROM rotated_tiles WHERE id = (SELECT max(id) FROM rotated_tiles)",
    "a view that was taken out": "UPDATE rotated_tiles SET stamp = 'removed' WHERE id = 1",
    "a view to be read again": "UPDATE rotated_tiles SET stamp = '' WHERE id = 1",
    "the seal": "DELETE FROM seals",
    "what was remembered": "DELETE FROM finished_ingests",
    "what was remembered, half": """UPDATE finished_ingests SET facts = '{"views": 4}'""",
    "what was remembered, spoilt": "UPDATE finished_ingests SET digest = 'other'",
}


def test_what_is_lost_of_a_set_is_noticed(finished: Ingest, state):
    with closing(open_database(database_url(state))) as database, database.read() as session:
        (row,) = session.scalars(select(FinishedIngestRow))
        fingerprint = IngestFingerprint(row.question, row.facts["files"], settled=True)
        assert finished_ingests.recall(session, fingerprint)
        for name, loss in LOSSES.items():
            session.execute(text(loss))
            session.expire_all()
            assert not finished_ingests.recall(session, fingerprint), name
            session.rollback()
        assert finished_ingests.recall(session, fingerprint)


def test_damaged_rows_are_refused(finished: Ingest, coarseloc, root, state, monkeypatch):
    monkeypatch.setattr(seals, "_sound", set())  # as another process begins
    with closing(open_database(database_url(state))) as database, database.write() as session:
        session.execute(text("UPDATE tiles SET lon = lon + 1e-9 WHERE id = 1"))
    result = coarseloc("ingest", "captures", root, "--backbone", "tiny")
    assert result.code == 2 and "are not as they were written" in result.err


def test_a_renamed_set_is_not_taken_for_the_one_of_that_name(finished: Ingest, coarseloc):
    assert coarseloc("references", "rename", "captures-300m-50", "seoul").code == 0
    again = finished()
    assert (again["unchanged"], again["read"]) == (False, VIEWS)
