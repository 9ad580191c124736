"""A run as a report plots it: its label, its colour, and the arrays that figures are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Floats
from coarseloc.embedding import specs
from coarseloc.i18n import Translator
from coarseloc.store.runs import StoredRun
from search.answers import first_hits
from search.environment import Conditions, by_conditions
from search.evaluation.intervals import IntervalEstimate, median
from search.evaluation.report.page import threads_text, timing_text

if TYPE_CHECKING:
    from search.evaluation.evaluate import Evaluation


@dataclass(frozen=True, eq=False)
class PlottedRun:
    """One run. Times are of the frames that were answered [T], scores of the same frames [T, K] in rank order."""

    label: str
    index: int  # its colour, marker and dash
    evaluation: Evaluation
    frames: NDArray[np.int64]  # that were answered, by their index in the flight
    decode_ms: Floats
    embed_ms: Floats
    search_ms: Floats
    scores: Floats

    @property
    def total_ms(self) -> Floats:
        return self.embed_ms + self.search_ms

    @property
    def median_ms(self) -> float:
        """Of embedding plus search; nan where no frame was answered."""
        return median(self.total_ms, None).value

    @property
    def stored(self) -> StoredRun:
        return self.evaluation.run

    @property
    def batch(self) -> int | None:
        """Frames embedded at once; None where the run does not record it."""
        return self.stored.parameters.get("batch")


def plotted_runs(evaluations: Sequence[Evaluation]) -> list[PlottedRun]:
    """Runs in the order of the table of backbones, labelled by what differs among them."""
    order = {name: i for i, name in enumerate(specs.BACKBONES)}
    ordered = sorted(
        evaluations, key=lambda evaluation: (order.get(evaluation.backbone, len(order)), evaluation.run.id)
    )
    labels = _labels(ordered)
    return [_plotted_run(evaluation, labels[i], i) for i, evaluation in enumerate(ordered)]


def _plotted_run(evaluation: Evaluation, label: str, index: int) -> PlottedRun:
    answered = [result for result in evaluation.results if result.timing and result.hits]
    times = np.array([(t.decode_ms, t.embed_ms, t.search_ms) for r in answered if (t := r.timing)], float).reshape(
        -1, 3
    )
    hits_by_frame = [first_hits(evaluation.run, result) for result in answered]
    width = max(map(len, hits_by_frame), default=0)
    scores = np.full((len(answered), width), np.nan)
    for row, hits in zip(scores, hits_by_frame, strict=True):
        row[: len(hits)] = [hit.score for hit in hits]
    decode, embed, search = times.T
    frames = np.array([result.frame.index for result in answered], np.int64)
    return PlottedRun(label, index, evaluation, frames, decode, embed, search, scores)


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """The label of each evaluation, longer where several are equal."""
    labels = [evaluation.label for evaluation in evaluations]
    details: tuple[Callable[[StoredRun], str], ...] = (
        lambda run: run.reference_set.name,
        lambda run: run.flight_id,
        lambda run: run.spec.how,
        lambda run: f"run {run.id}",
    )
    for detail in details:
        if len(set(labels)) == len(labels):
            break
        if len({detail(evaluation.run) for evaluation in evaluations}) > 1:
            repeated = {label for label, count in Counter(labels).items() if count > 1}
            labels = [
                f"{label}, {detail(evaluation.run)}" if label in repeated else label
                for label, evaluation in zip(labels, evaluations, strict=True)
            ]
    return labels


# --- times that compare -------------------------------------------------------------------------


def group_by_timing(runs: Sequence[PlottedRun], translate: Translator) -> list[tuple[str, list[PlottedRun]]]:
    """Group runs whose times compare, each group with a title that tells its conditions from the others';
    the title is empty where there is a single group."""
    groups = by_conditions({run: run.stored for run in runs})
    if len(groups) == 1:
        return [("", list(runs))]
    return [(_conditions_title(conditions, list(groups), translate), group) for conditions, group in groups.items()]


def _conditions_title(conditions: Conditions, groups: Sequence[Conditions], translate: Translator) -> str:
    """The conditions that differ among the groups, as text."""
    texts = {
        "batch": timing_text(conditions.batch, translate),
        "device": conditions.device or translate("device not recorded"),
        "cpu": conditions.cpu or translate("processor not recorded"),
        "threads": threads_text(dict(conditions.threads) if conditions.threads else None, translate),
    }
    return ", ".join(text for name, text in texts.items() if len({getattr(group, name) for group in groups}) > 1)


# --- numbers ------------------------------------------------------------------------------------

FORMS = {"m": "{:,.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


def estimate_text(estimate: IntervalEstimate, unit: str, *, interval: bool = True) -> str:
    """An estimate in its unit: `83.5 [70.1, 97.0] (n_eff 41)`, without the interval where there is none."""
    if math.isnan(estimate.value):
        return "–"
    value = FORMS[unit].format(estimate.value)
    if not interval:
        return value
    ends = interval_text(estimate, unit)
    return f"{value}{ends and f' [{ends}]'} ({n_eff_text(estimate)})"


def interval_text(estimate: IntervalEstimate, unit: str) -> str:
    """`70.1, 97.0`, or nothing where there is no interval."""
    return (
        "" if math.isnan(estimate.low) else ", ".join(FORMS[unit].format(end) for end in (estimate.low, estimate.high))
    )


def n_eff_text(estimate: IntervalEstimate) -> str:
    return "n_eff –" if math.isnan(estimate.n_eff) else f"n_eff {estimate.n_eff:.0f}"


def without_nan(values: Floats) -> Floats:
    return values[~np.isnan(values)]
