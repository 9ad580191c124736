"""How costs grow with the number of vectors: `python tools/growth.py --counts 10000 100000 --dims 384 1024`.

Random unit vectors go the whole way a real ingest's do, without pictures and models: SQL in commits as the worker
makes them, the drain into Qdrant Edge, the mirror, exact and filtered searches. They are made as they are written, so
that a million need no more memory than a thousand. Each size has a folder, each stage a process of its own. Then costs
are fitted to what was measured. docs/scaling.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.filters import Where
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import EmbeddingSpec, LonLat, Near, ReferenceSet, Tile, View, batches
from coarseloc.store import Database, embeddings, open_database, references, tallies
from coarseloc.vectors import open_store, sync
from ingest.worker import COMMIT_ROWS
from search.exact_index import backend
from search.mirror import open_mirror

SET, ORIGIN, STRIDE_M, FOOTPRINT_M = "grown", LonLat(127.0, 37.5), 150.0, 300.0
QUERIES = 30
MIB = 2**20

Figures = dict[str, float]


def write(folder: Path, count: int, dim: int) -> Figures:
    """SQL, as an ingest writes it; making the vectors is not counted."""
    tiles = _tiles(count // len(HEADINGS))
    spec = EmbeddingSpec("generated", dim, "none", 224, (0.5,) * 3, (0.5,) * 3, "cls")
    reference_set = ReferenceSet(SET, "captures", "/nowhere", 300.0, 0.5, FOOTPRINT_M, HEADINGS)
    random, db, seconds = np.random.default_rng(0), _database(folder), 0.0
    started = time.perf_counter()
    with db.write() as session:
        stored = references.save_reference_set(session, reference_set)
        keys = references.save_tiles(session, stored.id, tiles)
        stored_spec = embeddings.save_spec(session, spec)
    seconds += time.perf_counter() - started
    for batch in batches(((tile, angle) for tile in tiles for angle in HEADINGS), COMMIT_ROWS):
        views = [(tile, _view(tile, angle), "stamp") for tile, angle in batch]
        vectors = _unit(random.standard_normal((len(batch), dim), np.float32))
        started = time.perf_counter()
        with db.write() as session:
            rotated = references.save_views(session, SET, keys, views)
            rows = zip(rotated.values(), vectors, strict=True)
            embeddings.write_embeddings(session, [(key, stored_spec.id, "0" * 64, v) for key, v in rows])
        seconds += time.perf_counter() - started
    with db.read() as session:
        pending_ms = _median_ms(lambda _: embeddings.pending_counts(session), range(QUERIES))
    db.close()
    return {"write_s": seconds, "write_peak_mib": _peak_mib(), "count_pending_ms": pending_ms}


def edge(folder: Path, count: int, dim: int) -> Figures:
    """Qdrant Edge: the drain, and look-ups by filters."""
    figures: Figures = {}
    db, resident_before = _database(folder), _resident()
    identity = db.identity
    with _timed(figures, "drain_s"), closing(open_store(folder, identity)) as store:
        sync.drain(db, store)
    db.close()
    started = time.perf_counter()
    with closing(open_store(folder, identity)) as store:
        (collection,) = store.collections()
        if store.count(collection) != count:
            raise SystemExit(f"Qdrant Edge holds {store.count(collection)} of {count} points")
        figures["edge_open_s"] = time.perf_counter() - started
        for name, where in {"angle": Where(angles=(45,)), "near": Where(near=Near(*ORIGIN, 2_000))}.items():
            query = partial(store.query, collection, k=10, where=where)
            figures[f"edge_{name}_ms"] = _median_ms(query, _queries(dim))
        figures["edge_mib"] = (_resident() - resident_before) / MIB
    return figures


def mirror(folder: Path, count: int, dim: int) -> Figures:
    """FAISS: the mirror built from SQL and opened, exact search."""
    figures: Figures = {}
    db = _database(folder)
    with db.read() as session:
        stored = references.find_reference_set(session, SET)
        (spec,) = embeddings.specs(session, stored.id)
        figures["version_ms"] = _median_ms(lambda _: tallies.tally(session, stored.id, spec.id), range(QUERIES))
    backend()  # the engine is loaded once for a process, not for each mirror
    figures["before_mirror_mib"] = _resident() / MIB
    with _timed(figures, "mirror_build_s"):
        open_mirror(db, folder / "mirrors", stored, spec, notice=print)
    figures["mirror_peak_mib"] = _peak_mib()
    with _timed(figures, "mirror_open_s"):
        opened = open_mirror(db, folder / "mirrors", stored, spec, rebuild=False)
    if opened.index.count != count:
        raise SystemExit(f"the mirror holds {opened.index.count} of {count} vectors")
    figures["exact_ms"] = _median_ms(lambda q: opened.index.search(q[None], 10), _queries(dim))
    selection = opened.selection(Where(angles=(45,)))
    figures["exact_angle_ms"] = _median_ms(lambda q: opened.index.search(q[None], 10, selection), _queries(dim))
    db.close()
    return figures


STAGES: dict[str, Callable[[Path, int, int], Figures]] = {"write": write, "edge": edge, "mirror": mirror}


def measure(folder: Path, count: int, dim: int) -> Figures:
    """One size: its stages one after another, then what they have left on the disk."""
    figures: Figures = {"count": count, "dim": dim, "load": round(os.getloadavg()[0], 1)}
    for stage in STAGES:
        command = [sys.executable, __file__, "--stage", stage, "--counts", str(count), "--dims", str(dim)]
        process = subprocess.run([*command, "--folder", folder], check=True, stdout=subprocess.PIPE, text=True)
        figures |= json.loads(process.stdout.splitlines()[-1])
    for name in ("coarseloc.db", "vectors", "mirrors"):
        figures[f"{name.removesuffix('.db').removeprefix('coarse')}_disk_mib"] = _size(folder / name) / MIB
    return figures


def _database(folder: Path) -> Database:
    return open_database(f"sqlite:///{folder / 'coarseloc.db'}")


def _queries(dim: int) -> np.ndarray:
    """float32 [QUERIES, dim], none of them among the references."""
    return _unit(np.random.default_rng(1).standard_normal((QUERIES, dim), np.float32))


def _tiles(count: int) -> list[Tile]:
    """A square grid, laid by one step of degrees: what matters here is their number."""
    columns = max(1, int(count**0.5))
    per_lon, per_lat = geo.metres_per_degree(ORIGIN.lat)
    tiles = []
    for i in range(count):
        row, column = divmod(i, columns)
        center = LonLat(ORIGIN.lon + column * STRIDE_M / per_lon, ORIGIN.lat - row * STRIDE_M / per_lat)
        tiles.append(Tile(i + 1, center, geo.square(center, FOOTPRINT_M)))
    return tiles


def _view(tile: Tile, angle: int) -> View:
    return View(angle, np.empty((0, 0, 3), np.uint8), "0" * 64, 1.0, Path(f"/nowhere/{angle:03d}/{tile.index:06d}.jpg"))


def _unit(rows: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


@contextmanager
def _timed(figures: Figures, name: str) -> Iterator[None]:
    """Write the seconds of a block into `figures`."""
    started = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - started


def _median_ms(call: Callable[[Any], object], queries: Iterable[Any]) -> float:
    """Of single calls, one after another, the first three left out."""
    times = []
    for query in queries:
        started = time.perf_counter()
        call(query)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[3:])


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _size(path: Path) -> int:
    """Bytes on the disk, holes not counted."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


