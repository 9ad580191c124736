"""Rows that answers are read from carry digests: one that is not as it was written is named, never answered from."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from databases import SERVER

from coarseloc.embedding import weights
from coarseloc.store import seals

pytestmark = pytest.mark.skipif(
    SERVER is not None, reason="of the embedded stores: PostgreSQL looks after its own files"
)

HARM = {  # what a flipped bit would do: (statement, what is named, command that reads the row)
    "a tile's position": ("UPDATE tiles SET lon = lon + 0.001 WHERE id = 3", "set", "search"),
    "a view's picture": (
        "UPDATE rotated_tiles SET content_digest = id WHERE id = 2",
        "set",
        "search",
    ),
    "a lost view": ("DELETE FROM rotated_tiles WHERE id = 5", "set", "search"),
    "a label": ("UPDATE frames SET lat = lat + 0.001 WHERE id = 1", "flight", "export"),
    "a score": ("UPDATE hits SET score = score * 0.5 WHERE rank = 2", "run", "export"),
    "a lost hit": ("DELETE FROM hits WHERE rank = 3", "run", "export"),
    "a tile as it was": ("UPDATE tile_snapshots SET north = north + 1", "run", "evaluate"),
    "what was asked": ("UPDATE search_runs SET parameters = replace(parameters, ':', ';')", "run", "export"),
    "a fix": ("UPDATE frame_fixes SET lon = coalesce(lon, 0) + 0.001", "localization", "export"),
    "an estimate": ("UPDATE frame_estimates SET lon = lon + 0.001", "localization", "evaluate"),
    "a vector of a look-up": (
        "UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE id = 4",
        "embedding",
        "lookup",
    ),
    "a reference of another spec": ("UPDATE embeddings SET spec_id = 3 WHERE id = 4", "embedding", "lookup"),
    "a reference that was not deleted": ("UPDATE embeddings SET deleted = 1 WHERE id = 4", "deleted", "lookup"),
    "a vector": ("UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE id = 4", "embedding", "rebuild"),
}


def run_sql(state, statement: str) -> None:
    with closing(sqlite3.connect(state / "coarseloc.db")) as database, database:
        assert database.execute(statement).rowcount > 0, statement


def test_a_row_that_is_not_as_it_was_written_is_named_and_not_answered_from(
    coarseloc, ingested, flight, state, tmp_path, monkeypatch
):
    assert coarseloc("search", flight).code == 0
    assert "without" not in coarseloc("doctor", "--deep", "--json").json["rows"]
    whole = (state / "coarseloc.db").read_bytes()
    asked = {
        "search": ["search", flight, "--no-verify"],
        "export": ["export", flight.name, "--out", tmp_path / "out"],
        "evaluate": ["evaluate", flight.name],
        "rebuild": ["rebuild"],
        "lookup": ["lookup", next(flight.glob("*.jpg"))],
    }
    assert coarseloc(*asked["lookup"]).code == 0
    for what, (statement, named, command) in HARM.items():
        run_sql(state, statement)
        monkeypatch.setattr(seals, "_sound", set())  # as another process would begin
        reading = coarseloc(*asked[command])
        assert reading.code == 2 and "damaged" in reading.err and named in reading.err, (what, reading)
        diagnosis = coarseloc("doctor", "--deep")
        assert diagnosis.code == 2 and "rows" in diagnosis.err, what
        for path in state.glob("coarseloc.db-*"):
            path.unlink()
        (state / "coarseloc.db").write_bytes(whole)
    assert coarseloc("rebuild").code == 0 and coarseloc("doctor", "--deep").code == 0


def test_a_schema_that_is_no_text_any_more_ends_in_a_line(coarseloc, ingested, state):
    with closing(sqlite3.connect(state / "coarseloc.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (state / "coarseloc.db").read_bytes()
    (state / "coarseloc.db").write_bytes(content.replace(b"CREATE TABLE counters", b"CREATE TABLE c\xa8unters"))
    for command in ("flights", "doctor", "export"):
        done = coarseloc(*([command, "x", "--out", state] if command == "export" else [command]))
        assert done.code == 2 and "damaged" in done.out + done.err, done


def test_a_damaged_label_is_read_anew_by_a_search_and_said(coarseloc, ingested, flight, state):
    assert coarseloc("search", flight, "--no-verify").code == 0
    run_sql(state, "UPDATE frames SET lat = lat + 0.001 WHERE id = 1")
    assert "damaged" in coarseloc("search", flight, "--no-verify").err
    assert coarseloc("doctor", "--deep").code == 0


def test_weights_whose_bytes_change_under_the_same_time_are_named(coarseloc, ingested, tmp_path, monkeypatch):
    changed = []

    def flipped(located, cache_dir=None):
        digest = digest_of(located, cache_dir)
        return digest if cache_dir else changed.append(located) or digest[::-1]

    digest_of = weights.weights_digest
    monkeypatch.setattr(weights, "weights_digest", flipped)
    diagnosis = coarseloc("doctor", "--deep")
    assert diagnosis.code == 2 and "weights" in diagnosis.err and changed
