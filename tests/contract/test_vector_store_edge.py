"""What the embedded store promises beyond the contract: one process, crashes, damage, threads."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge
from data_folders import copy_data

from coarseloc.core import files
from coarseloc.core.errors import LockedError, VectorStoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import Point
from coarseloc.vectors.edge import EdgeStore
from coarseloc.vectors.shard import Shard

DIM = 16
NAME = "damaged-1234"
MakePoints = Callable[..., list[Point]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, make_points: MakePoints) -> Path:
    """A closed store of 1,500 points; tests work on copies, which is faster than making collections."""
    folder = tmp_path_factory.mktemp("template")
    with EdgeStore(folder) as store:
        store.ensure(NAME, DIM)
        points = make_points(1_500)
        for start in (0, 500, 1_000):  # in batches, as a drain does: the log keeps only the last one
            store.upsert(NAME, points[start : start + 500])
        store.flush(NAME)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return copy_data(template, tmp_path / "vectors")


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that has opened the store as `store`, and wait until it prints `ready`."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        opening = f"from coarseloc.vectors.edge import EdgeStore\nstore = EdgeStore({str(folder)!r})\n"
        process = subprocess.Popen(
            [sys.executable, "-c", opening + code, "ingest", "captures"], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


# --- one process at a time ----------------------------------------------------------------------

WAITING = "print('ready', flush=True)\nimport time; time.sleep(600)"


def test_a_second_process_is_told_who_holds_the_folder(folder: Path, start: Callable[..., Any]) -> None:
    process = start(WAITING)
    with pytest.raises(LockedError, match=rf"in use by process {process.pid} \(`-c ingest captures`, since 2.*URL"):
        EdgeStore(folder)


def test_the_folder_is_free_again_when_its_owner_is_killed(folder: Path, start: Callable[..., Any]) -> None:
    process = start(WAITING)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with EdgeStore(folder) as store:
        assert store.count(NAME) == 1_500


def test_closing_lets_the_folder_go_and_ends_the_store(folder: Path) -> None:
    store = EdgeStore(folder)
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        EdgeStore(folder)
    store.close()
    store.close()
    EdgeStore(folder).close()
    with pytest.raises(VectorStoreError, match="was closed"):
        store.count(NAME)


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VectorStoreError, match="make it writable"):
        EdgeStore(tmp_path / "file" / "vectors")


# --- crashes ------------------------------------------------------------------------------------


def test_kill_9_after_a_flush_loses_nothing(folder: Path, start: Callable[..., Any], make_points: MakePoints) -> None:
    process = start(
        f"""
