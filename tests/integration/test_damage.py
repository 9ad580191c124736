"""Full disks, read-only folders, lost and damaged files: a line that says what to do, and the truth no worse for it."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from databases import SERVER
from textured_maps import textured_map

from coarseloc.core import config
from web import create_app

pytestmark = pytest.mark.skipif(
    SERVER is not None, reason="of the embedded stores: PostgreSQL looks after its own files"
)

READS = ("export", "flights", "references", "failures", "migrate")  # these need to write nothing


@pytest.fixture
def disk(state: Path) -> Iterator[Callable[[str], None]]:
    """The data folder as a small file system of its own: `disk("size=1m")`, then `disk("ro")` and so on."""
    kept = {path.name: path.read_bytes() for path in state.iterdir()}
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", state], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    for name, content in kept.items():
        (state / name).write_bytes(content)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", state], check=True)

    yield remount
    subprocess.run(["umount", "--lazy", state], check=True)


def rows(state: Path) -> dict[str, list[tuple]]:
    """What the tables of the truth hold, and that they are sound."""
    with closing(sqlite3.connect(f"file:{state / 'coarseloc.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = ("reference_sets", "tiles", "rotated_tiles", "embeddings", "flights", "frames", "search_runs", "hits")
        return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def commands(root: Path, flight: Path, out: Path) -> dict[str, list[object]]:
    return {
        "ingest": ["ingest", "captures", root, "--backbone", "tiny"],
        "search": ["search", flight, "--no-verify"],
        "lookup": ["lookup", flight / "251124155712_00001.jpg"],
        "export": ["export", "251124155712", "--out", out],
        "drain": ["drain"],
        "reconcile": ["reconcile"],
        "rebuild": ["rebuild"],
        "flights": ["flights"],
        "references": ["references", "list"],
        "failures": ["ingest", "failures"],
        "migrate": ["migrate"],
        "doctor": ["doctor"],
    }


@pytest.mark.parametrize("kib", [64, 256, 448, 1024])
def test_a_full_disk_stops_an_ingest_with_a_line_and_room_lets_it_finish(coarseloc, state, disk, flight, tmp_path, kib):
    disk(f"size={kib}k")
    stopped = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny")
    assert stopped.code == 2 and ("full" in stopped.err or "space" in stopped.err or "left" in stopped.err)
    disk("size=400m")
    assert coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny").code == 0
    assert len(rows(state)["embeddings"]) == 12
    assert coarseloc("reconcile").code == 0


def test_a_limit_on_the_size_of_files_ends_in_a_line_too(coarseloc, state, flight, tmp_path):
    """What a full disk is like where nothing can be mounted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for kib in (4, 60, 150):
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))
        try:
            stopped = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert stopped.code == 2 and str(state) in stopped.err, stopped
    assert coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny").code == 0
    assert len(rows(state)["embeddings"]) == 12 and coarseloc("reconcile").code == 0


def test_a_full_disk_stops_every_other_command_so_too(coarseloc, state, disk, flight, tmp_path):
    disk("size=400m")
    root = tmp_path / "captures"
    assert coarseloc("ingest", "captures", root, "--backbone", "tiny").code == 0
    for name in ("search", "lookup", "export", "drain", "rebuild", "flights", "doctor", "ingest"):
        shutil.rmtree(state / "mirrors", ignore_errors=True)  # so that there is something to write
        before = rows(state)
        filler = fill(state)
        done = coarseloc(*commands(root, flight, state / "out")[name])
        assert done.code in (0, 2) and (done.code == 0 or len(done.err.strip()) > 20), (name, done)
        if name == "export":
            assert done.code == 2 and "space" in done.err
        filler.unlink()
        after = rows(state)
        assert all(after[table] == before[table] for table in ("reference_sets", "tiles", "rotated_tiles")), name
        assert coarseloc(*commands(root, flight, state / "out")[name]).code == 0, name
        assert coarseloc("drain").code == 0 and coarseloc("reconcile").code == 0, name


def fill(state: Path) -> Path:
    filler = state / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    return filler


