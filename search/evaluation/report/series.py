"""A run as a report draws it: its name, its colour, and the arrays that figures are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core.types import Floats
from coarseloc.embedding import specs
from coarseloc.i18n import Translator
from coarseloc.store.runs import StoredRun
from search.answers import results_of
from search.environment import Conditions, by_conditions
from search.evaluation.evaluate import Evaluation
from search.evaluation.intervals import IntervalEstimate, median
from search.evaluation.report.texts import how_timed, threads_of


@dataclass(frozen=True, eq=False)
class Series:
    """One run. Times are of the frames that were answered [T], scores of the same frames [T, K] in rank order."""

    label: str
    index: int  # its colour, marker and dash
    of: Evaluation
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
    def run(self) -> StoredRun:
        return self.of.run


def series_of(evaluations: Sequence[Evaluation]) -> list[Series]:
    """In the order of the table of backbones; labels tell the runs apart by what differs among them."""
    order = {name: i for i, name in enumerate(specs.BACKBONES)}
    ranked = sorted(evaluations, key=lambda one: (order.get(one.backbone, len(order)), one.run.id))
    labels = _labels(ranked)
    return [_series(one, label, i) for i, (one, label) in enumerate(zip(ranked, labels, strict=True))]


def _series(one: Evaluation, label: str, index: int) -> Series:
    answered = [result for result in one.results if result.timing and result.hits]
    times = np.array([(t.decode_ms, t.embed_ms, t.search_ms) for r in answered if (t := r.timing)], float).reshape(
        -1, 3
    )
    hits = [results_of(one.run, result) for result in answered]
    width = max(map(len, hits), default=0)
    scores = np.full((len(answered), width), np.nan)
    for row, of_frame in zip(scores, hits, strict=True):
        row[: len(of_frame)] = [hit.score for hit in of_frame]
    decode, embed, search = times.T
    return Series(label, index, one, decode, embed, search, scores)


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    labels = [one.label for one in evaluations]
    for tell in (
        lambda one: one.run.reference_set.name,
        lambda one: one.run.flight_id,
        lambda one: f"{one.run.spec.input_px} px {one.run.spec.precision}",
        lambda one: f"run {one.run.id}",
    ):
        if len(set(labels)) == len(labels):
            break
        if len({tell(one) for one in evaluations}) > 1:
            repeated = {label for label, count in Counter(labels).items() if count > 1}
            labels = [
                f"{label}, {tell(one)}" if label in repeated else label
                for label, one in zip(labels, evaluations, strict=True)
            ]
    return labels


# --- times that compare -------------------------------------------------------------------------


def timed_alike(runs: Sequence[Series], say: Translator) -> list[tuple[str, list[Series]]]:
    """The runs in groups whose times compare, each with a title that tells its conditions apart from the others';
    the title is empty where there is one group alone."""
    groups = by_conditions({one: one.run for one in runs})
    if len(groups) == 1:
        return [("", list(runs))]
    return [(_title(here, list(groups), say), of) for here, of in groups.items()]


def _title(here: Conditions, groups: Sequence[Conditions], say: Translator) -> str:
    parts = {
        "batch": how_timed(here.batch, say),
        "device": here.device or say("device not recorded"),
        "cpu": here.cpu or say("processor not recorded"),
        "threads": threads_of(dict(here.threads) if here.threads else None, say),
    }
    told = [text for name, text in parts.items() if len({getattr(one, name) for one in groups}) > 1]
    return ", ".join(told)


# --- numbers ------------------------------------------------------------------------------------

FORMS = {"m": "{:,.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


def shown(found: IntervalEstimate, unit: str, *, interval: bool = True) -> str:
    """An estimate in its unit: `83.5 [70.1, 97.0] (n_eff 41)`, without the interval where there is none."""
    if math.isnan(found.value):
        return "–"
    value = FORMS[unit].format(found.value)
    if not interval:
        return value
    ends = ends_shown(found, unit)
    return f"{value}{ends and f' [{ends}]'} ({n_eff_shown(found)})"


def ends_shown(found: IntervalEstimate, unit: str) -> str:
    """`70.1, 97.0`, or nothing where there is no interval."""
    return "" if math.isnan(found.low) else ", ".join(FORMS[unit].format(end) for end in (found.low, found.high))


def n_eff_shown(found: IntervalEstimate) -> str:
    return "n_eff –" if math.isnan(found.n_eff) else f"n_eff {found.n_eff:.0f}"


def known(values: Floats) -> Floats:
    return values[~np.isnan(values)]
