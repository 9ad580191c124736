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
from search.evaluation.evaluated_frames import EvaluatedFrames
from search.evaluation.intervals import IntervalEstimate

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
    frames: EvaluatedFrames
    counts: Counts
    scores: Mapping[str, IntervalEstimate]
    hit_curves: Mapping[int, Mapping[int, IntervalEstimate]]  # {k: {metres: share}}
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
        flight_ids = set(flights.flight_ids(session))
        runs_by_id = {str(run.id): run for run in runs.runs(session)}
        selected: dict[int, StoredRun] = {}
        for name in names:
            if name in runs_by_id and ids.label(name) not in flight_ids:
                selected[runs_by_id[name].id] = runs_by_id[name]
                continue
            flights.find_flight(session, name)  # raises for an unknown one
            newest = runs.latest_runs(session, name, reference_set)
            if not newest:
                raise StoreError(f"flight {name!r} has no finished run: search it with `coarseloc search` first")
            selected |= {run.id: run for run in newest}
    return list(selected.values())


def evaluate(db: Database, selected: Sequence[StoredRun], method: str = BEST_PLACE) -> list[Evaluation]:
    """Hold the answers of runs by a method against the truth.

    Raises InputError where there is none, or none by this method, StoreError where a run is not finished.
    """
    if not selected:
        raise InputError("no run to evaluate: name a flight or the number of a run")
    if unfinished := [run.id for run in selected if run.finished_at is None]:
        raise StoreError(f"run {unfinished[0]} is not finished: run the same `coarseloc search` again, it goes on")
    with db.read() as session:
        answers = frame_answers(session, selected, method=method)
    return [_evaluated(run, method, answers[run.id]) for run in selected]


def evaluate_frames(answers: Sequence[FrameAnswer], k: int, stride_m: float) -> EvaluatedFrames:
    """The frames that have truth and an answer, with their first k places."""
    with_truth = [(answer, answer.errors) for answer in answers if answer.errors is not None]
    results = [answer.result for answer, _ in with_truth]
    return EvaluatedFrames(
        ranked=ranked_places([(r.frame.truth, r.estimate, first_places(r, k)) for r in results]),
        frame=np.array([r.frame.index for r in results], np.int64),
        on_map=np.array([errors.on_map for _, errors in with_truth], np.bool_),
        nearest_m=np.array([errors.nearest_m for _, errors in with_truth]),
        margin=np.array([_margin(r) for r in results]),
        agreement=np.array([answer.agreement.share if answer.agreement else math.nan for answer, _ in with_truth]),
        stride_m=stride_m,
    )


def _evaluated(run: StoredRun, method: str, answers: Sequence[FrameAnswer]) -> Evaluation:
    reference_set = run.reference_set
    stride_m = (
        math.nan if reference_set.footprint_m is None else reference_set.footprint_m * (1 - reference_set.overlap)
    )
    frames = evaluate_frames(answers, run.parameters["k"], stride_m)
    answered = [answer for answer in answers if answer.result.estimate is not None]
    without_truth = sum(answer.result.frame.truth.location is None for answer in answered)
    return Evaluation(
        run=run,
        method=method,
        answers=answers,
        frames=frames,
        counts=Counts(
            len(answers), len(answers) - len(answered), without_truth, len(frames), int((~frames.on_map).sum())
        ),
        scores={score.key: score.evaluate(frames) for score in scores.SCORES},
        hit_curves={k: scores.hit_curve(frames, k) for k in CURVE_KS},
        ceiling=scores.ceiling(frames),
        agreement_m=agreement_within_m(run),
    )


def _margin(result: FrameResult) -> float:
    estimate = result.estimate
    return math.nan if estimate is None or estimate.margin is None else estimate.margin
