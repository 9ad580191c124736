"""What no other run beats in both speed and accuracy, on cases worked out by hand."""

from __future__ import annotations

import math

from search.evaluation.pareto import RunCost, pareto_front


def test_a_run_that_another_beats_in_both_is_off_the_front() -> None:
    costs = {
        "quick": RunCost(10, 90),
        "slower and further": RunCost(20, 95),
        "near": RunCost(50, 20),
        "as near": RunCost(60, 20),
    }
    assert pareto_front(costs) == {"quick", "near"}


def test_equal_runs_do_not_beat_each_other() -> None:
    assert pareto_front({"first": RunCost(10, 90), "again": RunCost(10, 90)}) == {"first", "again"}


def test_a_batchs_time_beats_no_single_frames() -> None:
    costs = {"single": RunCost(54, 90, 1), "in batches": RunCost(20, 80, 8), "in batches, worse": RunCost(21, 85, 8)}
    assert pareto_front(costs) == {"single", "in batches"}
    assert pareto_front({key: cost._replace(conditions=None) for key, cost in costs.items()}) == {"in batches"}


def test_a_run_without_a_time_or_an_error_is_on_no_front() -> None:
    assert pareto_front(
        {"no error": RunCost(1, math.nan), "no time": RunCost(math.nan, 1), "known": RunCost(9, 9)}
    ) == {"known"}
