"""Exact search: one query, many, filtered; opening a mirror; and a frame from its file to its ten hits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine, models, notebook, peers, pictures
from benchmarks.figures import Figure, Results, faster
from benchmarks.rounds import Contest, Way, contest
from benchmarks.size import Size
from coarseloc.core import filters, geo, ids
from coarseloc.core.filters import Where
from coarseloc.core.types import Float32, LonLat, Near, Point, TileFacts
from coarseloc.embedding import specs
from coarseloc.embedding.backbone import load_backbone
from coarseloc.imagery.decode import read_image
from coarseloc.vectors.edge import EdgeStore
from coarseloc.vectors.protocol import VectorStore
from coarseloc.vectors.server import LocalStore
from search import faiss_vectors
from search.exact_index import ExactIndex
from search.faiss_vectors import FaissVectors
from search.neighbors import Selection
from search.speed import unit_vectors

K = 10
MANY_QUERIES = 64
OURS, AUTO, FAISS = "coarseloc", "coarseloc, auto", "FAISS default"
PLAIN = ("numpy", "torch")
_COLLECTION = "tiles"
_STRIDE_M = 150.0
_BLAS_FROM = 128_000  # queries x dim from which FAISS itself multiplies matrices; coarseloc sets another

faiss = faiss_vectors.library()  # loaded as users load it: its BLAS is chosen then


# --- exact search -------------------------------------------------------------------------------


def growth(size: Size, say: Callable[[str], object] = print) -> Results:
    """One query and 64, from a thousand vectors to a million."""
    results, single_query_contests, many_query_contests = Results(), {}, {}
    reads = machine.read_ways(size.ceiling_mib)
    for count, dim in [*((count, 384) for count in size.counts), *size.wider]:
        say(f"  {count:,} x {dim}")
        if machine.free_memory() < 2 * count * dim * 4 + 2**30:
            results.records[f"exact search, {count:,} x {dim}"] = "skipped: not enough memory free"
            say("    skipped: not enough memory free")
            continue
        stored = faiss_vectors.store(count, dim, [unit_vectors(count, dim)])
        single_query_contests[count, dim] = _search_contest(stored, 1, size, reads)
        if count * dim <= size.many_up_to:
            many_query_contests[count, dim] = _search_contest(stored, MANY_QUERIES, size, {})
    results.contests = [*single_query_contests.values(), *many_query_contests.values()]
    results.figures = _search_figures(single_query_contests, many_query_contests)
    return results


def _search_contest(stored: FaissVectors, queries: int, size: Size, ceiling_ways: dict[str, Way]) -> Contest:
    """Time each way with its own library's threads, after checking that all return the same rows."""
    ways, flat = _ways(stored), stored.flat
    pool = unit_vectors(MANY_QUERIES, flat.d, seed=1)
    first = [pool[i : i + queries] for i in range(0, min(MANY_QUERIES, 4 * queries), queries)]
    for way, search in ways.items():
        for batch in first:
            _check_rows(way, search(batch), ways[OURS](batch))
    about_s = flat.ntotal * flat.d * 4 / 20e9 * (1 if queries == 1 else 8)
    repeats = int(np.clip(size.call_s / about_s, 1, 50))
    timed = {way: _repeated(search, pool, queries, repeats) for way, search in ways.items()}
    name = f"{queries} exact {'query' if queries == 1 else 'queries'}, {flat.ntotal:,} x {flat.d}"
    return contest(name, "query" if queries == 1 else f"{queries} queries", timed | ceiling_ways, size.rounds)


def _ways(stored: FaissVectors) -> dict[str, Callable[[Float32], Any]]:
    """float32 [Q, D] → int64 [Q, K], best first. All search one copy of the vectors."""
    index = ExactIndex(stored)
    auto = index.admitting("auto")
    flat, vectors = stored.flat, stored.vectors
    tensor = torch.from_numpy(vectors)

    def by_faiss(queries: Float32) -> Any:
        with _faiss_default():
            return flat.search(queries, K)[1]

    def by_numpy(queries: Float32) -> Any:
        scores = queries @ vectors.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    def by_torch(queries: Float32) -> Any:
        torch.set_num_threads(machine.cores())
        return (torch.from_numpy(queries) @ tensor.T).topk(K).indices.numpy()

    return {
        OURS: lambda queries: index.search(queries, K)[1],
        AUTO: lambda queries: auto.search(queries, K)[1],
        FAISS: by_faiss,
        "numpy": by_numpy,
        "torch": by_torch,
    }


@contextmanager
def _faiss_default() -> Iterator[None]:
    """Restore FAISS's own global threshold, which coarseloc changes."""
    ours = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = ours


