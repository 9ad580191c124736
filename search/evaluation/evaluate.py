"""Evaluation of recorded runs: answers against the truth, every score with its interval, as JSON, CSV and curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coarseloc.core import ids
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.fixes import FrameFix
from coarseloc.core.types import Frame
from coarseloc.localize.places import ranked_places
from coarseloc.store import Database, flights, runs, studies
from coarseloc.store.localizations import BEST_PLACE, newest_map_localizations, newest_tracks
from coarseloc.store.runs import FrameResult, StoredRun
from coarseloc.store.studies import CurvePoint
from search.answers import FrameAnswer, agreement_within_m, first_places, fix_errors, frame_answers
from search.evaluation import scores
from search.evaluation.evaluated_frames import EvaluatedFrames
from search.evaluation.fix_evaluation import (
    NO_BACKBONE,
    FixEvaluation,
    evaluate_run_fixes,
    evaluate_whole_maps,
    is_beside,
)
from search.evaluation.fix_scores import FIX_SCORES, FixScore
from search.evaluation.intervals import LEVEL, MIN_N_EFF, RESAMPLES, BlockInterval, IntervalEstimate
from search.evaluation.score_json import estimate_json, number_json, scores_json
from search.evaluation.track_evaluation import TRACK_SCORES, TrackEvaluation, TrackScore, evaluate_tracks
from search.export.fix_infos import fix_info
from search.export.infos import errors_info, estimate_info

CURVE_KS = (1, 5, 10)  # of the hit curves
NOTHING = "no run to evaluate: name a flight or the number of a run"
_INTERVAL = {
    "level": LEVEL,
    "resamples": RESAMPLES,
    "method": "of n_eff independent frames: Wilson for shares, Woodruff for quantiles, bootstrap for the rest",
    "least_n_eff": MIN_N_EFF,  # low and high are null below it
}
_CONSTANTS = {
    "iou_bound": scores.IOU_BOUND,
    "sdm_scale_per_degree": scores.SDM_SCALE,
    "pdm_steepness": scores.PDM_STEEPNESS,
    "pdm_tolerance": scores.PDM_TOLERANCE,
}


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
    fixes: FixEvaluation | None = None  # None where the run was not verified

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
            "stride_m": number_json(self.frames.stride_m),
            "agreement_within_m": self.agreement_m,
            "interval": _INTERVAL,
            "constants": _CONSTANTS,
            "scores": scores_json(scores.SCORES, self.scores),
            "hit_curves": {
                str(k): {str(metres): estimate_json(share) for metres, share in curve.items()}
                for k, curve in self.hit_curves.items()
            },
            "ceiling": {str(metres): number_json(share) for metres, share in self.ceiling.items()},
            "fix": None if self.fixes is None else self.fixes.to_json(),
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


class Evaluations(list[Evaluation]):
    """Evaluated runs, what whole maps give for the same flights without any backbone, and the flights' tracks."""

    def __init__(
        self,
        evaluations: Iterable[Evaluation] = (),
        whole_maps: Sequence[FixEvaluation] = (),
        tracks: Sequence[TrackEvaluation] = (),
    ) -> None:
        super().__init__(evaluations)
        self.whole_maps, self.tracks = list(whole_maps), list(tracks)

    @property
    def fixes(self) -> list[FixEvaluation]:
        """Of all that have fixes, the whole maps' last."""
        return [evaluation.fixes for evaluation in self if evaluation.fixes is not None] + self.whole_maps

    def to_json(self) -> list[dict[str, Any]]:
        """Every evaluation with its frames; of a whole map there is neither run nor backbone, and fixes alone; of a
        track, `track` alone."""
        rows = [evaluation.to_json() | {"frames": evaluation.frames_to_json()} for evaluation in self]
        rows += [_whole_map_json(whole_map) for whole_map in self.whole_maps]
        return rows + [{"run": None, "backbone": None, "track": track.to_json()} for track in self.tracks]


# --- evaluating ---------------------------------------------------------------------------------


def find_runs(db: Database, names: Sequence[str], reference_set: str | None = None) -> list[StoredRun]:
    """Find runs by number, or a flight's newest finished ones by its id; none of a flight that was only looked for on
    whole maps. Raises StoreError with the known names."""
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
            answered = newest_map_localizations(session, name, reference_set) or newest_tracks(session, name)
            if not newest and not answered:
                raise StoreError(f"flight {name!r} has no finished run: search it with `coarseloc search` first")
            selected |= {run.id: run for run in newest}
    return list(selected.values())


