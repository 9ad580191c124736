"""Evaluation of recorded runs: answers against the truth, every score with its interval, as JSON, CSV and curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coarseloc.core import ids
from coarseloc.core.errors import InputError, StoreError
from coarseloc.localize.places import ranked_places
from coarseloc.store import Database, flights, runs, studies
from coarseloc.store.localizations import BEST_PLACE
from coarseloc.store.runs import FrameResult, StoredRun
from coarseloc.store.studies import CurvePoint
from search.answers import FrameAnswer, agreement_within_m, first_places, frame_answers
from search.evaluation import scores
from search.evaluation.evaluated_frames import EvaluatedFrames
from search.evaluation.intervals import LEVEL, MIN_N_EFF, RESAMPLES, IntervalEstimate
from search.export.infos import errors_info, estimate_info

CURVE_KS = (1, 5, 10)  # of the hit curves
_INTERVAL_METHOD = "of n_eff independent frames: Wilson for shares, Woodruff for quantiles, bootstrap for the rest"


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Number of frames of a run by their state: `judged` of `frames` have an answer and a truth."""

    frames: int
    failed: int  # could not be read or searched
    without_truth: int
    judged: int
    off_map: int  # of the judged, those that no reference shows: for rejection only


@dataclass(frozen=True)
class Evaluation:
    """A run with its scores."""

    run: StoredRun
    method: str
    answers: Sequence[FrameAnswer]
    frames: EvaluatedFrames
    counts: FrameCounts
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

    def to_json(self) -> dict[str, Any]:
        """Every score with its unit, direction, interval, n and n_eff."""
        spec = self.run.spec
        return {
            "run": self.run.id,
            "flight_id": self.run.flight_id,
            "reference_set": self.run.reference_set.name,
            "backbone": spec.backbone,
            "method": self.method,
            "angle_deg": self.run.parameters.get("angle_deg"),
            "spec_digest": spec.digest,
            "counts": asdict(self.counts),
            "stride_m": _number(self.frames.stride_m),
            "agreement_within_m": self.agreement_m,
            "interval": {
                "level": LEVEL,
                "resamples": RESAMPLES,
                "method": _INTERVAL_METHOD,
                "least_n_eff": MIN_N_EFF,  # low and high are null below it
            },
            "constants": {
                "iou_bound": scores.IOU_BOUND,
                "sdm_scale_per_degree": scores.SDM_SCALE,
                "pdm_steepness": scores.PDM_STEEPNESS,
                "pdm_tolerance": scores.PDM_TOLERANCE,
            },
            "scores": {
                score.key: {
                    "title": score.title,
                    "unit": score.unit,
                    "better": score.better,
                    **_estimate_json(self.scores[score.key]),
                }
                for score in scores.SCORES
            },
            "hit_curves": {
                str(k): {str(metres): _estimate_json(share) for metres, share in curve.items()}
                for k, curve in self.hit_curves.items()
            },
            "ceiling": {str(metres): _number(share) for metres, share in self.ceiling.items()},
        }

    def frames_to_json(self) -> list[dict[str, Any]]:
        """Each frame with its answer and errors as its exported record holds them, or why it has none."""
        rows = []
        for answer in self.answers:
            estimate, errors = estimate_info(answer, self.method), errors_info(self.run, answer)
            rows.append(
                {
                    "frame_index": answer.result.frame.index,
                    "filename": answer.result.frame.filename,
                    "estimate": estimate and estimate.model_dump(mode="json"),
                    "errors": errors and errors.model_dump(mode="json"),
                    "error": answer.result.error,
                }
            )
        return rows


# --- evaluating ---------------------------------------------------------------------------------


def find_runs(db: Database, names: Sequence[str], reference_set: str | None = None) -> list[StoredRun]:
    """Find runs by number, or a flight's newest finished ones by its id. Raises StoreError with the known names."""
    with db.read() as session:
        flight_ids = set(flights.flight_ids(session))
        runs_by_id = {str(run.id): run for run in runs.runs(session)}
        selected: dict[int, StoredRun] = {}
        for name in names:
            if name in runs_by_id and ids.label(name) not in flight_ids:
                selected[runs_by_id[name].id] = runs_by_id[name]
                continue
            flights.find_flight(session, name)  # raises StoreError for an unknown flight
            newest = runs.latest_runs(session, name, reference_set)
            if not newest:
                raise StoreError(f"flight {name!r} has no finished run: search it with `coarseloc search` first")
            selected |= {run.id: run for run in newest}
    return list(selected.values())


