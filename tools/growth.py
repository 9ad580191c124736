"""How costs grow with the number of vectors: `python tools/growth.py --counts 10000 100000 --dims 384 1024`.

Random unit vectors go the whole way a real ingest's do, without pictures and models: SQL in commits as the worker
makes them, the drain into Qdrant Edge, the mirror, exact and filtered searches. Each size has a process and a folder
of its own. Then costs are fitted to what was measured. docs/scaling.md is made of it.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coarseloc import geo
from coarseloc.rotation import HEADINGS
from coarseloc.store import embeddings, open_database, references, tallies
from coarseloc.types import EmbeddingSpec, LonLat, Near, ReferenceSet, Tile, View, Where
from coarseloc.vectors import open_store
from ingest import index
from ingest.worker import COMMIT_ROWS
from search.mirror import open_mirror

ORIGIN, STRIDE_M, FOOTPRINT_M = LonLat(127.0, 37.5), 150.0, 300.0
QUERIES = 30
MIB = 2**20

Facts = dict[str, float]


def measure(folder: Path, count: int, dim: int) -> Facts:
    """One size, in this process."""
    found: Facts = {"count": count, "dim": dim, "load": round(os.getloadavg()[0], 1)}
    began_with = _resident()
    url = f"sqlite:///{folder / 'coarseloc.db'}"
    tiles = _tiles(count // len(HEADINGS))
    spec = EmbeddingSpec("generated", dim, "none", 224, (0.5,) * 3, (0.5,) * 3, "cls")
    db = open_database(url)
    reference_set = ReferenceSet("grown", "captures", "/nowhere", 300.0, 0.5, FOOTPRINT_M, HEADINGS)
    random = np.random.default_rng(0)

    with _timed(found, "write_s"):
        with db.write() as session:
            stored = references.save_reference_set(session, reference_set)
            keys = references.save_tiles(session, stored.id, tiles)
            stored_spec = embeddings.save_spec(session, spec)
        views = [(tile, _view(tile, angle), "stamp") for tile in tiles for angle in HEADINGS]
        for start in range(0, len(views), COMMIT_ROWS):
            some = views[start : start + COMMIT_ROWS]
            vectors = _unit(random.standard_normal((len(some), dim), np.float32))
            with db.write() as session:
                rotated = references.save_views(session, "grown", keys, some)
                rows = zip(rotated.values(), vectors, strict=True)
                embeddings.write_embeddings(session, [(key, stored_spec.id, "0" * 64, v) for key, v in rows])
    with _timed(found, "drain_s"), open_store(folder) as store:
        index.drain(db, store)
    with _timed(found, "reopen_edge_s"), open_store(folder) as store:
        if store.count(spec.collection) != len(views):
            raise SystemExit(f"Qdrant Edge holds {store.count(spec.collection)} of {len(views)} points")
        queries = _unit(random.standard_normal((QUERIES, dim), np.float32))
        middle = geo.offset(ORIGIN, 0.0, 0.0)
        for name, where in {"angle": Where(angles=(45,)), "near": Where(near=Near(*middle, 2_000))}.items():
            found[f"edge_{name}_ms"] = _median_ms(lambda q, w=where: store.query(spec.collection, q, 10, w), queries)
        found["edge_mib"] = (_resident() - began_with) / MIB

    with db.read() as session, _timed(found, "version_s"):
        tallies.tally(session, stored.id, stored_spec.id)
    with _timed(found, "mirror_build_s"):
        mirror = open_mirror(db, folder / "mirrors", stored, stored_spec, notice=print)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with _timed(found, "mirror_open_s"):
        mirror = open_mirror(db, folder / "mirrors", stored, stored_spec)
    found["exact_ms"] = _median_ms(lambda q: mirror.index.search(q[None], 10), queries)
    selection = mirror.selection(Where(angles=(45,)))
    found["exact_angle_ms"] = _median_ms(lambda q: mirror.index.search(q[None], 10, selection), queries)
    db.close()
    for name in ("coarseloc.db", "vectors", "mirrors"):
        found[f"{name.removesuffix('.db').removeprefix('coarse')}_disk_mib"] = _size(folder / name) / MIB
    return found


def _tiles(count: int) -> list[Tile]:
    """A square grid, laid by one step of degrees: what matters here is their number."""
    columns = max(1, int(count**0.5))
    per_lon, per_lat = geo.metres_per_degree(ORIGIN.lat)
    made = []
    for i in range(count):
        row, column = divmod(i, columns)
        center = LonLat(ORIGIN.lon + column * STRIDE_M / per_lon, ORIGIN.lat - row * STRIDE_M / per_lat)
        made.append(Tile(i + 1, center, geo.square(center, FOOTPRINT_M)))
    return made


def _view(tile: Tile, angle: int) -> View:
    return View(angle, np.empty((0, 0, 3), np.uint8), "0" * 64, 1.0, Path(f"/nowhere/{angle:03d}/{tile.index:06d}.jpg"))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class _timed:  # noqa: N801 - used as a statement
    """Write the seconds of a block into a dictionary."""

    def __init__(self, found: Facts, name: str) -> None:
        self._found, self._name = found, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._found[self._name] = time.perf_counter() - self._started


def _median_ms(call: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Of single calls, one after another, the first three left out."""
    times = []
    for query in queries:
        started = time.perf_counter()
        call(query)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[3:])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _size(path: Path) -> int:
    """Bytes on the disk, holes not counted."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


# --- the model ------------------------------------------------------------------------------------


FITTED = ("write_s", "drain_s", "loc_disk_mib", "vectors_disk_mib", "mirrors_disk_mib", "exact_ms", "edge_angle_ms")


def fitted(all_found: list[Facts]) -> dict[str, tuple[float, float]]:
    """{cost: (per million vectors, per billion values in them)}, neither below 0, least in the sum of squared relative
    errors; seconds, MiB, ms."""
    made = {}
    for name in FITTED:
        rows = np.array([[f["count"] / 1e6, f["count"] * f["dim"] / 1e9] for f in all_found])
        rows /= np.array([[f[name]] for f in all_found])
        both, *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
        if both.min() < 0:  # then one of the two alone
            alone = [rows[:, i].sum() / (rows[:, i] ** 2).sum() for i in (0, 1)]
            errors = [((rows[:, i] * alone[i] - 1) ** 2).sum() for i in (0, 1)]
            both = np.where(np.arange(2) == np.argmin(errors), alone, 0.0)
        made[name] = (float(both[0]), float(both[1]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.folder, asked.counts[0], asked.dims[0])))
        return
    all_found = []
    for count in asked.counts:
        for dim in asked.dims:
            with tempfile.TemporaryDirectory(prefix="growth-", dir=asked.folder) as folder:
                command = [sys.executable, __file__, "--one", "--counts", str(count), "--dims", str(dim)]
                done = subprocess.run([*command, "--folder", folder], check=True, stdout=subprocess.PIPE, text=True)
            all_found.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(all_found[-1]), flush=True)
    names = list(all_found[0])
    print("\n|" + "|".join(["", *(f"{f['count']:,.0f} x {f['dim']}" for f in all_found)]) + "|")
    print("|---" * (len(all_found) + 1) + "|")
    for name in names[2:]:
        print(f"| {name} | " + " | ".join(f"{f[name]:.4g}" for f in all_found) + " |")
    if len(all_found) > 2:
        print("\nfitted, per million vectors + per billion values (s, MiB, ms):")
        for name, (vector, value) in fitted(all_found).items():
            print(f"  {name}: {vector:.4g} + {value:.4g}")


if __name__ == "__main__":
    main()