def evaluate_named(
    db: Database, names: Sequence[str], reference_set: str | None = None, method: str = BEST_PLACE
) -> Evaluations:
    """Evaluate runs by number, or a flight's newest by its id, and the whole maps of the same reference sets.

    Raises as `find_runs` and `evaluate`.
    """
    selected = find_runs(db, names, reference_set)
    with db.read() as session:
        flight_ids = [name for name in map(ids.label, names) if name in flights.flight_ids(session)]
        whole_maps = evaluate_whole_maps(session, flight_ids, reference_set)
        beside = evaluate_whole_maps(session, (run.flight_id for run in selected if run.flight_id not in flight_ids))
        tracks = evaluate_tracks(session, [*flight_ids, *(run.flight_id for run in selected)], reference_set)
    whole_maps += [whole_map for whole_map in beside if any(is_beside(whole_map.localization, run) for run in selected)]
    if not selected and not whole_maps and not tracks:
        raise InputError(NOTHING)
    return Evaluations(evaluate(db, selected, method) if selected else (), whole_maps, tracks)


def evaluate(db: Database, selected: Sequence[StoredRun], method: str = BEST_PLACE) -> list[Evaluation]:
    """Compare the answers of runs by a method with the truth.

    Raises InputError where there is no run, or no answer by this method, StoreError where a run is not finished.
    """
    if not selected:
        raise InputError(NOTHING)
    if unfinished := [run.id for run in selected if run.finished_at is None]:
        raise StoreError(f"run {unfinished[0]} is not finished: run the same `coarseloc search` again, it goes on")
    with db.read() as session:
        answers = frame_answers(session, selected, method=method)
        fixes = {run.id: evaluate_run_fixes(session, run) for run in selected}
    return [_evaluate_run(run, method, answers[run.id], fixes[run.id]) for run in selected]


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


def _evaluate_run(
    run: StoredRun, method: str, answers: Sequence[FrameAnswer], fixes: FixEvaluation | None
) -> Evaluation:
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
        fixes=fixes,
    )


def _margin(result: FrameResult) -> float:
    estimate = result.estimate
    return math.nan if estimate is None or estimate.margin is None else estimate.margin


# --- CSV and curves -----------------------------------------------------------------------------


_CSV_COLUMNS = (
    "flight", "reference_set", "run", "backbone", "score", "unit", "better", "value", "low", "high", "n", "n_eff",
    "block_low", "block_high", "block_frames",
)  # fmt: skip


