"""Summary of a run in a few numbers, for commands, pages and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coarseloc.core.fixes import FrameFix, ellipse
from coarseloc.store import Database, runs
from coarseloc.store.localizations import BEST_PLACE
from coarseloc.store.runs import StoredRun
from search.answers import FixErrors, FrameAnswer, frame_answers

PARTS = ("decode", "embed", "search", "total")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run over a flight. Medians are over the frames that have the value; None where none has.

    A run has one median error: over the frames that the map shows. Those off it have no right answer: they are
    counted in `off_map`.
    """

    frames: int
    unreadable: int
    frames_with_truth: int  # and an answer
    off_map: int  # of these
    median_error_m: float | None
    median_heading_error_deg: float | None  # of frames whose place is right
    median_margin: float | None  # of frames with hits at more than one place
    median_score: float | None
    median_ms: dict[str, float | None]  # by PARTS
    fix: FixSummary | None = None  # None where the run was not verified


@dataclass(frozen=True, slots=True)
class FixSummary:
    """A run's fixes: how many frames were looked for on the map, and with what result. Medians as of a run."""

    verified: int
    matches: int
    no_match: dict[str, int]  # {reason: frames}
    not_verified: dict[str, int]  # {reason: frames}
    median_ground_error_m: float | None
    median_aircraft_error_m: float | None
    median_heading_error_deg: float | None
    median_ellipse_95_m: float | None  # the larger semi-axis, of the aircraft where that is known
    median_verify_ms: float | None


def summarize_fixes(fixes: Sequence[FrameFix], errors: Sequence[FixErrors]) -> FixSummary | None:
    """Reduce the fixes of a run or of a whole map; None where there is none."""
    if not fixes:
        return None
    poses = [fix.pose for fix in fixes if fix.pose is not None]
    return FixSummary(
        verified=sum(fix.match is not None for fix in fixes),
        matches=len(poses),
        no_match=dict(Counter(fix.reason for fix in fixes if fix.match is False and fix.reason)),
        not_verified=dict(Counter(fix.reason for fix in fixes if fix.match is None and fix.reason)),
        median_ground_error_m=median(error.ground_m for error in errors),
        median_aircraft_error_m=median(error.aircraft_m for error in errors),
        median_heading_error_deg=median(error.heading_deg for error in errors),
        median_ellipse_95_m=median(ellipse(pose.position_covariance_m2).major_m for pose in poses),
        median_verify_ms=median(fix.conditions.verify_ms for fix in fixes if fix.conditions),
    )


def summarize(answers: Sequence[FrameAnswer]) -> RunSummary:
    """Reduce a run's frames to one row of numbers."""
    estimates = [answer.result.estimate for answer in answers if answer.result.estimate is not None]
    errors = [answer.errors for answer in answers if answer.errors is not None]
    timings = [answer.result.timing for answer in answers if answer.result.timing is not None]
    return RunSummary(
        frames=len(answers),
        unreadable=sum(answer.result.error is not None for answer in answers),
        frames_with_truth=len(errors),
        off_map=sum(not error.on_map for error in errors),
        median_error_m=median(error.error_m for error in errors if error.on_map),
        median_heading_error_deg=median(error.heading_error_deg for error in errors if error.on_map),
        median_margin=median(estimate.margin for estimate in estimates if not estimate.margin_at_least),
        median_score=median(estimate.score for estimate in estimates),
        median_ms={part: median(getattr(timing, f"{part}_ms") for timing in timings) for part in PARTS},
        fix=summarize_fixes(
            [answer.result.fix for answer in answers if answer.result.fix is not None],
            [answer.fix_errors for answer in answers if answer.fix_errors is not None],
        ),
    )


def typical_frame(answers_by_run: Iterable[Sequence[FrameAnswer]]) -> int | None:
    """The index of the frame of median error; without truth, of the middle frame that has an answer."""
    errors = frame_errors_m(answers_by_run := list(answers_by_run))
    if errors:
        return sorted(errors, key=lambda index: (errors[index], index))[len(errors) // 2]
    answered = sorted(
        {answer.result.frame.index for answers in answers_by_run for answer in answers if answer.result.estimate}
    )
    return answered[len(answered) // 2] if answered else None


def frame_errors_m(answers_by_run: Iterable[Sequence[FrameAnswer]]) -> dict[int, float]:
    """{frame index: its error in metres, the median over runs}, of frames that the map shows."""
    errors: dict[int, list[float]] = {}
    for answers in answers_by_run:
        for answer in answers:
            if answer.errors is not None and answer.errors.on_map:
                errors.setdefault(answer.result.frame.index, []).append(answer.errors.error_m)
    return {index: float(np.median(values)) for index, values in errors.items()}


def median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are not None; None where there is none."""
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None


def summarize_run(db: Database, run_id: int, method: str = BEST_PLACE) -> tuple[StoredRun, RunSummary]:
    """Read and summarize a run. Raises StoreError for an unknown run."""
    with db.read() as session:
        run = runs.find_run(session, run_id)
        answers = frame_answers(session, [run], method=method, with_hits=False)[run.id]
    return run, summarize(answers)


def summary_to_json(run: StoredRun, summary: RunSummary) -> dict[str, Any]:
    """A run's parameters, environment and summary, as JSON."""
    return {
        "run": run.id,
        "flight_id": run.flight_id,
        "reference_set": run.reference_set.name,
        "backbone": run.spec.backbone,
        "input_px": run.spec.input_px,
        "precision": run.spec.precision,
        "fit": run.spec.fit,
        "angle_deg": run.parameters.get("angle_deg"),
        "batch": run.parameters.get("batch"),
        "frames": summary.frames,
        "unreadable": summary.unreadable,
        "references": run.references,
        "median_error_m": summary.median_error_m,
        "median_heading_error_deg": summary.median_heading_error_deg,
        "median_margin": summary.median_margin,
        "frames_with_truth": summary.frames_with_truth,
        "off_map": summary.off_map,
        "median_ms": summary.median_ms,
        "fix": None if summary.fix is None else asdict(summary.fix),
        "index_build_ms": run.index_build_ms,
        **{name: run.environment.get(name) for name in ("backend", "device", "warm_up", "threads")},
    }
