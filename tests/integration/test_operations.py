"""What docs/operations.md promises: back-up and restore, metrics."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from databases import SERVER, database_url, execute, server_tool, settings_of
from sqlalchemy import make_url

from coarseloc.store.session import open_engine
from web import create_app
from web.monitoring import log_accesses

embedded = pytest.mark.skipif(SERVER is not None, reason="a server has back-ups of its own")
on_server = pytest.mark.skipif(SERVER is None, reason="no PostgreSQL: COARSELOC_TEST_DATABASE_URL is not set")


@pytest.fixture
def answers(coarseloc, flight, tmp_path) -> Callable[[], tuple]:
    """What a search, its export and a filtered look-up say, apart from times and numbers of runs."""

    def ask() -> tuple:
        assert coarseloc("search", flight, "--no-verify").code == 0
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert coarseloc("export", "251124155712", "--out", tmp_path / "out", "--format", "csv").code == 0
        (table,) = (tmp_path / "out").rglob("*.csv")
        timed = re.compile(r"_ms$|run|built|created|finished")
        header, *lines = (line.split(",") for line in table.read_text(encoding="utf-8-sig").splitlines())
        kept = [i for i, name in enumerate(header) if not timed.search(name)]
        looked = coarseloc("lookup", flight / "251124155712_00003.jpg", "--angle", "45", "--json").json
        return [[line[i] for i in kept] for line in lines], looked

    return ask


def lose_everything_but_settings(state: Path) -> None:
    for path in state.iterdir():
        if path.name != "coarseloc.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def expect_whole(coarseloc, captures: Path) -> None:
    """Stores agree, and nothing is left to ingest."""
    assert coarseloc("reconcile").code == 0 and coarseloc("doctor").code == 0
    again = coarseloc("ingest", "captures", captures, "--backbone", "tiny", "--json").json
    assert again["reference_sets"][0]["read"] == 0


@embedded
def test_a_backup_restored_into_an_empty_folder_gives_the_same_answers(coarseloc, ingested, answers, state, tmp_path):
    """Made while another process is in the middle of a write, which it must not hold."""
    before = answers()
    saved = tmp_path / "backups" / "today.db"
    with closing(sqlite3.connect(state / "coarseloc.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM hits")
        assert coarseloc("backup", saved).code == 0
        other.execute("ROLLBACK")
    lose_everything_but_settings(state)
    shutil.copy(saved, state / "coarseloc.db")
    assert answers() == before
    expect_whole(coarseloc, ingested)


@on_server
def test_a_servers_dump_restored_beside_an_empty_folder_gives_the_same_answers(
    coarseloc, ingested, answers, state, tmp_path
):
    """By pg_dump, in the middle of another's write, and pg_restore where nothing of it is left."""
    dump, restore = server_tool("pg_dump"), server_tool("pg_restore")
    if not dump or not restore:
        pytest.skip("no pg_dump here: install PostgreSQL's client programs")
    before = answers()
    url, saved = make_url(database_url(state)), tmp_path / "today.dump"
    schema = url.query["options"].removeprefix("-csearch_path=")
    server = url.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    with open_engine(database_url(state)).connect() as other:
        other.exec_driver_sql("DELETE FROM hits")
        subprocess.run([dump, "--format=custom", f"--schema={schema}", f"--file={saved}", server], check=True)
        other.rollback()
    assert (refused := coarseloc("backup", tmp_path / "today.db")).code == 2 and "pg_dump" in refused.err
    lose_everything_but_settings(state)
    execute(f"DROP SCHEMA {schema} CASCADE")
    subprocess.run([restore, "--no-owner", "--exit-on-error", f"--dbname={server}", saved], check=True)
    assert answers() == before
    expect_whole(coarseloc, ingested)


@embedded
def test_a_backup_replaces_nothing(coarseloc, ingested, tmp_path):
    (tmp_path / "kept").write_text("kept")
    refused = coarseloc("backup", tmp_path / "kept")
    assert refused.code == 2 and "is there already" in refused.err
    assert (tmp_path / "kept").read_text() == "kept"


def test_metrics_are_what_prometheus_reads(tmp_path):
    app = create_app(settings_of(tmp_path))
    client = app.test_client()
    for path in ("/flights.json", "/flights.json", "/flights/none.json", "/nowhere"):
        client.get(path)
    text = client.get("/metrics").text
    app.extensions["coarseloc"].close()
    line = re.compile(r'(# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+)')
    assert all(line.fullmatch(one) for one in text.splitlines()), text
    assert 'coarseloc_requests_total{endpoint="flights.flights_json",status="200"} 2' in text
    assert 'coarseloc_requests_total{endpoint="none",status="404"} 1' in text
    assert 'coarseloc_request_seconds_bucket{endpoint="flights.flights_json",le="+Inf"} 2' in text
    assert "coarseloc_database_up 1" in text and "coarseloc_pending_embeddings 0" in text
    assert 'le="1"}' in text and "_created" not in text
    assert "process_resident_memory_bytes" in text and "process_start_time_seconds" in text


def test_applications_of_one_process_count_apart(tmp_path):
    apps = [create_app(settings_of(tmp_path)) for _ in range(2)]
    apps[0].test_client().get("/flights.json")
    texts = [app.test_client().get("/metrics").text for app in apps]
    for app in apps:
        app.extensions["coarseloc"].close()
    assert ["flights.flights_json" in text for text in texts] == [True, False]


def test_every_answer_names_its_request_and_a_failure_repeats_it(tmp_path):
    app = create_app(settings_of(tmp_path))
    answer = app.test_client().get("/flights/none.json")
    app.extensions["coarseloc"].close()
    assert re.fullmatch(r"[0-9a-f]{12}", answer.headers["X-Request-Id"])
    assert json.loads(answer.text)["request_id"] == answer.headers["X-Request-Id"]


def test_the_access_log_is_a_line_of_json_for_each_answer(tmp_path, capsys):
    access = logging.getLogger("coarseloc.access")
    log_accesses()
    try:
        app = create_app(settings_of(tmp_path))
        answer = app.test_client().get("/flights.json?model=private")
        app.extensions["coarseloc"].close()
    finally:
        access.handlers.clear()
        access.setLevel(logging.NOTSET)
        access.propagate = True
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["request_id"] == answer.headers["X-Request-Id"] and said["status"] == 200
    assert said["path"] == "/flights.json" and "private" not in line
