"""From recorded runs to scores: hits merged by place, held against the truth, each figure with its interval and n."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core import ids
from coarseloc.core.errors import InputError, StoreError
from coarseloc.localize.places import ranked_places
from coarseloc.store import Database, flights, runs
from coarseloc.store.runs import BEST_PLACE, FrameResult, StoredRun
from search.answers import FrameAnswer, agreement_within_m, first_places, frame_answers
from search.evaluation import scores
from search.evaluation.intervals import Estimate
from search.evaluation.judged import Judged

CURVE_KS = (1, 5, 10)  # of the hit curves


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a run's frames: of `frames`, those left after the rest are judged."""

    frames: int
    failed: int  # could not be read or searched
    without_truth: int
    judged: int
    off_map: int  # judged, but no reference shows where they were: for rejection only


@dataclass(frozen=True)
class Evaluation:
    """A run with its scores."""

    run: StoredRun
    method: str
    answers: Sequence[FrameAnswer]
    judged: Judged
    counts: Counts
    scores: Mapping[str, Estimate]
    hit_curves: Mapping[int, Mapping[int, Estimate]]  # {k: {metres: share}}
    ceiling: Mapping[int, float]  # {metres: share that the grid allows}
    agreement_m: float

    @property
    def results(self) -> list[FrameResult]:
        return [answer.result for answer in self.answers]

    @property
    def backbone(self) -> str:
        return self.run.spec.backbone

    @property
    def label(self) -> str:
        """The backbone, and the heading where the run searched only one."""
        angle = self.run.parameters.get("angle_deg")
        return self.backbone if angle is None else f"{self.backbone} at {angle:03d}°"


def find_runs(db: Database, names: Sequence[str], reference_set: str | None = None) -> list[StoredRun]:
    """Runs by number, or a flight's newest finished ones by its id. Raises StoreError saying what there is."""
    with db.read() as session:
        known = set(flights.flight_ids(session))
        every = {str(run.id): run for run in runs.runs(session)}
        chosen: dict[int, StoredRun] = {}
        for name in names:
            if name in every and ids.label(name) not in known:
                chosen[every[name].id] = every[name]
                continue
            flights.find_flight(session, name)  # raises for an unknown one
            newest = runs.latest_runs(session, name, reference_set)
            if not newest:
                raise StoreError(f"flight {name!r} has no finished run: search it with `coarseloc search` first")
            chosen |= {run.id: run for run in newest}
    return list(chosen.values())


def evaluate(db: Database, chosen: Sequence[StoredRun], method: str = BEST_PLACE) -> list[Evaluation]:
    """Hold the answers of runs by a method against the truth.

    Raises InputError where there is none, or none by this method, StoreError where a run is not finished.
    """
    if not chosen:
        raise InputError("no run to evaluate: name a flight or the number of a run")
    if unfinished := [run.id for run in chosen if run.finished_at is None]:
        raise StoreError(f"run {unfinished[0]} is not finished: run the same `coarseloc search` again, it goes on")
    with db.read() as session:
        answers = frame_answers(session, chosen, method=method)
    return [_evaluated(run, method, answers[run.id]) for run in chosen]


def judge(answers: Sequence[FrameAnswer], k: int, stride_m: float) -> Judged:
    """The frames that have truth and an answer, with their first k places."""
    known = [(answer, answer.errors) for answer in answers if answer.errors is not None]
    results = [answer.result for answer, _ in known]
    return Judged(
        ranked=ranked_places([(r.frame.truth, r.estimate, first_places(r, k)) for r in results]),
        frame=np.array([r.frame.index for r in results], np.int64),
        on_map=np.array([errors.on_map for _, errors in known], np.bool_),
        nearest_m=np.array([errors.nearest_m for _, errors in known]),
        margin=np.array([_margin(r) for r in results]),
        agreement=np.array([a.agreement.share if a.agreement else math.nan for a, _ in known]),
        stride_m=stride_m,
    )


def _evaluated(run: StoredRun, method: str, answers: Sequence[FrameAnswer]) -> Evaluation:
    facts = run.reference_set
    stride_m = math.nan if facts.footprint_m is None else facts.footprint_m * (1 - facts.overlap)
    judged = judge(answers, run.parameters["k"], stride_m)
    answered = [answer for answer in answers if answer.result.estimate is not None]
    without = sum(answer.result.frame.truth.location is None for answer in answered)
    return Evaluation(
        run=run,
        method=method,
        answers=answers,
        judged=judged,
        counts=Counts(len(answers), len(answers) - len(answered), without, len(judged), int((~judged.on_map).sum())),
        scores={score.key: score.of(judged) for score in scores.SCORES},
        hit_curves={k: scores.hit_curve(judged, k) for k in CURVE_KS},
        ceiling=scores.ceiling(judged),
        agreement_m=agreement_within_m(run),
    )


def _margin(result: FrameResult) -> float:
    estimate = result.estimate
    return math.nan if estimate is None or estimate.margin is None else estimate.margin
