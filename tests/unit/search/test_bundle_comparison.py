"""One frame's answer held against a bundle's: what is equal, what is close, and where it differs first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from coarseloc.core.errors import InputError
from search.bundle.comparison import Tolerance, compare_frame, worst

Line = dict[str, Any]


def hit(rank: int, score: float, tile_index: int, angle_deg: int = 0) -> Line:
    return {
        "rank": rank, "score": score, "set": 1, "tile_index": tile_index, "angle_deg": angle_deg,
        "place_id": f"place {tile_index}", "content_sha256": f"{tile_index:064x}",
    }  # fmt: skip


def place(lat: float) -> Line:
    return {"lon": 127.03, "lat": lat}


def line() -> Line:
    location = place(37.5)
    pose = {"ground": location, "aircraft": None, "heading_deg": 10.0, "score": 0.7}
    return {
        "frame_index": 7,
        "error": None,
        "timing_ms": {"decode": 1.0, "embed": 2.0, "search": 3.0},
        "hits": [hit(1, 0.9, 4), hit(2, 0.8, 5), hit(3, 0.79995, 6)],
        "best_place": {"location": location, "heading_deg": 0.0, "score": 0.9, "margin": 0.1},
        "fix": {"match": True, "reason": None, "pose": pose, "conditions": {"verify_ms": 5.0, "map_gsd_m": 1.0}},
    }


def changed(change: Callable[[Line], Any]) -> Line:
    copied = copy.deepcopy(line())
    change(copied)
    return copied


def test_times_and_names_of_a_data_folder_are_not_compared():
    here = changed(lambda line: line.update(timing_ms=None))
    here["fix"]["conditions"] |= {"verify_ms": 99.0, "map_name": "another"}
    assert compare_frame(line(), here, Tolerance()).verdict == "equal"


@pytest.mark.parametrize(
    ("change", "verdict", "part", "rank"),
    [
        (lambda line: line["hits"][1].update(score=0.80005), "within-tolerance", "score", 2),
        (lambda line: line["hits"][1].update(score=0.81), "different", "score", 2),
        (lambda line: line["hits"].__setitem__(0, hit(1, 0.9, 9)), "different", "tile", 1),
        (lambda line: line["hits"][2].update(angle_deg=45), "within-tolerance", "tile", 3),
        (lambda line: line["hits"][2].update(content_sha256="f" * 64), "different", "digest", 3),
        (lambda line: line["hits"].pop(), "different", "hits", None),
        (lambda line: line["best_place"].update(location=place(37.501)), "different", "best-place", None),
        (lambda line: line["best_place"].update(margin=0.1001), "within-tolerance", "field", None),
        (lambda line: line["best_place"].update(heading_deg=180.0), "different", "heading", None),
        (lambda line: line.update(best_place=None), "different", "best-place", None),
        (lambda line: line["fix"]["pose"].update(ground=place(37.500001)), "within-tolerance", "fix", None),
        (lambda line: line["fix"]["pose"].update(ground=place(37.5001)), "different", "fix", None),
        (lambda line: line["fix"]["pose"].update(heading_deg=190.0), "different", "heading", None),
        (lambda line: line["fix"].update(match=False, reason="ambiguous", pose=None), "different", "fix", None),
        (lambda line: line.update(fix=None), "different", "fix", None),
        (lambda line: line.update(error="no match: dark", hits=[], best_place=None), "different", "error", None),
    ],
)  # fmt: skip
def test_a_change_is_close_or_named_by_its_part_and_rank(change, verdict, part, rank):
    comparison = compare_frame(line(), changed(change), Tolerance())
    assert comparison.verdict == verdict
    first = comparison.difference if verdict == "different" else comparison.deviation
    assert first is not None and (first.frame_index, first.part, first.rank) == (7, part, rank)


def test_hits_of_equal_scores_may_change_places():
    def swap(line: Line) -> None:
        line["hits"][1:] = [hit(2, 0.8, 6), hit(3, 0.79995, 5)]

    comparison = compare_frame(line(), changed(swap), Tolerance())
    assert comparison.verdict == "within-tolerance" and comparison.deviation.part == "tile"
    strict = compare_frame(line(), changed(swap), Tolerance(score=1e-6))
    assert strict.verdict == "different" and "rank 2: tile is tile 6 at 000 of set 1" in str(strict.difference)


def test_how_far_scores_and_positions_are_off_is_measured():
    def move(line: Line) -> None:
        line["hits"][0]["score"] = 0.89999
        line["fix"]["pose"]["ground"] = place(37.500004)

    comparison = compare_frame(line(), changed(move), Tolerance())
    assert comparison.score_off == pytest.approx(1e-5) and comparison.metres_off == pytest.approx(0.445, abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.update(hits=3),
        lambda line: line["hits"].__setitem__(0, {"rank": 1}),
        lambda line: line.update(fix={"match": "perhaps"}),
    ],
)
def test_a_line_of_another_shape_is_refused(change):
    with pytest.raises(InputError, match="a line of the bundle cannot be used"):
        compare_frame(changed(change), line(), Tolerance())


def test_the_verdict_is_the_worst_one():
    assert worst(["equal", "within-tolerance", "equal"]) == "within-tolerance"
    assert worst(["equal", "not-run", "different"]) == "different"
    assert worst(["equal", "not-run"]) == worst([]) == "not-run"