# --- the model ------------------------------------------------------------------------------------


LARGE = 100_000  # vectors: below, caches and what is paid once rule
FITTED = ("write_s", "drain_s", "loc_disk_mib", "vectors_disk_mib", "mirrors_disk_mib", "exact_ms", "edge_angle_ms")


def fit_costs(sizes: list[Figures]) -> dict[str, tuple[float, float]]:
    """{cost: (per million vectors, per billion values in them)}, neither below 0, least in the sum of squared relative
    errors; seconds, MiB, ms."""
    costs = {}
    for name in FITTED:
        rows = np.array([[f["count"] / 1e6, f["count"] * f["dim"] / 1e9] for f in sizes])
        rows /= np.array([[f[name]] for f in sizes])
        per_unit, *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
        if per_unit.min() < 0:  # then one of the two alone
            alone = [rows[:, i].sum() / (rows[:, i] ** 2).sum() for i in (0, 1)]
            errors = [((rows[:, i] * alone[i] - 1) ** 2).sum() for i in (0, 1)]
            per_unit = np.where(np.arange(2) == np.argmin(errors), alone, 0.0)
        costs[name] = (float(per_unit[0]), float(per_unit[1]))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(STAGES[options.stage](options.folder, options.counts[0], options.dims[0])))
        return
    sizes = []
    for count in options.counts:
        for dim in options.dims:
            with tempfile.TemporaryDirectory(prefix="growth-", dir=options.folder) as folder:
                sizes.append(measure(Path(folder), count, dim))
            print(json.dumps(sizes[-1]), flush=True)
    names = list(sizes[0])
    print("\n|" + "|".join(["", *(f"{f['count']:,.0f} x {f['dim']}" for f in sizes)]) + "|")
    print("|---" * (len(sizes) + 1) + "|")
    for name in names[2:]:
        print(f"| {name} | " + " | ".join(f"{f[name]:.4g}" for f in sizes) + " |")
    large = [figures for figures in sizes if figures["count"] >= LARGE]
    if len(large) > 2:
        print(f"\nfitted from {LARGE:,} vectors up, per million vectors + per billion values (s, MiB, ms):")
        for name, (vector, value) in fit_costs(large).items():
            print(f"  {name}: {vector:.4g} + {value:.4g}")


if __name__ == "__main__":
    main()
