"""ExactIndex against brute force: the same rows in the same order on every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.errors import ConfigError, InputError, StoreError
from search import index as module
from search.index import ExactIndex, faiss_owner


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


def agrees(index, vectors, queries, k, mask=None):
    scores, rows = index.search(queries, k, mask)
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


def test_a_single_query_cut_among_threads_is_the_same(monkeypatch):
    random = np.random.default_rng(5)
    vectors = unit(random.standard_normal((3001, 32)))
    vectors[[17, 1500, 3000]] = vectors[9]
    monkeypatch.setattr(module, "_BYTES_PER_THREAD", 1000)
    monkeypatch.setattr(module, "_threads", lambda: 3)
    module._pool.cache_clear()
    agrees(ExactIndex.of(vectors), vectors, vectors[9:10], 10)
    module._pool.cache_clear()


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
def test_the_paths_around_a_gpu_are_the_same(monkeypatch, queries, k, masked):
    monkeypatch.setattr(module, "backend", lambda: "faiss-gpu")
    monkeypatch.setattr(module, "_on_gpu", GpuOfPaper)
    random = np.random.default_rng(13)
    vectors = unit(random.standard_normal((4000, 16)))
    vectors[100:200] = vectors[0]
    index = ExactIndex.of(vectors)
    assert index.backend == "faiss-gpu"
    agrees(index, vectors, vectors[:queries], k, random.random(4000) < 0.8 if masked else None)


def test_searching_leaves_the_callers_threads_alone():
    faiss = module._faiss()
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


def test_vectors_that_are_not_of_unit_norm_are_refused():
    with pytest.raises(StoreError, match="embedding 1 of 2 has norm 2, expected 1"):
        ExactIndex.of(np.diag([1.0, 2.0]).astype(np.float32))
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


def test_a_mask_of_another_length_or_kind_is_refused():
    index = ExactIndex.of(np.eye(4, dtype=np.float32))
    for mask in (np.ones(3, bool), np.array([0, 2])):
        with pytest.raises(InputError, match=r"needs bool \(4,\)"):
            index.search(np.eye(4, dtype=np.float32), 1, mask)


def test_exactly_one_faiss_is_wanted(monkeypatch):
    assert faiss_owner().startswith("faiss-")
    monkeypatch.setattr(module.metadata, "version", lambda name: "1.11")
    with pytest.raises(ConfigError, match=r"faiss-cpu 1\.11 and faiss-gpu 1\.11"):
        faiss_owner()

    def absent(name):
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "version", absent)
    with pytest.raises(ConfigError, match="no FAISS is installed"):
        faiss_owner()
