"""Evaluation of fixes: of a run's, and of a whole map's without any backbone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.camera import camera_from_json
from coarseloc.core.fixes import FrameFix
from coarseloc.core.types import Bools, Floats, Frame
from coarseloc.localize import metrics
from coarseloc.store import Session, fixes, flights, localizations, snapshots
from coarseloc.store.localizations import StoredLocalization
from coarseloc.store.runs import StoredRun
from search.evaluation import fix_scores
from search.evaluation.evaluated_fixes import RIGHT_FOOTPRINTS, RIGHT_WITH_LEVER, EvaluatedFixes, evaluate_fixes
from search.evaluation.fix_scores import FIX_SCORES, FixPoint, ReliabilityBin
from search.evaluation.intervals import IntervalEstimate, mean_square_region
from search.evaluation.rejection import PrecisionRecallCurve
from search.evaluation.score_json import estimate_json, number_json, reliability_json, scores_json

NO_BACKBONE = "no backbone"
_NOMINAL = {score.key: score.nominal for score in FIX_SCORES}
POINTS: tuple[FixPoint, ...] = ("ground", "aircraft")


@dataclass(frozen=True, slots=True)
class FixCounts:
    """Number of frames by what became of them. `judged` were looked for on the map and have a truth."""

    frames: int
    not_verified: Mapping[str, int]  # {reason: frames}
    no_match: Mapping[str, int]  # {reason: frames}
    matches: int
    without_truth: int  # of those looked for
    judged: int
    off_map: int  # of the judged
    line_of_sight: int  # of the judged matches: the truth's own ground point is known

    @property
    def failed(self) -> int:
        """Not looked for on the map, for whatever reason."""
        return sum(self.not_verified.values())


@dataclass(frozen=True)
class FixEvaluation:
    """A flight's fixes by one method with their scores."""

    localization: StoredLocalization
    run: StoredRun | None  # None: the whole map was looked at, without any backbone
    truth_sd_m: float
    answers: Sequence[tuple[Frame, FrameFix]]
    fixes: EvaluatedFixes

    @property
    def backbone(self) -> str | None:
        return None if self.run is None else self.run.spec.backbone

    @property
    def flight_id(self) -> str:
        return self.localization.flight_id

    @property
    def reference_set(self) -> str:
        return self.localization.reference_set

    @property
    def method(self) -> str:
        return self.localization.method

    @cached_property
    def counts(self) -> FixCounts:
        judged = self.fixes
        reasons = [(fix.match, fix.reason or "") for _, fix in self.answers]
        return FixCounts(
            frames=len(self.answers),
            not_verified=dict(Counter(reason for match, reason in reasons if match is None)),
            no_match=dict(Counter(reason for match, reason in reasons if match is False)),
            matches=sum(bool(match) for match, _ in reasons),
            without_truth=sum(fix.match is not None and frame.truth.location is None for frame, fix in self.answers),
            judged=len(judged),
            off_map=int((~judged.on_map).sum()),
            line_of_sight=int(judged.line_of_sight.sum()),
        )

    @cached_property
    def scores(self) -> Mapping[str, IntervalEstimate]:
        return {score.key: score.evaluate(self.fixes) for score in FIX_SCORES}

    @cached_property
    def reliability(self) -> Sequence[ReliabilityBin]:
        return fix_scores.reliability(self.fixes)

    @cached_property
    def precision_recall(self) -> PrecisionRecallCurve:
        return fix_scores.precision_recall(self.fixes)

    @cached_property
    def distributions(self) -> Mapping[FixPoint, Mapping[float, IntervalEstimate]]:
        """{point: {metres: share of the frames on the map whose fix is so near}}"""
        return {point: fix_scores.error_distribution(self.fixes, point) for point in POINTS}

    @cached_property
    def nees_regions(self) -> Mapping[str, tuple[float, float]]:
        """{score's key: where the mean NEES of n_eff independent frames lies if covariances are right}."""
        keys = [f"fix_{point}_nees" for point in POINTS]
        return {key: mean_square_region(self.scores[key].n_eff) for key in keys}

    def to_json(self) -> dict[str, Any]:
        """Every score with its unit, direction, interval, n and n_eff, and the curves."""
        curve = self.precision_recall
        return {
            "method": self.method,
            "backbone": self.backbone,
            "reference_set": self.reference_set,
            "parameters": dict(self.localization.parameters),
            "truth_sd_m": self.truth_sd_m,
            "right_within": {"footprints": RIGHT_FOOTPRINTS, "footprints_with_lever": RIGHT_WITH_LEVER},
            "counts": asdict(self.counts),
            "scores": {
                key: row | {"nominal": _NOMINAL[key]} for key, row in scores_json(FIX_SCORES, self.scores).items()
            },
            "nees_region": {key: [number_json(end) for end in ends] for key, ends in self.nees_regions.items()},
            "distribution": {
                point: {f"{metres:g}": estimate_json(share) for metres, share in curve.items()}
                for point, curve in self.distributions.items()
            },
            "precision_recall": [
                {"threshold": threshold, "precision": precision, "recall": number_json(recall)}
                for threshold, precision, recall in zip(*(column.tolist() for column in curve), strict=True)
            ],
            "reliability": reliability_json(self.reliability),
        }


