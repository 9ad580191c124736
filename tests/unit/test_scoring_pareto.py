"""What no other run beats in both speed and accuracy, on cases worked out by hand."""

from __future__ import annotations

import math

from search.evaluation.pareto import Cost, unbeaten


def test_a_run_that_another_beats_in_both_is_off_the_front() -> None:
    costs = {"quick": Cost(10, 90), "slower and further": Cost(20, 95), "near": Cost(50, 20), "as near": Cost(60, 20)}
    assert unbeaten(costs) == {"quick", "near"}


def test_equal_runs_do_not_beat_each_other() -> None:
    assert unbeaten({"first": Cost(10, 90), "again": Cost(10, 90)}) == {"first", "again"}


def test_a_batchs_time_beats_no_single_frames() -> None:
    costs = {"single": Cost(54, 90, 1), "in batches": Cost(20, 80, 8), "in batches, worse": Cost(21, 85, 8)}
    assert unbeaten(costs) == {"single", "in batches"}
    assert unbeaten({key: cost._replace(conditions=None) for key, cost in costs.items()}) == {"in batches"}


def test_a_run_without_a_time_or_an_error_is_on_no_front() -> None:
    assert unbeaten({"no error": Cost(1, math.nan), "no time": Cost(math.nan, 1), "known": Cost(9, 9)}) == {"known"}