def _repeated(search: Callable[[Float32], Any], pool: Float32, queries: int, repeats: int) -> Way:
    """A way that searches `repeats` times, each time another part of the pool."""

    def call() -> None:
        for i in range(repeats):
            first = i % (len(pool) - queries + 1)
            search(pool[first : first + queries])

    return Way(call, repeats)


def _check_rows(way: str, rows: Any, expected: Any) -> None:
    if not np.array_equal(rows, expected):
        raise RuntimeError(f"{way} finds other rows than coarseloc: nothing to compare")


def _search_figures(
    single_query_contests: dict[tuple[int, int], Contest], many_query_contests: dict[tuple[int, int], Contest]
) -> list[Figure]:
    """The least of each range of sizes: a target is reached where all of them reach it."""
    figures = []
    for queries, contests in (("one exact query", single_query_contests), ("64 exact queries", many_query_contests)):
        figures += _least_ratio(f"{queries}, any size", OURS, (FAISS,), contests, 1.0)
        figures += _least_ratio(f"{queries}, any size", OURS, PLAIN, contests, 0.9)
        figures += _least_ratio(f"{queries}, any size, engine auto", AUTO, (FAISS, *PLAIN), contests, 1.0)
    many_rows = {case: c for case, c in single_query_contests.items() if case[0] >= 100_000}
    figures += _least_ratio("one exact query, N ≥ 100k", OURS, (FAISS,), many_rows, 1.5)
    shares = {
        (count, dim): count * dim * 2 / c.median(OURS) / machine.ceiling(c) * 100  # half precision is what is read
        for (count, dim), c in single_query_contests.items()
        if count >= 100_000
    }
    return figures + _least("share of read bandwidth, one query, N ≥ 100k", "a sum over memory", shares, "%", 75.0)


def _least_ratio(
    measure: str, ours: str, peers: Sequence[str], contests: dict[tuple[int, int], Contest], target: float
) -> list[Figure]:
    """The least ratio, of a contest's medians, against the best of the peers."""
    ratios = {case: min(c.ratio(ours, peer) for peer in peers) for case, c in contests.items()}
    minima = (min(c.ratio_of_minima(ours, peer) for peer in peers) for c in contests.values())
    of_minima = min(minima, default=None)
    peer = peers[0] if len(peers) == 1 else f"best of {', '.join(peers)}"
    return [replace(figure, of_minima=of_minima) for figure in _least(measure, peer, ratios, "x", target)]


def _least(measure: str, peer: str, values: dict[tuple[int, int], float], unit: str, target: float) -> list[Figure]:
    if not values:
        return []
    cases = ", ".join(f"{_short(count)} x {dim}: {value:.3g}" for (count, dim), value in values.items())
    return [Figure(f"{measure} (the least)", peer, min(values.values()), unit, target, note=cases)]


def _short(count: int) -> str:
    return f"{count / 1e6:g}M" if count >= 1_000_000 else f"{count / 1e3:g}k"


# --- opening ------------------------------------------------------------------------------------


def opening(size: Size, work: Path) -> Results:
    """A mirror's index file, keys and point ids, mapped instead of read; the first query then pays for the pages it
    needs."""
    count = max(size.counts)
    path, keys, points = work / "index.faiss", work / "rotated_tile_ids.npy", work / "point_ids.npy"
    ExactIndex.of(unit_vectors(count, 384)).save(path)
    np.save(keys, np.arange(count))
    np.save(points, np.zeros((count, 2), np.uint64))
    timed = contest(
        f"open {count:,} x 384",
        "open",
        {
            "coarseloc, mapped": Way(
                lambda: (ExactIndex.open(path, np.load(points, mmap_mode="r")), np.load(keys, mmap_mode="r"))
            ),
            "FAISS read_index": Way(lambda: faiss.read_index(str(path))),
        },
        size.rounds,
    )
    ms = timed.median("coarseloc, mapped") * 1e3
    measure = f"open a mirror of {_short(count)} x 384"
    note = "index, keys and point ids; SQL is asked for its version beside this"
    return Results([timed], [Figure(measure, "", ms, "ms", 5.0, at_most=True, note=note)])


# --- filtered -----------------------------------------------------------------------------------