def evaluate(db: Database, selected: Sequence[StoredRun], method: str = BEST_PLACE) -> list[Evaluation]:
    """Compare the answers of runs by a method with the truth.

    Raises InputError where there is no run, or no answer by this method, StoreError where a run is not finished.
    """
    if not selected:
        raise InputError("no run to evaluate: name a flight or the number of a run")
    if unfinished := [run.id for run in selected if run.finished_at is None]:
        raise StoreError(f"run {unfinished[0]} is not finished: run the same `coarseloc search` again, it goes on")
    with db.read() as session:
        answers = frame_answers(session, selected, method=method)
    return [_evaluate_run(run, method, answers[run.id]) for run in selected]


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


def _evaluate_run(run: StoredRun, method: str, answers: Sequence[FrameAnswer]) -> Evaluation:
    grid = run.reference_set
    stride_m = math.nan if grid.footprint_m is None else grid.footprint_m * (1 - grid.overlap)
    frames = evaluate_frames(answers, run.parameters["k"], stride_m)
    answered = [answer for answer in answers if answer.result.estimate is not None]
    return Evaluation(
        run=run,
        method=method,
        answers=answers,
        frames=frames,
        counts=FrameCounts(
            frames=len(answers),
            failed=len(answers) - len(answered),
            without_truth=sum(answer.result.frame.truth.location is None for answer in answered),
            judged=len(frames),
            off_map=int((~frames.on_map).sum()),
        ),
        scores={score.key: score.evaluate(frames) for score in scores.SCORES},
        hit_curves={k: scores.hit_curve(frames, k) for k in CURVE_KS},
        ceiling=scores.ceiling(frames),
        agreement_m=agreement_within_m(run),
    )


def _margin(result: FrameResult) -> float:
    estimate = result.estimate
    return math.nan if estimate is None or estimate.margin is None else estimate.margin


# --- CSV and curves -----------------------------------------------------------------------------


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """One row per run and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["flight", "reference_set", "run", "backbone", "score", "unit", "better", "value", "low", "high", "n", "n_eff"]
    )
    for evaluation in evaluations:
        run = evaluation.run
        for score in scores.SCORES:
            estimate = evaluation.scores[score.key]
            value, low, high, n_eff = (
                "" if math.isnan(number) else repr(number)
                for number in (estimate.value, estimate.low, estimate.high, estimate.n_eff)
            )
            run_cells = (run.flight_id, run.reference_set.name, run.id, evaluation.label)
            score_cells = (score.key, score.unit, score.better)
            writer.writerow([*run_cells, *score_cells, value, low, high, estimate.n, n_eff])
    return text.getvalue()


def save_evaluations(db: Database, evaluations: Sequence[Evaluation]) -> None:
    """Store evaluations as studies: curve = the score's key at x = 0, `hit@k` and `ceiling` over metres."""
    run_ids = sorted(evaluation.run.id for evaluation in evaluations)
    for evaluation in evaluations:
        backbone = evaluation.backbone
        points = [_curve_point(backbone, key, 0.0, estimate) for key, estimate in evaluation.scores.items()]
        for k, curve in evaluation.hit_curves.items():
            points += [_curve_point(backbone, f"hit@{k}", float(metres), share) for metres, share in curve.items()]
        points += [
            CurvePoint(backbone, "ceiling", float(metres), share, None, None, len(evaluation.frames))
            for metres, share in evaluation.ceiling.items()
        ]
        parameters = {"run": evaluation.run.id, "method": evaluation.method, "beside": run_ids}
        with db.write() as session:
            stored = studies.start_study(session, "evaluation", parameters, {}, evaluation.run.id)
            studies.finish_study(session, stored.id, points, evaluation.to_json())


def _curve_point(backbone: str, curve: str, x: float, estimate: IntervalEstimate) -> CurvePoint:
    return CurvePoint(backbone, curve, x, estimate.value, estimate.low, estimate.high, estimate.n)


def _estimate_json(estimate: IntervalEstimate) -> dict[str, Any]:
    return {
        "value": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "n": estimate.n,
        "n_eff": _number(estimate.n_eff),
    }


def _number(value: float) -> float | None:
    """None in place of nan, which JSON lacks."""
    return None if math.isnan(value) else float(value)
