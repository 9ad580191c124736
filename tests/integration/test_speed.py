"""`coarseloc bench`: the users' own table, on a small true DINOv3."""

from __future__ import annotations

import numpy as np
import pytest

from search.speed import RandomTiles


def test_the_table_has_a_row_for_each_backbone_and_input_size(coarseloc, flight):
    answer = coarseloc("bench", "--backbone", "tiny", "--input-px", "32", "--input-px", "48", "--images", flight,
                       "--references", "500", "--batch", "3", "--json").json  # fmt: skip
    assert [(row["backbone"], row["input_px"]) for row in answer["rows"]] == [("tiny", 32), ("tiny", 48)]
    for row in answer["rows"]:
        assert row["total_ms"] >= max(row["embed_ms"], row["search_ms"]) > 0
        assert row["decode_ms"] > 0 and row["images_per_s"] > 0 and row["memory_mib"] > 50
    assert answer["references"] == 500 and answer["machine"]["device"] == "cpu" and not answer["random_weights"]


def test_the_six_are_measured_without_their_weights(coarseloc):
    shown = coarseloc("bench", "--backbone", "vits16", "--random-weights", "--input-px", "32", "--frames", "1")
    assert shown.code == 0 and "vits16" in shown.out and "random weights" in shown.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--backbone", "tiny", "--input-px", "50"), "multiple of the patch"),
        (("--backbone", "nosuch"), "nosuch"),
        (("--backbone", "vitb16"), "--random-weights"),
        (("--backbone", "tiny", "--device", "cuda:7"), "cuda:7"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(coarseloc, options, says):
    refused = coarseloc("bench", *options)
    assert refused.code == 2 and says in refused.err


def test_a_folder_without_images_is_refused(coarseloc, tmp_path):
    refused = coarseloc("bench", "--backbone", "tiny", "--images", tmp_path)
    assert refused.code == 2 and str(tmp_path) in refused.err


def test_random_tiles_are_searched_exactly():
    tiles = RandomTiles.of_size(300, 16)
    query = tiles.index.vectors[7:8]
    scores, rows = tiles.search(query, 3)
    assert rows[0, 0] == 7 and scores[0, 0] == pytest.approx(1.0)
    assert rows[0].tolist() == np.argsort(-(tiles.index.vectors.astype(np.float64) @ query[0]))[:3].tolist()