import importlib.util
spec = importlib.util.spec_from_file_location("helpers", {str(Path(__file__).with_name("conftest.py"))!r})
helpers = importlib.util.module_from_spec(spec); spec.loader.exec_module(helpers)
store.upsert({NAME!r}, helpers.points(800, "flushed"))
store.delete({NAME!r}, [point.id for point in helpers.points(300)])
store.flush({NAME!r})
print("ready", flush=True)
import time; time.sleep(600)
"""
    )
    process.send_signal(signal.SIGKILL)
    process.wait()

    for _ in range(2):  # the first opening applies the engine's journals
        with EdgeStore(folder) as store:
            assert NAME in store.collections()
            assert store.needs_rebuild == []
            assert store.count(NAME, Where(reference_sets=("flushed",))) == 800
            assert store.count(NAME, Where(reference_sets=("area",))) == 1_200
            probe = make_points(800, "flushed")[77]
            assert store.query(NAME, probe.vector, 1, Where(reference_sets=("flushed",)))[0].id == probe.id


def test_a_store_that_could_not_say_who_opens_it_is_not_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", full)
        with pytest.raises(VectorStoreError, match="No space left") as refused:
            EdgeStore(folder)
    EdgeStore(folder).close()
    assert refused.tb is not None, "whose frames know the lock until here"


def test_a_collection_whose_writes_were_cut_off_is_gone_and_leaves_nothing_behind(
    folder: Path, make_points: MakePoints, tmp_path: Path
) -> None:
    with EdgeStore(folder) as store:
        store.upsert(NAME, make_points(100, "unflushed"))
        as_killed = copy_data(folder, tmp_path / "killed")
        store.flush(NAME)
    with EdgeStore(as_killed) as store:
        assert not store.has(NAME) and store.needs_rebuild == []
    assert not list(as_killed.glob(f"*{NAME}*"))


def test_closing_flushes_what_was_written(folder: Path, make_points: MakePoints) -> None:
    with EdgeStore(folder) as store:
        store.upsert(NAME, make_points(100, "extra"))
    with EdgeStore(folder) as store:
        assert store.count(NAME) == 1_600


def test_a_collection_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.new" / "segments").mkdir(parents=True)
    (tmp_path / f".{NAME}.abc.dropped").mkdir()
    with EdgeStore(tmp_path) as store:
        assert store.collections() == []
        store.ensure(NAME, DIM)
        assert store.count(NAME) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [NAME]


# --- damage -------------------------------------------------------------------------------------


def _remove(pattern: str) -> Callable[[Path], None]:
    return lambda shard: next(shard.rglob(pattern)).unlink()


def _halve(pattern: str) -> Callable[[Path], None]:
    def halve(shard: Path) -> None:
        path = next(shard.rglob(pattern))
        os.truncate(path, path.stat().st_size // 2)

    return halve


DAMAGE = {
    "points lost without a word": _remove("mutable_id_tracker.versions"),
    "points lost by a cut": _halve("mutable_id_tracker.mappings"),
    "a segment's state gone": _remove("segment.json"),
    "a panic in the engine": _halve("vector_storage/vectors/status.dat"),
    "the engine's settings cut": _halve("edge_config.json"),
    "our manifest gone": _remove("coarseloc.json"),
    "our manifest cut": _halve("coarseloc.json"),
    "everything gone": lambda shard: [shutil.rmtree(path) for path in shard.iterdir() if path.is_dir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_collection_is_put_aside_and_named(folder: Path, damage: Callable[[Path], Any]) -> None:
    damage(folder / NAME)
    with EdgeStore(folder) as store:
        with pytest.raises(VectorStoreError, match=r"it was damaged and put aside\. Run `coarseloc rebuild`"):
            store.count(NAME)
        assert store.collections() == []
        assert store.needs_rebuild == [NAME]
    assert len(list(folder.glob(f"{NAME}.broken-*"))) == 1
    with EdgeStore(folder) as later:
        assert later.needs_rebuild == [NAME]


def test_no_file_with_a_flipped_bit_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine aborts the process, hangs or answers wrongly on some. `make torture` flips 500."""
    rng = random.Random(18)
    shard = folder / NAME
    names = [str(path.relative_to(shard)) for path in shard.rglob("*") if path.is_file() and path.stat().st_size]
    monkeypatch.setattr(qdrant_edge.EdgeShard, "load", lambda _: pytest.fail("it was opened"))
    with EdgeStore(folder) as store:
        for name in ["coarseloc.json", *rng.sample(names, 12)]:
            with (shard / name).open("r+b", buffering=0) as file:
                at = file.seek(rng.randrange(file.seek(0, os.SEEK_END)))
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))
            assert not store.has(NAME) and store.needs_rebuild == [NAME], name
            next(folder.glob(f"{NAME}.broken-*")).rename(shard)
            with (shard / name).open("r+b", buffering=0) as file:
                file.seek(at)
                file.write(byte)


def test_a_file_that_is_none_of_the_shards_own_is_not_opened_either(folder: Path) -> None:
    (folder / NAME / "segments" / "another.json").write_text("{}")
    with EdgeStore(folder) as store:
        assert not store.has(NAME)


def test_dropping_all_opens_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_edge.EdgeShard, "load", lambda _: pytest.fail("it was opened"))
    (folder / f"{NAME}.broken-1").mkdir()
    with EdgeStore(folder) as store:
        store.drop_all()
    assert not list(folder.glob(f"*{NAME}*"))


def test_asking_for_one_collection_opens_no_other(folder: Path, make_points: MakePoints) -> None:
    with EdgeStore(folder) as store:
        store.ensure("other", DIM)
        store.upsert("other", make_points(3))
        store.flush("other")
    (folder / NAME / "edge_config.json").write_bytes(b"\xff")  # it would be put aside
    with EdgeStore(folder) as store:
        assert store.has("other") and store.count("other") == 3 and not store.has("a-third")
        assert (folder / NAME).is_dir()
        assert not store.has(NAME) and store.needs_rebuild == [NAME]


