"""ExactIndex against brute force: the same rows in the same order on every path."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.core.errors import ConfigError, InputError, StoreError
from search import engines, exact_index, faiss_cpu, faiss_vectors
from search.engines import FaissGpu, Torch
from search.exact_index import ExactIndex
from search.export.records import CoarseLocalizationInfo
from search.faiss_cpu import CpuWay, FaissCpu, cpu_ways
from search.neighbors import Selection, nearest
from search.trials import make_engine


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def brute_force(vectors, queries, k, mask=None):
    """The oracle: all true inner products rounded to float32, sorted by (score, row)."""
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    products = queries.astype(np.float64) @ vectors[allowed].astype(np.float64).T
    scores = products.astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), allowed[order]


def agrees(searched, vectors, queries, k, mask=None):
    scores, rows = searched.search(queries, k, None if mask is None else Selection(mask))
    want_scores, want_rows = brute_force(vectors, queries, k, mask)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    np.testing.assert_array_equal(rows, want_rows)
    np.testing.assert_array_equal(scores, want_scores)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 300),
    distinct=st.integers(1, 60),
    queries=st.sampled_from([1, 2, 7, 8, 20]),
    k=st.sampled_from([1, 2, 10, 40, 500]),
    masked=st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]),
)
def test_every_path_equals_brute_force_ties_and_duplicates_included(seed, count, distinct, queries, k, masked):
    random = np.random.default_rng(seed)
    # Sixteen signs over four: inner products are exact in any order, and most of them tie.
    vectors = (random.choice([-0.25, 0.25], (distinct, 16)).astype(np.float32))[random.integers(0, distinct, count)]
    asked = random.choice([-0.25, 0.25], (queries, 16)).astype(np.float32)
    mask = None if masked is None else random.random(count) < masked
    agrees(ExactIndex.of(vectors), vectors, asked, k, mask)


@pytest.mark.parametrize("queries", [1, 3, 8, 64])
@pytest.mark.parametrize("share", [None, 0.01, 0.3])
def test_vectors_of_a_real_width_equal_brute_force(queries, share):
    random = np.random.default_rng(7)
    vectors = unit(random.standard_normal((12_000, 384)) + 3.0)  # cosines near 0.9, as users see them
    asked = unit(vectors[random.integers(0, len(vectors), queries)] + 0.1 * random.standard_normal((queries, 384)))
    mask = None if share is None else random.random(len(vectors)) < share
    agrees(ExactIndex.of(vectors), vectors, asked, 10, mask)


@pytest.mark.parametrize("queries", [1, 8])
def test_more_duplicates_than_are_proposed_come_in_row_order(queries):
    random = np.random.default_rng(3)
    vectors = unit(random.standard_normal((5000, 48)))
    vectors[1000:4000] = vectors[0]
    asked = np.repeat(vectors[:1], queries, axis=0)
    _, rows = ExactIndex.of(vectors).search(asked, 10)
    assert rows.tolist() == [[0, *range(1000, 1009)]] * queries


@pytest.mark.parametrize("queries", [1, 3, 20])
@pytest.mark.parametrize("k", [10, 600])
def test_every_way_of_searching_on_a_cpu_gives_the_same_answers(monkeypatch, queries, k):
    monkeypatch.setattr(faiss_cpu, "max_threads", lambda: 4)
    faiss_cpu._pool.cache_clear()
    random = np.random.default_rng(5)
    vectors = unit(random.standard_normal((3001, 32)) + 2.0)
    vectors[[17, 1500, 3000]] = vectors[9]
    vectors[2000:2100] = vectors[10]  # more than there are candidates to spare
    asked = vectors[9 : 9 + queries]
    stored, want = with_half(vectors), brute_force(vectors, asked, k)
    ways = cpu_ways(queries, True, ("faiss", "numpy", "torch"))
    for way in ways:
        scores, rows = nearest(stored.vectors, make_engine(stored, way), asked, k)
        np.testing.assert_array_equal(rows, want[1], err_msg=str(way))
        np.testing.assert_array_equal(scores, want[0], err_msg=str(way))
    assert {way.threads for way in ways} == {0, 1, 2, 4}
    faiss_cpu._pool.cache_clear()


def test_a_selection_cut_among_threads_is_the_same(monkeypatch):
    monkeypatch.setattr(faiss_cpu, "_BYTES_PER_THREAD", 1000)
    monkeypatch.setattr(faiss_cpu, "max_threads", lambda: 3)
    faiss_cpu._pool.cache_clear()
    random = np.random.default_rng(5)
    vectors = unit(random.standard_normal((3001, 32)))
    vectors[[17, 1500, 3000]] = vectors[9]
    index = ExactIndex.of(vectors)
    agrees(index, vectors, vectors[:3], 10, random.random(3001) < 0.5)
    agrees(index, vectors, vectors[:1], 10, np.arange(3001) > 2400)  # all in the last range
    faiss_cpu._pool.cache_clear()


# --- half precision proposes first --------------------------------------------------------------

HALF_FIRST = CpuWay("faiss", "scan", "fp16", 1)


class WatchedEngine(FaissCpu):
    """Reads half precision first, and notes the error bounds of the passes that searches came to."""

    def __init__(self, stored):
        super().__init__(stored, HALF_FIRST)
        self.bounds = []

    def passes(self, k, selection):
        def noted(engine_pass):
            return lambda queries, m: self.bounds.append(engine_pass.error) or engine_pass.candidates(queries, m)

        for engine_pass in super().passes(k, selection):
            yield engine_pass._replace(candidates=noted(engine_pass))


def test_one_query_may_read_half_the_bytes():
    random = np.random.default_rng(1)
    vectors = unit(random.standard_normal((12_000, 384)))
    stored = with_half(vectors)
    engine = WatchedEngine(stored)
    _, rows = nearest(stored.vectors, engine, vectors[:1], 10)
    np.testing.assert_array_equal(rows, brute_force(vectors, vectors[:1], 10)[1])
    assert engine.bounds == [pytest.approx(2.0**-11, rel=0.1)]


def test_neighbours_that_half_precision_cannot_tell_apart_are_asked_about_in_float32():
    random = np.random.default_rng(2)
    vectors = unit(random.standard_normal((12_000, 384)))
    vectors[::20] = unit(vectors[0] + 1e-5 * random.standard_normal((600, 384)))  # cosines 5e-8 below one
    vectors[::200] = unit(vectors[0] + 1e-2 * random.standard_normal((60, 384)))
    asked = unit(vectors[1:2] * 0.2 + vectors[0])
    stored = with_half(vectors)
    engine = WatchedEngine(stored)
    _, rows = nearest(stored.vectors, engine, asked, 10)
    np.testing.assert_array_equal(rows, brute_force(vectors, asked, 10)[1])
    assert engine.bounds[0] > 4e-4 and engine.bounds[1] < 5e-5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.sampled_from([16, 160, 384, 1280]), tiny=st.sampled_from([1, 1e-3, 1e-6]))
def test_half_precision_errs_less_than_its_bound(seed, dim, tiny):
    random = np.random.default_rng(seed)
    values = random.standard_normal((200, dim))
    values[:, 1:] *= tiny  # one large value, the others where half precision loses its digits
    vectors = unit(values)
    stored = with_half(vectors)
    engine_pass = next(FaissCpu(stored, HALF_FIRST).passes(200, None))
    queries = unit(vectors - stored.half.reconstruct_n(0, 200) / faiss_vectors.SCALE + 1e-12)  # the worst there are
    true = np.vecdot(queries.astype(np.float64)[:, None], vectors.astype(np.float64)[None])
    found, rows = stored.half.search(queries / np.float32(faiss_vectors.SCALE), 200)
    assert np.abs(found - np.take_along_axis(true, rows, 1)).max() <= engine_pass.error


def with_half(vectors):
    return faiss_vectors.store(*vectors.shape, [vectors], with_half=True)


def test_the_copy_in_half_precision_is_saved_and_mapped_too(tmp_path):
    random = np.random.default_rng(4)
    vectors = unit(random.standard_normal((12_000, 96)))
    ExactIndex.of(vectors).save(tmp_path / "x.faiss")
    assert (tmp_path / "x.half.faiss").stat().st_size < (tmp_path / "x.faiss").stat().st_size * 0.51
    opened = ExactIndex.open(tmp_path / "x.faiss")
    agrees(opened, vectors, vectors[:2], 10)
    agrees(opened, vectors, vectors[:2], 10, random.random(12_000) < 0.5)
    (tmp_path / "x.half.faiss").unlink()
    with pytest.raises(StoreError, match=r"x\.half\.faiss is not a complete FAISS index"):
        ExactIndex.open(tmp_path / "x.faiss")
    ExactIndex.of(vectors[:11_000]).save(tmp_path / "fewer.faiss")
    (tmp_path / "fewer.half.faiss").rename(tmp_path / "x.half.faiss")
    with pytest.raises(StoreError, match="holds 11000 x 96 vectors, expected 12000 x 96"):
        ExactIndex.open(tmp_path / "x.faiss")


# --- engines of a GPU ---------------------------------------------------------------------------


class GpuOfPaper:
    """What FAISS promises of a flat index on a GPU: no selectors, and k up to 2048."""

    def __init__(self, flat):
        self._flat = flat

    def search(self, queries, k):
        assert k <= 2048
        return self._flat.search(queries, k)


@pytest.mark.parametrize("queries", [1, 9])
@pytest.mark.parametrize("k", [10, 3000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("engine", ["faiss-gpu", "torch-cuda"])
def test_the_paths_around_a_gpu_are_the_same(monkeypatch, engine, queries, k, masked):
    monkeypatch.setattr(exact_index, "backend", lambda: engine)
    monkeypatch.setattr(engines, "_copy_to_gpu", GpuOfPaper)
    monkeypatch.setattr("search.engines.Torch", lambda vectors, device: Torch(vectors, "cpu"))
    monkeypatch.setattr("search.engines._PRODUCT_SCORES", 20_000)  # five queries at once
    random = np.random.default_rng(13)
    vectors = unit(random.standard_normal((4000, 16)))
    vectors[100:200] = vectors[0]
    found = ExactIndex.of(vectors)
    assert found.backend() == {"faiss-gpu": FaissGpu.backend, "torch-cuda": "torch-cpu"}[engine]
    agrees(found, vectors, vectors[:queries], k, random.random(4000) < 0.8 if masked else None)


def test_torch_answers_on_a_gpu_that_faiss_cannot_use(monkeypatch):
    for faiss_gpus, torch_gpus, expected in [(1, 1, "faiss-gpu"), (0, 1, "torch-cuda"), (0, 0, "faiss-cpu")]:
        monkeypatch.setattr(faiss_vectors, "count_gpus", lambda found=faiss_gpus: found)
        monkeypatch.setattr("search.engines.count_torch_gpus", lambda found=torch_gpus: found)
        assert exact_index.backend.__wrapped__() == expected
        assert expected in get_args(CoarseLocalizationInfo.model_fields["backend"].annotation)  # or no record of it


def test_gpus_are_counted_without_torch_where_the_kernel_shows_none():
    code = (
        "import sys; from search import engines; engines._GPU_DEVICES = (); "
        "print(engines.count_torch_gpus(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["0", "False"] if sys.platform == "linux" else [done.stdout.split()[0], "True"])


def test_searching_leaves_the_callers_threads_alone():
    faiss = faiss_vectors.library()
    before = faiss.omp_get_max_threads()
    ExactIndex.of(np.eye(4, dtype=np.float32)).search(np.eye(4, dtype=np.float32)[:1], 2)
    assert faiss.omp_get_max_threads() == before


def test_an_empty_index_answers_with_nothing():
    scores, rows = ExactIndex.of(np.empty((0, 8), np.float32)).search(np.eye(8, dtype=np.float32), 10)
    assert scores.shape == rows.shape == (8, 0)


def test_no_queries_have_no_answers():
    scores, rows = ExactIndex.of(np.eye(8, dtype=np.float32)).search(np.empty((0, 8), np.float32), 3)
    assert scores.shape == rows.shape == (0, 3)


def test_a_saved_index_opens_mapped_and_answers_the_same(tmp_path):
    random = np.random.default_rng(11)
    vectors = unit(random.standard_normal((2000, 24)))
    ExactIndex.of(vectors).save(tmp_path / "x.faiss")
    opened = ExactIndex.open(tmp_path / "x.faiss")
    np.testing.assert_array_equal(opened.vectors, vectors)
    agrees(opened, vectors, vectors[:1], 10)
    agrees(opened, vectors, vectors[:9], 10, random.random(2000) < 0.5)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "x.faiss"
    ExactIndex.of(np.eye(8, dtype=np.float32)).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match="not a complete FAISS index"):
        ExactIndex.open(path)


def test_a_subset_is_an_index_of_its_own():
    random = np.random.default_rng(2)
    vectors = unit(random.standard_normal((100, 16)))
    rows = np.arange(3, 100, 8)
    agrees(ExactIndex.of(vectors).subset(rows), vectors[rows], vectors[:2], 5)


def test_parts_fill_an_index_as_one_piece_does():
    random = np.random.default_rng(6)
    vectors = unit(random.standard_normal((1000, 16)))
    filled = ExactIndex.from_parts(1000, 16, np.array_split(vectors, 7))
    np.testing.assert_array_equal(filled.vectors, vectors)
    agrees(filled, vectors, vectors[:9], 10)


@pytest.mark.parametrize("announced", [999, 1001])
def test_parts_that_come_to_another_number_are_refused(announced):
    vectors = np.eye(1000, 16, dtype=np.float32)
    vectors[:, 0] = 1 - vectors[:, 1:].sum(axis=1)
    with pytest.raises(StoreError, match="vectors"):
        ExactIndex.from_parts(announced, 16, np.array_split(vectors, 7))


def test_vectors_that_are_not_of_unit_norm_are_refused():
    with pytest.raises(StoreError, match="embedding 1 of 2 has norm 2, expected 1"):
        ExactIndex.from_parts(2, 2, [row[None] for row in np.diag([1.0, 2.0]).astype(np.float32)])
    with pytest.raises(StoreError, match="norm nan"):
        ExactIndex.of(np.array([[np.nan, 1.0]], np.float32))


@pytest.mark.parametrize(
    ("queries", "k", "says"),
    [
        (np.ones((1, 3)), 1, r"shape \(1, 3\), this index needs \[Q, 4\]"),
        (np.ones(4), 1, r"shape \(4,\)"),
        (np.full((1, 4), np.nan), 1, "NaN"),
        (np.ones((1, 4)), 0, "k is 0"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(queries, k, says):
    with pytest.raises(InputError, match=says):
        ExactIndex.of(np.eye(4, dtype=np.float32)).search(queries, k)


def test_a_selection_among_another_number_of_rows_is_refused():
    with pytest.raises(InputError, match=r"is of \(3,\) rows, this index has 4"):
        ExactIndex.of(np.eye(4, dtype=np.float32)).search(np.eye(4, dtype=np.float32), 1, Selection(np.ones(3, bool)))


def test_exactly_one_faiss_is_wanted(monkeypatch):
    assert faiss_vectors.distribution().startswith("faiss-")
    monkeypatch.setattr(faiss_vectors.metadata, "version", lambda name: "1.11")
    with pytest.raises(ConfigError, match=r"faiss-cpu 1\.11 and faiss-gpu 1\.11"):
        faiss_vectors.distribution()

    def absent(name):
        raise faiss_vectors.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(faiss_vectors.metadata, "version", absent)
    with pytest.raises(ConfigError, match="no FAISS is installed"):
        faiss_vectors.distribution()


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [("fma avx2", "Haswell"), ("fma avx2 avx512f avx512cd avx512bw avx512dq avx512vl", "SkylakeX"), ("sse3", None)],
)
def test_the_blas_of_faiss_is_told_what_the_processor_can_run_while_it_loads(monkeypatch, flags, kernels):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    with faiss_vectors._openblas_kernels(flags.split()):
        assert os.environ.get("OPENBLAS_CORETYPE") == kernels
    assert "OPENBLAS_CORETYPE" not in os.environ
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    with faiss_vectors._openblas_kernels(flags.split()):
        assert os.environ["OPENBLAS_CORETYPE"] == "Zen"  # the user's own


def test_the_blas_of_faiss_is_not_an_old_processors():
    if "avx2" not in faiss_vectors._processor_flags() or "OPENBLAS_CORETYPE" in os.environ:
        return  # it needs no telling, or is told by the user
    code = "from search import faiss_vectors as v; v.library(); import threadpoolctl as t; print(t.threadpool_info())"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "openblas" in loaded and "Prescott" not in loaded