def test_what_writes_files_of_its_own_leaves_none_half_written_on_a_full_disk(coarseloc, state, disk, flight, tmp_path):
    disk("size=400m")
    area = textured_map(tmp_path / "area.tif", 1)
    assert coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny").code == 0
    assert coarseloc("search", flight, "--no-verify").code == 0
    out = state / "out"
    out.mkdir()
    written = {
        "evaluate": ["evaluate", flight.name, "--csv", out / "scores.csv"],
        "report": ["report", flight.name, "--out", out / "report.html", "--figures", out],
        "simulate flight": ["simulate", "flight", area, "--out", out, "--footprint-m", 200, "--frames", 2],
        "simulate area": ["simulate", "area", out / "area.tif", "--width-m", 400, "--height-m", 400],
        "backup": ["backup", out / "copy.db"],
        "localize": ["localize", flight, "--map", area, "--footprint-m", 200, "--out", out],
    }
    filler = fill(state)
    for name, command in written.items():
        done = coarseloc(*command)
        assert done.code == 2 and re.search("space|full|room|left", done.err), (name, done)
        assert [path for path in out.rglob("*") if path.is_file()] == [], name
    filler.unlink()
    assert coarseloc(*written["evaluate"]).code == 0 and coarseloc("doctor", "--deep").code == 0


def test_pages_of_a_server_whose_disk_is_full_say_507_or_answer(coarseloc, state, disk, flight, tmp_path):
    disk("size=400m")
    assert coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny").code == 0
    assert coarseloc("search", flight, "--no-verify").code == 0
    app = create_app(config.load(state))
    client = app.test_client()
    assert client.get("/readyz").json["checks"]["disk"]["status"] == "ok"
    picture = io.BytesIO((flight / "251124155712_00001.jpg").read_bytes())
    headers = {"Accept": "application/json", "Origin": "http://localhost"}
    filler = fill(state)
    readiness = client.get("/readyz").json
    assert readiness["status"] == readiness["checks"]["disk"]["status"] == "degraded"
    refused = client.post("/search", data={"image": (picture, "frame.jpg")}, headers=headers)
    assert refused.status_code == 507 and "disk" in refused.get_data(as_text=True)
    for address in app.url_map.iter_rules():
        path = address.rule.replace("<flight_id>", flight.name).replace("<int:frame>", "1")
        if "GET" in (address.methods or ()) and "<" not in path and path != "/live/events":
            code = client.get(path).status_code
            assert code < 500 or code == 507, (path, code)
    assert client.get(f"/images/frames/{flight.name}/1.jpg?size=full").status_code == 507
    filler.unlink()
    assert client.get(f"/images/frames/{flight.name}/1.jpg?size=full").status_code == 200
    picture = io.BytesIO((flight / "251124155712_00001.jpg").read_bytes())
    assert client.post("/search", data={"image": (picture, "frame.jpg")}, headers=headers).status_code in (
        200,
        201,
        303,
    )
    assert not list((state / "uploads").glob(".*"))
    app.extensions["coarseloc"].close()


def test_a_read_only_data_folder_is_named(coarseloc, state, disk, flight, tmp_path):
    disk("size=400m")
    root = tmp_path / "captures"
    assert coarseloc("ingest", "captures", root, "--backbone", "tiny").code == 0
    assert coarseloc("search", flight, "--no-verify").code == 0
    before = rows(state)
    disk("ro")
    for name, command in commands(root, flight, tmp_path / "out").items():
        done = coarseloc(*command)
        assert done.code == (0 if name in READS else 2), (name, done)
        said = done.out + done.err  # of a folder, or of SQLite's file
        assert done.code == 0 or (re.search("read-?only", said, re.IGNORECASE) and str(state) in said), (name, done)
        assert rows(state) == before, name
    disk("rw")
    assert rows(state) == before


@pytest.fixture
def searched(coarseloc: Callable, ingested: Path, flight: Path) -> Callable[[], list]:
    """Ingested, searched; calling it searches again and gives the newest hits."""

    def hits() -> list:
        assert coarseloc("search", flight, "--k", 5, "--no-verify").code == 0
        with closing(sqlite3.connect(Path(os.environ["COARSELOC_DATA_DIR"]) / "coarseloc.db")) as database:
            newest = "SELECT max(run_id) FROM hits"
            return database.execute(
                f"SELECT frame_id, rank, snapshot_id, score FROM hits WHERE run_id = ({newest}) ORDER BY 1, 2"
            ).fetchall()

    return hits