def evaluate_run_fixes(session: Session, run: StoredRun) -> FixEvaluation | None:
    """A run's fixes; None where it was not verified."""
    localization = localizations.newest_localization(session, run.id, localizations.FIX)
    if localization is None:
        return None
    places = snapshots.search_map(session, run.search_map)
    return _evaluation(session, localizations.find_localization(session, localization), run, places)


def evaluate_whole_maps(
    session: Session, flight_ids: Iterable[str], reference_set: str | None = None
) -> list[FixEvaluation]:
    """Flights looked for on whole maps of reference sets, the newest finished answer to each question."""
    return [
        evaluate_whole_map(session, localization)
        for flight_id in dict.fromkeys(flight_ids)
        for localization in localizations.newest_map_localizations(session, flight_id, reference_set)
    ]


def evaluate_whole_map(session: Session, localization: StoredLocalization) -> FixEvaluation:
    """A flight looked for on one whole map."""
    return _evaluation(session, localization, None, None)


def is_beside(whole_map: StoredLocalization, run: StoredRun) -> bool:
    """Whether both looked for the same frames on the same references and part of the map."""
    question = (run.flight_id, sorted(run.set_uids), run.parameters.get("where") or {})
    return (whole_map.flight_id, sorted(whole_map.set_uids), whole_map.parameters["where"]) == question


def _evaluation(
    session: Session, localization: StoredLocalization, run: StoredRun | None, places: Floats | None
) -> FixEvaluation:
    flight = flights.find_flight(session, localization.flight_id).flight
    stored = fixes.fixes(session, localization.id)
    answers = [(frame, stored[frame.index]) for frame in flight.frames if frame.index in stored]
    camera = camera_from_json(localization.parameters["camera"])
    on_map = _on_map([frame for frame, _ in answers], localization, places)
    legs = camera.boresights_by_path([frame.relative_path for frame in flight.frames])
    evaluated = evaluate_fixes(answers, on_map, camera, flight.truth_sd_m, legs)
    return FixEvaluation(localization, run, flight.truth_sd_m, answers, evaluated)


def _on_map(frames: Sequence[Frame], localization: StoredLocalization, places: Floats | None) -> Bools:
    """[F]: the truth lies in the footprint of a place that was searched, or within a whole map's bounds."""
    located = [frame.truth.location or (math.nan, math.nan) for frame in frames]
    lon, lat = np.array(located, np.float64).reshape(-1, 2).T
    if places is not None:
        return metrics.map_coverage(lon, lat, places)[0]
    return geo.inside(lon, lat, localization.parameters["bounds"])
