"""Evaluations as others read them: JSON with units, intervals and n_eff, CSV, and the curves that pages show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from coarseloc.store import Database, studies
from coarseloc.store.studies import CurvePoint
from search.evaluation import scores
from search.evaluation.evaluate import Counts, Evaluation
from search.evaluation.intervals import LEVEL, MIN_N_EFF, RESAMPLES, IntervalEstimate
from search.export.infos import errors_info, estimate_info


def facts(one: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON: every score with its unit, direction, interval, n and n_eff."""
    spec, asked = one.run.spec, one.run.parameters
    return {
        "run": one.run.id,
        "flight_id": one.run.flight_id,
        "reference_set": one.run.reference_set.name,
        "backbone": spec.backbone,
        "method": one.method,
        "angle_deg": asked.get("angle_deg"),
        "spec_digest": spec.digest,
        "counts": {name: getattr(one.counts, name) for name in Counts.__dataclass_fields__},
        "stride_m": _number(one.frames.stride_m),
        "agreement_within_m": one.agreement_m,
        "interval": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "method": "of n_eff independent frames: Wilson for shares, Woodruff for quantiles, bootstrap for the rest",
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
                **_estimate(one.scores[score.key]),
            }
            for score in scores.SCORES
        },
        "hit_curves": {
            str(k): {str(d): _estimate(share) for d, share in curve.items()} for k, curve in one.hit_curves.items()
        },
        "ceiling": {str(d): _number(share) for d, share in one.ceiling.items()},
    }


def frames(one: Evaluation) -> list[dict[str, Any]]:
    """Every frame of an evaluation: its answer and errors as its record says them, or why there is none."""
    rows = []
    for answer in one.answers:
        estimate, errors = estimate_info(answer, one.method), errors_info(one.run, answer)
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


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """One row per run and score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["flight", "reference_set", "run", "backbone", "score", "unit", "better", "value", "low", "high", "n", "n_eff"]
    )
    for one in evaluations:
        start = [one.run.flight_id, one.run.reference_set.name, one.run.id, one.label]
        for score in scores.SCORES:
            found = one.scores[score.key]
            numbers = ["" if math.isnan(v) else repr(v) for v in (found.value, found.low, found.high, found.n_eff)]
            writer.writerow([*start, score.key, score.unit, score.better, *numbers[:3], found.n, numbers[3]])
    return out.getvalue()


def save(db: Database, evaluations: Sequence[Evaluation]) -> None:
    """Keep evaluations where the pages read them: curve = the score's key at x = 0, `hit@k` over metres."""
    for one in evaluations:
        points = [_point(one.backbone, key, 0.0, found) for key, found in one.scores.items()]
        for k, curve in one.hit_curves.items():
            points += [_point(one.backbone, f"hit@{k}", float(d), share) for d, share in curve.items()]
        points += [
            CurvePoint(one.backbone, "ceiling", float(d), s, None, None, len(one.frames))
            for d, s in one.ceiling.items()
        ]
        with db.write() as session:
            asked = {"run": one.run.id, "method": one.method, "beside": sorted(e.run.id for e in evaluations)}
            stored = studies.start_study(session, "evaluation", asked, {}, one.run.id)
            studies.finish_study(session, stored.id, points, facts(one))


def _point(backbone: str, curve: str, x: float, found: IntervalEstimate) -> CurvePoint:
    return CurvePoint(backbone, curve, x, found.value, found.low, found.high, found.n)


def _estimate(found: IntervalEstimate) -> dict[str, Any]:
    return {
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
        "n": found.n,
        "n_eff": _number(found.n_eff),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