def test_a_damaged_mirror_is_built_anew_and_gives_the_same_answers(searched, coarseloc, state):
    before = searched()
    for name in ("index.faiss", "rotated_tile_ids.npy", "point_ids.npy", "columns.npz", "schema.json"):
        (file,) = state.glob(f"mirrors/*/*/{name}")
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], b"", None, os.urandom(len(content))):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            assert searched() == before, (name, damaged)
            assert name == "schema.json" or file.stat().st_size == len(content)  # it tells its time


def test_doctor_names_a_mirror_with_a_flipped_bit_and_the_next_search_mends_it(searched, coarseloc, state):
    before = searched()
    (file,) = state.glob("mirrors/*/*/rotated_tile_ids.npy")
    content = bytearray(file.read_bytes())
    content[-8] ^= 1  # the key of another rotated tile, so another place
    file.write_bytes(content)
    diagnosis = coarseloc("doctor")
    assert diagnosis.code == 2 and "mirrors" in diagnosis.err and file.name in diagnosis.out.replace("\n", "")
    assert searched() == before
    assert coarseloc("doctor", "--json").json["mirrors"] == "1 sound, every byte read"


def test_a_deleted_shard_is_replayed_and_said_to_be(coarseloc, ingested, flight, state):
    asked = ["lookup", flight / "251124155712_00001.jpg", "--json"]
    before = coarseloc(*asked).json
    (shard,) = (path for path in state.glob("vectors/*/*") if path.is_dir())
    shutil.rmtree(shard)
    found = coarseloc("reconcile")
    assert found.code == 2 and "rebuild" in found.err
    assert coarseloc(*asked).json == before and coarseloc("reconcile").code == 0


def test_a_shard_with_any_file_gone_or_garbled_is_replayed(coarseloc, ingested, flight, state):
    """Each file of it in turn."""
    asked = ["lookup", flight / "251124155712_00001.jpg", "--json"]
    before = coarseloc(*asked).json
    (shard,) = (path for path in state.glob("vectors/*/*") if path.is_dir())
    names = sorted(str(path.relative_to(shard)) for path in shard.rglob("*") if path.is_file())
    for name in names:
        if (shard / name).exists():
            (shard / name).unlink()
            assert coarseloc(*asked).json == before, name


def pages_of(path: Path) -> int:
    return path.stat().st_size // 4096


def test_a_damaged_page_of_the_database_ends_in_a_line_and_doctor_finds_it(
    coarseloc, ingested, flight, state, tmp_path
):
    assert coarseloc("search", flight, "--no-verify").code == 0
    database = state / "coarseloc.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = database.read_bytes()
    found = 0
    asked = [commands(ingested, flight, tmp_path / "out")[n] for n in ("search", "export", "references", "ingest")]
    for page in range(1, pages_of(database), 3):
        for harm in (bytes(4096), b"\xff" * 4096):
            for path in state.glob("coarseloc.db-*"):
                path.unlink()
            database.write_bytes(whole[: page * 4096] + harm + whole[(page + 1) * 4096 :])
            command = asked[page % len(asked)]
            done = coarseloc(*command)
            assert done.code in (0, 2), done
            if done.code == 2:
                found += 1
                assert "doctor" in done.err or "restore" in done.err, done.err
    assert found > 10
    database.write_bytes(whole)
    for path in state.glob("coarseloc.db-*"):
        path.unlink()
    assert coarseloc("doctor").code == 0


@pytest.mark.parametrize("days", [-5000, 5000])
def test_a_clock_that_jumps_changes_no_answer_and_the_newest_search_stays_the_newest(
    coarseloc, ingested, flight, searched, monkeypatch, tmp_path, days
):
    before = searched()
    elsewhere = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr("coarseloc.store.tables.now", lambda: elsewhere)
    monkeypatch.setattr("coarseloc.store.runs.now", lambda: elsewhere)
    picture = next(ingested.glob("*_045/*_00003.jpg"))
    picture.write_bytes(next(ingested.glob("*_045/*_00004.jpg")).read_bytes())
    os.utime(picture, (elsewhere.timestamp(),) * 2)
    done = coarseloc("ingest", "captures", ingested, "--backbone", "tiny", "--json").json
    assert done["reference_sets"][0]["embedded"] == {"tiny": 1}
    after = searched()
    assert after != before
    newest = coarseloc("flights", "--json").json[0]["runs"][-1]
    assert newest["finished_at"].startswith(str(elsewhere.year))
    assert coarseloc("reconcile").code == 0
