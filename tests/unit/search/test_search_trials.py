"""The trial of ways of exact search: made once for a machine, size and number of queries, and kept."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest

from coarseloc.core.config import load
from search import faiss_vectors, trials
from search.exact_index import ExactIndex
from search.export.records import CoarseLocalizationInfo
from search.faiss_cpu import PLAIN_WAY, CpuWay, cpu_ways
from search.speed import unit_vectors
from search.trials import FILE, SearchTrials, read_trials, trials_here


@pytest.fixture
def tried(monkeypatch):
    """(rows, queries) of each trial."""
    calls = []
    try_ways = trials._try_ways

    def watched(stored, queries, k, libraries):
        calls.append((stored.flat.ntotal, queries))
        return try_ways(stored, queries, k, libraries)

    monkeypatch.setattr(trials, "_try_ways", watched)
    monkeypatch.setattr(trials.os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    return calls


def stored_vectors(count=700, dim=16):
    return faiss_vectors.store(count, dim, [unit_vectors(count, dim)])


def test_a_trial_is_made_once_for_a_size_and_a_number_of_queries_and_kept(tmp_path, tried):
    file, stored = tmp_path / FILE, stored_vectors()
    here = SearchTrials(file)
    ways = [here.way(stored, queries, 10) for queries in (1, 1, 5, 8, 64, 500)]
    assert tried == [(700, 1), (700, 8), (700, 64)]
    assert ways[0] == ways[1] and ways[2] == ways[3] and ways[4] == ways[5]
    assert SearchTrials(file).way(stored_vectors(720), 1, 10) == ways[0]  # another process, and a few more vectors
    assert len(tried) == 3
    SearchTrials(file).way(stored_vectors(1400), 1, 10)
    assert tried[3:] == [(1400, 1)]
    kept = [(trial.count, trial.queries) for trial in trials_here(tmp_path)]
    assert kept == [(700, 1), (700, 8), (700, 64), (1400, 1)]


def test_the_fastest_way_wins(monkeypatch, tried):
    seconds = iter([*[3.0, 2.9, 2.8], *[3.0, 1.0, 2.0] * trials._ROUNDS])
    monkeypatch.setattr(trials, "cpu_ways", lambda *_: WAYS)
    monkeypatch.setattr(trials, "_seconds", lambda call: next(seconds))
    assert SearchTrials().way(stored_vectors(), 1, 10) == WAYS[1]


WAYS = [CpuWay("faiss", "scan", "fp32", threads) for threads in (0, 1, 2)]


@pytest.mark.parametrize(("engine", "libraries"), [("faiss", {"faiss"}), ("auto", {"faiss", "numpy", "torch"})])
def test_a_trial_is_of_the_libraries_that_the_engine_admits(tmp_path, tried, engine, libraries):
    SearchTrials(tmp_path / FILE, engine).way(stored_vectors(), 1, 10)
    (trial,) = trials_here(tmp_path)
    assert {way.split()[0] for way in trial.ms} == libraries


def test_what_a_busy_machine_says_is_not_kept(tmp_path, tried, monkeypatch):
    monkeypatch.setattr(trials.os, "getloadavg", lambda: (99.0, 9.0, 9.0))
    SearchTrials(tmp_path / FILE).way(stored_vectors(), 1, 10)
    assert not (tmp_path / FILE).exists()


def test_another_machine_makes_its_own_trial_beside(tmp_path, tried, monkeypatch):
    file = tmp_path / FILE
    SearchTrials(file).way(stored_vectors(), 1, 10)
    monkeypatch.setattr(trials, "_machine", lambda: "another")
    SearchTrials(file).way(stored_vectors(), 1, 10)
    assert len(tried) == 2 and len(read_trials(file)) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"x": {"y": {"way": {}}}}', "\x00"])
def test_a_damaged_file_of_trials_is_made_anew(tmp_path, tried, content):
    file = tmp_path / FILE
    file.write_text(content, encoding="utf-8")
    SearchTrials(file).way(stored_vectors(), 1, 10)
    assert len(tried) == 1 and len(json.loads(file.read_text(encoding="utf-8"))) == 1


def test_a_way_that_is_no_longer_there_is_tried_anew(tmp_path, tried):
    file, stored = tmp_path / FILE, stored_vectors()
    SearchTrials(file).way(stored, 1, 10)
    file.write_text(file.read_text(encoding="utf-8").replace('"scan"', '"leap"'), encoding="utf-8")
    assert SearchTrials(file).way(stored, 1, 10) in cpu_ways(1, False, ("faiss",))
    assert len(tried) == 2


def test_few_vectors_need_no_trial(tried):
    assert SearchTrials().way(stored_vectors(512), 1, 10) == PLAIN_WAY
    assert not tried


def test_the_size_of_the_processors_cache_is_the_kernels(monkeypatch, tmp_path):
    for number, size in enumerate(("48K", "2048K", "266240K", "what?")):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size + "\n")
    for folder, size in ((tmp_path, 260 * 2**20), (tmp_path / "none", 0)):
        monkeypatch.setattr(trials, "_CPU_CACHE", folder)
        assert trials.cache_bytes.__wrapped__() == size


def test_more_vectors_than_the_cache_holds_are_tried_where_there_are_as_many(monkeypatch):
    monkeypatch.setattr(trials, "_SAMPLE_BYTES", 2000 * 16 * 4)
    for cached, rows in ((0, 2000), (1500, 3000), (9000, 4000)):
        monkeypatch.setattr(trials, "cache_bytes", lambda cached=cached: cached * 16 * 4)
        monkeypatch.setattr(trials, "_MOST_SAMPLE_BYTES", 4000 * 16 * 4)
        assert trials._sample(stored_vectors(5000), 1).flat.ntotal == rows


def test_many_vectors_are_tried_on_a_part(monkeypatch):
    monkeypatch.setattr(trials, "_SAMPLE_BYTES", 2000 * 16 * 4)
    monkeypatch.setattr(trials, "cache_bytes", lambda: 0)
    stored = stored_vectors(5000)
    sample = trials._sample(stored, 1)
    np.testing.assert_array_equal(sample.vectors, stored.vectors[:2000])
    assert trials._sample(stored_vectors(2000), 1).flat.ntotal == 2000


@pytest.mark.parametrize(("library", "name"), [("numpy", "numpy"), ("torch", "torch-cpu"), ("faiss", "faiss-cpu")])
def test_whoever_wins_where_all_are_admitted_is_named_as_what_it_is(monkeypatch, library, name):
    won = {"auto": CpuWay(library, "product", "fp32", 0), "faiss": PLAIN_WAY}
    monkeypatch.setattr(SearchTrials, "way", lambda self, stored, queries, k: won[self.engine])
    vectors = unit_vectors(700, 16)
    plain = ExactIndex.of(vectors)
    index = plain.admitting("auto")
    assert (plain.backend(), index.backend()) == ("faiss-cpu", name)
    assert index.backend(selected=True) == "faiss-cpu"  # the rows of a filter
    assert name in get_args(CoarseLocalizationInfo.model_fields["backend"].annotation)
    for found, want in zip(index.search(vectors[:3], 5), plain.search(vectors[:3], 5), strict=True):
        np.testing.assert_array_equal(found, want)


def test_the_engine_of_searches_is_a_setting(monkeypatch, tmp_path):
    assert load(tmp_path).search_engine == "faiss"
    monkeypatch.setenv("COARSELOC_SEARCH_ENGINE", "auto")
    assert load(tmp_path).search_engine == "auto"