def to_csv(evaluations: Evaluations) -> str:
    """One row per run and score, those of its fixes among them; a whole map's and a track's rows have no run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for evaluation in evaluations:
        run = evaluation.run
        cells = (*_cells(run.flight_id, run.reference_set.name), run.id, evaluation.label)
        writer.writerows((*cells, *_score_cells(score, evaluation.scores[score.key])) for score in scores.SCORES)
        if evaluation.fixes:
            writer.writerows((*cells, *row) for row in _fix_score_rows(evaluation.fixes))
    for whole_map in evaluations.whole_maps:
        cells_without_run = (*_cells(whole_map.flight_id, whole_map.reference_set), "", NO_BACKBONE)
        writer.writerows((*cells_without_run, *row) for row in _fix_score_rows(whole_map))
    for track in evaluations.tracks:
        facts = (*_cells(track.localization.flight_id, track.localization.reference_set), "", track.label)
        for score in TRACK_SCORES:
            block = track.block_intervals.get(score.key)
            writer.writerow((*facts, *_score_cells(score, track.scores[score.key], block)))
    return text.getvalue()


def _cells(*names: str | None) -> tuple[Any, ...]:
    return tuple(ids.spreadsheet_cell(name) for name in names)


def _fix_score_rows(fixes: FixEvaluation) -> list[tuple[object, ...]]:
    return [_score_cells(score, fixes.scores[score.key]) for score in FIX_SCORES]


def _score_cells(
    score: scores.Score | FixScore | TrackScore, estimate: IntervalEstimate, block: BlockInterval | None = None
) -> tuple[object, ...]:
    value, low, high, n_eff = map(_number_cell, (estimate.value, estimate.low, estimate.high, estimate.n_eff))
    block_cells = ("", "", "") if block is None else (_number_cell(block.low), _number_cell(block.high), block.block)
    return score.key, score.unit, score.better, value, low, high, estimate.n, n_eff, *block_cells


def _number_cell(number: float) -> str:
    return "" if math.isnan(number) else repr(number)


def save_evaluations(db: Database, evaluations: Sequence[Evaluation], whole_maps: Sequence[FixEvaluation] = ()) -> None:
    """Store evaluations as studies: curve = the score's key at x = 0, `hit@k` and `ceiling` over metres; of fixes also
    `fix_ground_cdf` and `fix_aircraft_cdf` over metres, `fix_reliability` over the stated probability, `fix_precision`
    and `fix_recall` over its threshold."""
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
        if evaluation.fixes:
            points += _fix_points(backbone, evaluation.fixes)
        parameters = {"run": evaluation.run.id, "method": evaluation.method, "beside": run_ids}
        _save(db, parameters, points, evaluation.to_json(), evaluation.run.id)
    for whole_map in whole_maps:
        parameters = {"localization": whole_map.localization.id, "method": whole_map.method, "beside": run_ids}
        _save(db, parameters, _fix_points(NO_BACKBONE, whole_map), whole_map.to_json(), None)


def _save(
    db: Database, parameters: Mapping[str, Any], points: list[CurvePoint], findings: dict[str, Any], run_id: int | None
) -> None:
    with db.write() as session:
        stored = studies.start_study(session, "evaluation", parameters, {}, run_id)
        studies.finish_study(session, stored.id, points, findings)


def _fix_points(backbone: str, fixes: FixEvaluation) -> list[CurvePoint]:
    points = [_curve_point(backbone, key, 0.0, estimate) for key, estimate in fixes.scores.items()]
    for point, curve in fixes.distributions.items():
        points += [_curve_point(backbone, f"fix_{point}_cdf", float(metres), share) for metres, share in curve.items()]
    points += [
        _curve_point(backbone, "fix_reliability", group.mean_probability, group.right) for group in fixes.reliability
    ]
    precision_recall, n = fixes.precision_recall, len(fixes.fixes)
    for name, values in (("fix_precision", precision_recall.precision), ("fix_recall", precision_recall.recall)):
        points += [
            CurvePoint(backbone, name, threshold, number_json(value), None, None, n)
            for threshold, value in zip(precision_recall.threshold.tolist(), values.tolist(), strict=True)
        ]
    return points


def _curve_point(backbone: str, curve: str, x: float, estimate: IntervalEstimate) -> CurvePoint:
    return CurvePoint(backbone, curve, x, estimate.value, estimate.low, estimate.high, estimate.n)


def _whole_map_json(whole_map: FixEvaluation) -> dict[str, Any]:
    counts = whole_map.counts
    return {
        "run": None,
        "flight_id": whole_map.flight_id,
        "reference_set": whole_map.reference_set,
        "backbone": None,
        "method": whole_map.method,
        "angle_deg": None,
        "spec_digest": None,
        "counts": {
            "frames": counts.frames,
            "failed": counts.failed,
            "without_truth": counts.without_truth,
            "judged": counts.judged,
            "off_map": counts.off_map,
        },
        "stride_m": None,
        "agreement_within_m": None,
        "interval": _INTERVAL,
        "constants": _CONSTANTS,
        "scores": {},
        "hit_curves": {},
        "ceiling": {},
        "fix": whole_map.to_json(),
        "frames": [_fix_frame_json(frame, fix) for frame, fix in whole_map.answers],
    }


def _fix_frame_json(frame: Frame, fix: FrameFix) -> dict[str, Any]:
    errors = fix_errors(fix.pose, frame.truth)
    return {
        "frame_index": frame.index,
        "filename": frame.filename,
        "estimate": None if fix.match is None else {"fix": fix_info(fix).model_dump(mode="json")},
        "errors": None if errors is None else {"fix_ground_m": errors.ground_m, "fix_aircraft_m": errors.aircraft_m},
        "error": fix.reason if fix.match is None else None,
    }