def test_a_collection_is_opened_while_another_one_still_is(
    folder: Path, make_points: MakePoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EdgeStore(folder) as store:
        store.ensure("quick-1234", DIM)
        store.upsert("quick-1234", make_points(1))
        store.flush("quick-1234")
    begun, may_end = threading.Event(), threading.Event()

    def slow(path: Path) -> Shard:
        if path.name == NAME:
            begun.set()
            assert may_end.wait(60)
        return Shard(path)

    monkeypatch.setattr("coarseloc.vectors.edge.Shard", slow)
    with EdgeStore(folder) as store:
        first = threading.Thread(target=store.count, args=(NAME,))
        first.start()
        assert begun.wait(60)
        assert store.count("quick-1234") == 1
        may_end.set()
        first.join()
        assert store.count(NAME) == 1_500


def test_a_collection_that_is_being_opened_when_the_store_is_closed_is_closed_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, refused = threading.Event(), threading.Event(), []

    def slow(path: Path) -> Shard:
        shard = Shard(path)
        begun.set()
        assert may_end.wait(60)
        return shard

    def ask() -> None:
        with pytest.raises(VectorStoreError, match="was closed: open it again"):
            store.count(NAME)
        refused.append(True)

    store = EdgeStore(folder)
    with monkeypatch.context() as patched:
        patched.setattr("coarseloc.vectors.edge.Shard", slow)
        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(60)
        store.close()
        may_end.set()
        asking.join()
    assert refused
    with EdgeStore(folder) as again:
        assert again.count(NAME) == 1_500


def test_nobody_goes_on_upserting_as_if_the_damaged_points_were_there(folder: Path, make_points: MakePoints) -> None:
    (folder / NAME / "edge_config.json").write_bytes(b"\xff")
    with EdgeStore(folder) as store:
        with pytest.raises(VectorStoreError, match="put aside"):
            store.ensure(NAME, DIM)
        assert NAME not in store.collections()
        store.ensure(NAME, DIM)  # by now it is known to be lacking
        assert store.needs_rebuild == []
        store.upsert(NAME, make_points(8))
        assert store.count(NAME) == 8
        store.drop(NAME)
    assert not list(folder.glob(f"{NAME}*"))


def test_trouble_of_the_machine_puts_nothing_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise RuntimeError("IO Error: Too many open files (os error 24)")

    monkeypatch.setattr(qdrant_edge.EdgeShard, "load", load)
    with EdgeStore(folder) as store:
        with pytest.raises(VectorStoreError, match=r"Too many open files.*untouched"):
            store.count(NAME)
        monkeypatch.undo()
        assert store.count(NAME) == 1_500


def test_a_disk_that_is_nearly_full_is_refused_before_the_engine_dies_of_it(
    folder: Path, make_points: MakePoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = type("Usage", (), {"free": 100 * 2**20})
    with EdgeStore(folder) as store:
        store.count(NAME)  # opens it
        monkeypatch.setattr(shutil, "disk_usage", lambda _: left)
        with pytest.raises(VectorStoreError, match=r"100 MiB left.*128: make room"):
            store.upsert(NAME, make_points(8, "extra"))
        with pytest.raises(VectorStoreError, match="make room"):
            store.ensure("another", DIM)
        assert store.count(NAME) == 1_500
    with EdgeStore(folder) as store:
        with pytest.raises(VectorStoreError, match="opened and written only while"):  # opening writes as well
            store.count(NAME)
        monkeypatch.undo()
        assert store.count(NAME) == 1_500 and not store.needs_rebuild


# --- threads ------------------------------------------------------------------------------------


def test_threads_read_while_one_writes_and_flushes(folder: Path, make_points: MakePoints) -> None:
    points, extra = make_points(1_500), make_points(400, "extra")
    failures: list[BaseException] = []
    done = threading.Event()

    def read(seed: int) -> None:
        while not done.wait(0.001):  # a thread that never waits would let no other have the interpreter
            try:
                point = points[seed]
                hits = store.query(NAME, point.vector, 3, Where(reference_sets=("area",)))
                assert hits[0].id == point.id and len(hits) == 3
                assert store.count(NAME, Where(reference_sets=("area",), angles=(90,))) == 188
                assert len(store.vectors(NAME, [p.id for p in points[:50]])) == 50
            except BaseException as error:
                failures.append(error)
                return

    with EdgeStore(folder) as store:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in (3, 700, 1_400)]
        for thread in threads:  # the first reads of all of them open the shard, which must happen once
            thread.start()
        store.upsert(NAME, extra)
        store.flush(NAME)
        store.delete(NAME, [point.id for point in extra])
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_closing_under_readers_ends_them_with_our_error(folder: Path, make_points: MakePoints) -> None:
    store, point = EdgeStore(folder), make_points(1)[0]
    ends: list[BaseException] = []
    all_reading = threading.Barrier(4)

    def read() -> None:
        try:
            store.query(NAME, point.vector, 3)
            all_reading.wait(timeout=120)
            while True:
                store.query(NAME, point.vector, 3)
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    all_reading.wait(timeout=120)
    store.close()
    for thread in threads:
        thread.join(timeout=120)
    assert [type(error) for error in ends] == [VectorStoreError] * 3


# --- start-up -----------------------------------------------------------------------------------


def test_importing_the_room_loads_no_engine() -> None:
    code = "import sys, coarseloc.vectors; print([m for m in sys.modules if m.startswith('qdrant')])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