def filtered(size: Size, work: Path) -> Results:
    """A bitmap over columns in memory, against Qdrant in this process, over the same tiles and filters."""
    facts = tile_facts(size.filtered)
    vectors = unit_vectors(len(facts), 384)
    index, columns = ExactIndex.of(vectors), filters.columns(facts)
    (query,) = unit_vectors(1, 384, seed=1)
    local_count = min(len(facts), size.filtered_local)
    results = Results()
    with EdgeStore(work / "vectors") as edge, LocalStore() as local:
        _fill(edge, facts, vectors)
        _fill(local, facts[:local_count], vectors[:local_count])

        def ours(selection: Selection) -> list[str]:
            return [facts[row].point_id for row in index.search(query[None], K, selection)[1][0]]

        def first(where: Where) -> list[str]:
            return ours(Selection(where.mask(columns)))

        def theirs(store: VectorStore, where: Where) -> list[str]:
            return [hit.id for hit in store.query(_COLLECTION, query, K, where)]

        for share in (0.01, 0.1):
            where = part_of(len(facts), share)
            selection = Selection(where.mask(columns))
            if ours(selection) != theirs(edge, where):
                raise RuntimeError("Qdrant Edge finds other tiles than coarseloc: nothing to compare")
            ways = {
                OURS: _times(20, partial(ours, selection)),
                f"{OURS}, a filter's first query": _times(20, partial(first, where)),
                "Qdrant Edge": _times(20, partial(theirs, edge, where)),
                f"qdrant-client's local mode, {local_count:,} points only": _times(1, partial(theirs, local, where)),
            }
            name = f"filtered query ({share:.0%}), {len(facts):,} x 384"
            results.contests.append(contest(name, "query", ways, size.rounds))
            results.figures.append(faster(f"{name}, bitmap", results.contests[-1], OURS, "Qdrant Edge", 1.5))
    return results


def _times(times: int, call: Callable[[], object]) -> Way:
    return Way(lambda: [call() for _ in range(times)], times)


def tile_facts(count: int) -> list[TileFacts]:
    """`count` rotated tiles: eight headings a place, places 150 m apart in a square."""
    columns = math.ceil((count / 8) ** 0.5)
    facts = []
    for i in range(count):
        place, angle = i // 8, i % 8 * 45
        row, column = divmod(place, columns)
        center = geo.offset(LonLat(127.0, 37.5), _STRIDE_M * column, -_STRIDE_M * row)
        point = str(ids.point_id("bench", place + 1, angle))
        names = (point, "bench", ids.tile_id("bench", place + 1), ids.place_id(*center))
        facts.append(TileFacts(*names, angle, 300.0, 0.5, center, geo.square(center, 300.0)))
    return facts


def part_of(count: int, share: float) -> Where:
    """A circle around the middle of the square that holds this share of its places."""
    side = _STRIDE_M * (count / 8) ** 0.5
    middle = geo.offset(LonLat(127.0, 37.5), side / 2, -side / 2)
    return Where(near=Near(middle.lon, middle.lat, side * (share / math.pi) ** 0.5))


def _fill(store: VectorStore, facts: Sequence[TileFacts], vectors: Float32) -> None:
    store.ensure(_COLLECTION, vectors.shape[1])
    points = [Point(*pair) for pair in zip(facts, vectors, strict=True)]
    for i in range(0, len(points), 500):
        store.upsert(_COLLECTION, points[i : i + 500])
    store.flush(_COLLECTION)


# --- one frame ----------------------------------------------------------------------------------


def one_frame(size: Size, work: Path) -> Results:
    """From a frame's file to its ten hits, as `coarseloc search` does it and as a notebook does it."""
    weights = models.random_backbone(specs.row("vits16"), work / "weights", layers=size.layers)
    (path,) = pictures.write_tiles(work / "frames", 1, size.source_px[-1])
    process, forward = notebook.processor_of(weights, size.input_px), notebook.transformers_forward(weights)
    backbone = load_backbone(weights, input_px=size.input_px, device="cpu")
    stored = faiss_vectors.store(size.references, 384, [unit_vectors(size.references, 384)])
    index, flat = ExactIndex(stored), stored.flat

    def ours() -> Any:
        return index.search(backbone.embed(read_image(path)[None]), K)[1]

    def theirs() -> Any:
        with _faiss_default():
            return peers.notebook_frame(path, process, forward, lambda vector: flat.search(vector, K))[1]

    _check_rows("the notebook", theirs(), ours())
    frames = 4
    timed = contest(
        f"one frame of {size.source_px[-1]} px, vits16, decode to ten hits at {size.references:,} references",
        "frame",
        {
            OURS: Way(lambda: [ours() for _ in range(frames)], frames),
            "notebook": Way(lambda: [theirs() for _ in range(frames)], frames),
        },
        size.rounds,
        warm_ups=2,
    )
    return Results([timed], [faster(timed.name, timed, OURS, "notebook", 1.6)])
