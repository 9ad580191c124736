"""Two answers for the same flight held against each other frame by frame: which of them is right, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Floats
from search.answered_frames import AnsweredFrames, Keys
from search.evaluation.intervals import IntervalEstimate, correlation_length, median, share_difference


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """The P frames that have a row of both answers, in the flight's order."""

    rows_a: Keys  # [P], rows of the table
    rows_b: Keys  # [P]
    error_a_m: Floats  # [P]; NaN without truth or position
    error_b_m: Floats  # [P]
    apart_m: Floats  # [P], between the two positions; NaN where either has none

    @property
    def change_m(self) -> Floats:
        """Of each frame by how much B's error is larger than A's, [P]."""
        return self.error_b_m - self.error_a_m

    def outcomes(self, within_m: float) -> Floats:
        """Of each frame 1 where only B is right, -1 where only A is, 0 where both are or neither, [P]; NaN without
        truth. Right: within that many metres; an answer without a position is not."""
        comparable = ~(np.isnan(self.error_a_m) & np.isnan(self.error_b_m))
        right_a, right_b = self.error_a_m <= within_m, self.error_b_m <= within_m
        return np.where(comparable, right_b.astype(np.float64) - right_a, np.nan)


@dataclass(frozen=True, slots=True)
class PairedSummary:
    """Frames by which answer is right, and the paired differences with their intervals (95 %)."""

    both: int
    only_a: int
    only_b: int
    neither: int
    gain: IntervalEstimate  # B's share of right frames less A's
    change_m: IntervalEstimate  # median of B's error less A's, of frames that both have placed


def pair_answers(table: AnsweredFrames, localization_a: int, localization_b: int) -> PairedAnswers:
    """Pair two answers' rows by frame; frames with one answer only are left out."""
    of_a = np.flatnonzero(table.localization == localization_a)
    of_b = np.flatnonzero(table.localization == localization_b)
    _frames, at_a, at_b = np.intersect1d(table.frame[of_a], table.frame[of_b], return_indices=True)
    order = np.argsort(at_a)
    rows_a, rows_b = of_a[at_a[order]], of_b[at_b[order]]
    errors = table.numbers["error"]
    apart_m = geo.ellipsoid_distance_m(table.lon[rows_a], table.lat[rows_a], table.lon[rows_b], table.lat[rows_b])
    return PairedAnswers(rows_a, rows_b, errors[rows_a], errors[rows_b], apart_m)


def summarize_pairs(pairs: PairedAnswers, within_m: float) -> PairedSummary:
    """Count and compare. The frames of a flight are worth fewer independent ones: see `intervals`."""
    outcomes, change_m = pairs.outcomes(within_m), pairs.change_m
    comparable = ~np.isnan(outcomes)
    right_a = pairs.error_a_m[comparable] <= within_m
    tied = outcomes[comparable] == 0
    present = change_m[~np.isnan(change_m)]
    return PairedSummary(
        both=int((tied & right_a).sum()),
        only_a=int((outcomes == -1).sum()),
        only_b=int((outcomes == 1).sum()),
        neither=int((tied & ~right_a).sum()),
        gain=share_difference(outcomes[comparable], correlation_length(outcomes[comparable])),
        change_m=median(present, correlation_length(present)),
    )
