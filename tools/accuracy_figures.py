"""Rows of `fix_accuracy.py` read: constants fitted, and tables of what was measured. Pure but for reading the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.core.fixes import CHI2_95
from coarseloc.core.types import LonLat
from coarseloc.core.windows import north_up
from coarseloc.localize.registration.fix import (
    FITTED,
    Calibration,
    Logistic,
    ground_covariance,
    heading_sd_deg,
    tilt_sd_deg,
)
from coarseloc.localize.registration.geometry import WindowPose
from coarseloc.localize.registration.registrar import FinePose
from search.evaluation import intervals
from search.evaluation.intervals import IntervalEstimate

Row = dict[str, Any]
"""One frame registered one way, as a line of rows.jsonl."""

RIGHT = 0.05  # of the footprint: the frame's middle nearer than this is right
ALTITUDE_M = 300.0


def read_rows(file: Path) -> list[Row]:
    """None where there is no file; a line that was cut off is left out, and all but the last of one frame and way."""
    rows: dict[tuple[str, int, int, str], Row] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row_key(row)] = row
    return list(rows.values())


def row_key(row: Row) -> tuple[str, int, int, str]:
    return row["set"], row["map_seed"], row["frame"], row["way"]


# --- one row ------------------------------------------------------------------------------------


def is_right(row: Row) -> bool:
    return "pose" in row and ground_error_m(row) <= RIGHT * float(row["footprint_m"])


def ground_error_m(row: Row) -> float:
    return math.hypot(*row["pose"]["error_m"])


def aircraft_error_m(row: Row) -> float:
    return math.hypot(*row["pose"]["aircraft_error_m"])


def score_of(row: Row) -> float:
    return float(row["fine"][0]) if row["fine"] else 0.0


def margin_of(row: Row) -> float:
    return score_of(row) - float(row["rival"]) if row["fine"] else 0.0


def logit_of(row: Row, calibration: Calibration) -> float:
    logistic = calibration.whole_map if row["way"] == "map" else calibration.candidates
    return logistic.bias + logistic.score_weight * score_of(row) + logistic.margin_weight * margin_of(row)


def probability_of(row: Row, calibration: Calibration) -> float:
    """0 where nothing plausible was found."""
    logistic = calibration.whole_map if row["way"] == "map" else calibration.candidates
    return logistic(score_of(row), margin_of(row)) if row["fine"] else 0.0


def fine_pose(row: Row) -> FinePose:
    """A row's pose as far as covariances need it, on a north-up window."""
    pose = row["pose"]
    window = north_up(np.zeros((1, 1, 3), np.uint8), None, pose["pixel_m"], LonLat(0.0, 0.0))
    return FinePose(
        window.center, WindowPose(0.0, 0.0, 0.0, pose["scale"]), 0.0, pose["score"], np.array(pose["curvature"]),
        np.array(pose["scatter"]), pose["pixel_m"], 1.0, window,
    )  # fmt: skip


def ground_nees(row: Row, map_sd_m: float, calibration: Calibration) -> float:
    """The ground point's squared error over its stated covariance: 2 on average where that is right."""
    error = np.array(row["pose"]["error_m"])
    covariance = ground_covariance(fine_pose(row), row["map_gsd_m"], map_sd_m, calibration)
    return float(error @ np.linalg.solve(covariance, error))


def aircraft_nees(row: Row, map_sd_m: float, calibration: Calibration) -> float:
    """The aircraft's, over flat ground: its tilt is as good as the fit's curvature says."""
    pose = fine_pose(row)
    half_fov_tan = row["footprint_m"] / 2 / ALTITUDE_M
    tilt = math.tan(math.radians(tilt_sd_deg(pose, half_fov_tan, calibration)))
    covariance = ground_covariance(pose, row["map_gsd_m"], map_sd_m, calibration)
    covariance = covariance + (ALTITUDE_M * row["pose"]["scale"] * tilt) ** 2 * np.eye(2)
    error = np.array(row["pose"]["aircraft_error_m"])
    return float(error @ np.linalg.solve(covariance, error))


def angle_ratios(row: Row, calibration: Calibration) -> tuple[float, float]:
    """(squared tilt error over 2 stated variances, squared heading error over the stated variance)."""
    pose, half_fov_tan = row["pose"], row["footprint_m"] / 2 / ALTITUDE_M
    tilt = pose["tilt_error_deg"] / tilt_sd_deg(fine_pose(row), half_fov_tan, calibration)
    heading = pose["heading_error_deg"] / heading_sd_deg(fine_pose(row), calibration)
    return tilt**2 / 2, heading**2


# --- the table of figures to reach --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with its goals; `unit` is "%", "m", "°", "s" or "" of a share; `least` and `moonshot` are the largest
    values that reach them where `at_most`, the smallest else, or both ends."""

    what: str
    figure: IntervalEstimate
    unit: str
    least: float | tuple[float, float] | None
    moonshot: float | tuple[float, float] | None
    at_most: bool = True

    @property
    def verdict(self) -> str:
        if self.least is None or math.isnan(self.figure.value):
            return "–"
        reached = [
            goal is not None and _reaches(self.figure.value, goal, self.at_most) for goal in (self.least, self.moonshot)
        ]
        return "moonshot" if reached[1] else "yes" if reached[0] else "**no**"


def _reaches(value: float, goal: float | tuple[float, float], at_most: bool) -> bool:
    if isinstance(goal, tuple):
        return goal[0] <= round(value, 4) <= goal[1]
    return value <= goal if at_most else value >= goal


def goals(rows: Sequence[Row], calibration: Calibration = FITTED) -> list[Goal]:
    """Every row of the design's table, of what was measured; frames are taken as drawn independently."""

    def of(way: str, *names: str) -> list[Row]:
        return [row for row in rows if row["way"] == way and row["set"] in names]

    def right(members: Sequence[Row]) -> IntervalEstimate:
        return intervals.share(np.array([is_right(row) for row in members], float))

    def middle(members: Sequence[Row], value: Callable[[Row], float], q: float = 0.5) -> IntervalEstimate:
        return intervals.quantile(np.array([value(row) for row in members if is_right(row)]), q=q)

    def inside(members: Sequence[Row], nees: Callable[[Row, float, Calibration], float], map_sd: float
               ) -> IntervalEstimate:  # fmt: skip
        held = [nees(row, map_sd * row["map_gsd_m"], calibration) <= CHI2_95 for row in members if is_right(row)]
        return intervals.share(np.array(held, float))

    def heading_error_deg(row: Row) -> float:
        return abs(float(row["pose"]["heading_error_deg"]))

    demo, season, tilted = "demo flight", "demo area, other season", "demo area, 4° of tilt"
    other = "generated 101–105, other season"
    west, east, naip_tilted = "NAIP 2018→2020, west", "NAIP 2018→2020, east", "NAIP 2018→2020, 4° of tilt"
    naip = of("top10", west, east)
    beyond = [float(is_right(row)) - float(row["reachable"]) for row in naip]
    band, narrow = (0.92, 0.98), (0.94, 0.96)
    either = right_frames(rows)
    table = [
        Goal("demo flight: right", right(of("top10", demo)), "%", 0.98, 1.0, at_most=False),
        Goal("demo flight: ground, median", middle(of("top10", demo), ground_error_m), "m", 0.3, 0.1),
        Goal("demo flight: heading, median", middle(of("top10", demo), heading_error_deg), "°", 0.05, 0.01),
        Goal("another season: right", right(of("top10", season)), "%", 0.97, 1.0, at_most=False),
        Goal("another season: ground, median", middle(of("top10", season), ground_error_m), "m", 0.8, 0.5),
        Goal("aircraft, labels, generated", middle(of("label", demo, season), aircraft_error_m), "m", 0.3, 0.1),
        Goal("aircraft, labels, NAIP", middle(of("label", west, east), aircraft_error_m), "m", 2.0, 1.3),
        Goal("aircraft, estimated, generated", middle(of("top10", demo, season), aircraft_error_m), "m", 2.0, 1.0),
        Goal("… in its 95 % ellipse", inside(of("top10", demo, season), aircraft_nees, 0.0), "%", None, None),
        Goal("aircraft, estimated, NAIP", middle(naip, aircraft_error_m), "m", 6.0, 3.5),
        Goal("… in its 95 % ellipse, map's error half a GSD", inside(naip, aircraft_nees, 0.5), "%", None, None),
        Goal("4° of tilt, demo: ground, median", middle(of("top10", tilted), ground_error_m), "m", 0.5, 0.2),
        Goal("4° of tilt, NAIP: ground, median", middle(of("top10", naip_tilted), ground_error_m), "m", 4.0, 2.5),
        Goal("NAIP, Top-10: right", right(naip), "%", None, None),
        Goal("NAIP, Top-10: right beyond reachable, points", intervals.share_difference(np.array(beyond)), "%",
             -0.02, 0.0, at_most=False),
        Goal("NAIP, Top-10: ground, median", middle(naip, ground_error_m), "m", 2.5, 1.5),
        Goal("NAIP, Top-10: ground, p90", middle(naip, ground_error_m, 0.9), "m", 6.0, 4.0),
        Goal("NAIP, whole map: right", right(of("map", west, east)), "%", 0.95, 0.99, at_most=False),
        Goal("NAIP, whole map: ground, median", middle(of("map", west, east), ground_error_m), "m", 2.5, 1.4),
        *(Goal(f"95 % ellipse, {name}, map's error {share:g} GSD", inside(either[name], ground_nees, share), "%", band,
               narrow)
          for name, shares in ((season, (0.0,)), (other, (0.0,)), (west, (0.0, 0.5)), (east, (0.0, 0.5)),
                               (naip_tilted, (0.0, 0.5)))
          for share in shares if name in either),
        *(Goal(f"95 % ellipse, {name}, the map's own frames", inside(either[name], ground_nees, 0.0), "%",
               0.93, narrow, at_most=False) for name in (demo, tilted) if name in either),
        *(Goal(f"recall at full precision, {title}", recall_at_full_precision(rows, way, calibration), "", least,
               moonshot, at_most=False)
          for way, title, least, moonshot in (("top10", "Top-10", 0.95, 1.0), ("map", "whole map", 0.9, 0.98))),
        Goal("K = 10 a frame, CPU, median", _seconds(rows, "top10", "NAIP"), "s", 0.35, 0.2),
        Goal("whole map of 17 km², CPU, median", _seconds(rows, "map", "NAIP"), "s", 1.0, 0.5),
    ]  # fmt: skip
    return [goal for goal in table if goal.figure.n]


def recall_at_full_precision(rows: Iterable[Row], way: str, calibration: Calibration) -> IntervalEstimate:
    """Share of the right answers that are more probable than every wrong one; of the share to report."""
    members = [row for row in rows if row["way"] == way and row["share"] == "report"]
    wrong = max((probability_of(row, calibration) for row in members if not is_right(row)), default=0.0)
    above = [probability_of(row, calibration) > wrong for row in members if is_right(row)]
    return intervals.share(np.array(above, float))


def _seconds(rows: Iterable[Row], way: str, name: str) -> IntervalEstimate:
    """Of the processor, from the decoded frame to its fix."""
    members = [row for row in rows if row["way"] == way and row["set"].startswith(name)]
    return intervals.quantile(np.array([(row["cpu_ms"] + row["embed_cpu_ms"]) / 1e3 for row in members]), q=0.5)


def goals_table(rows: Sequence[Row], calibration: Calibration = FITTED) -> list[str]:
    heads = ("what", "measured [95 %]", "n", "at least", "moonshot", "reached")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for goal in goals(rows, calibration):
        cells = (
            goal.what, _figure(goal.figure, goal.unit), goal.figure.n, _bound(goal.least, goal.unit),
            _bound(goal.moonshot, goal.unit), goal.verdict,
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _figure(figure: IntervalEstimate, unit: str) -> str:
    ends = "" if math.isnan(figure.low) else f" [{_number(figure.low, unit)}, {_number(figure.high, unit)}]"
    return f"{_number(figure.value, unit)}{ends} {unit}".strip()


def _bound(value: float | tuple[float, float] | None, unit: str) -> str:
    if value is None:
        return "–"
    return "–".join(_number(end, unit) for end in value) if isinstance(value, tuple) else _number(value, unit)


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    return f"{100 * value:.0f}" if unit == "%" else f"{value:.3g}"


def sets_table(rows: Sequence[Row], calibration: Calibration = FITTED) -> list[str]:
    """One line a set and way."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["way"]), []).append(row)
    heads = (
        "set", "way", "n", "reachable %", "right %", "ground m median / p90",
        "95 % ellipse holds % (map's error 0 / half a GSD)", "NEES / 2 (same)", "heading ° (NEES)",
        "aircraft m median / p90", "tilt ° (NEES)", "score", "margin", "accepted %", "CPU ms",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (name, way), members in sorted(groups.items()):
        right = [row for row in members if is_right(row)]
        nees = [[ground_nees(row, share * row["map_gsd_m"], calibration) for row in right] for share in (0.0, 0.5)]
        angles = [angle_ratios(row, calibration) for row in right]
        cells = (
            name, way, len(members), _percent([row["reachable"] for row in members]),
            _percent([is_right(row) for row in members]), _spread([ground_error_m(row) for row in right]),
            " / ".join(_percent([value <= CHI2_95 for value in values]) for values in nees),
            " / ".join(_mean([value / 2 for value in values]) for values in nees),
            f"{_median([abs(row['pose']['heading_error_deg']) for row in right])} "
            f"({_mean([heading for _, heading in angles])})",
            _spread([aircraft_error_m(row) for row in right]),
            f"{_median([row['pose']['tilt_error_deg'] for row in right])} ({_mean([tilt for tilt, _ in angles])})",
            _median([score_of(row) for row in members]), _median([margin_of(row) for row in members]),
            _percent([probability_of(row, calibration) >= calibration.accepted_probability for row in members]),
            _median([row["cpu_ms"] for row in members]),
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return [*lines, "", *rejection_lines(rows, calibration)]


def rejection_lines(rows: Sequence[Row], calibration: Calibration) -> list[str]:
    """What the accepted probability accepts of either share."""
    lines = []
    for share in ("calibrate", "report"):
        for way in ("top10", "map"):
            members = [row for row in rows if row["way"] == way and row["share"] == share]
            accepted = [probability_of(row, calibration) >= calibration.accepted_probability for row in members]
            right = [taken for taken, row in zip(accepted, members, strict=True) if is_right(row)]
            wrong = [taken for taken, row in zip(accepted, members, strict=True) if not is_right(row)]
            if members:
                lines.append(
                    f"- {share}, {way}: accepted at p ≥ {calibration.accepted_probability:.2f} are {sum(right)} of "
                    f"{len(right)} right ones, {sum(wrong)} of {len(wrong)} wrong ones or off the map"
                )
    return lines


def _percent(values: Sequence[bool]) -> str:
    return f"{100 * float(np.mean(values)):.0f}" if values else "–"


def _mean(values: Sequence[float]) -> str:
    return f"{float(np.mean(values)):.2f}" if values else "–"


def _median(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.3g}" if values else "–"


def _spread(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.3g} / {float(np.percentile(values, 90)):.3g}" if values else "–"


# --- constants ----------------------------------------------------------------------------------

UNFITTED = Calibration(1.0, 1.0, 1.0, 0.0, Logistic(0.0, 0.0, 0.0), Logistic(0.0, 0.0, 0.0), 0.5, "")
CHI2_50 = 2 * math.log(2)
C_BOUNDS, G_BOUNDS = (5e-4, 0.1), (1e-3, 2.0)
C_WITHOUT_OWN = 0.006
OWN = "own season"  # in the name of a set of frames of the maps' own pictures

CovarianceParts = tuple[np.ndarray, np.ndarray, np.ndarray]
HEADING_95 = 3.841  # of χ² of one degree of freedom
SPARED = 1.0  # how far above the most probable wrong answer of the calibration an answer's logit has to lie


def calibration_record(rows: Sequence[Row], today: str, versions: dict[str, str]) -> dict[str, Any]:
    """The contents of calibration.json: constants, their digest, and what they were fitted on."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["set"], []).append(row)
    right = right_frames(rows)
    c, g = fitted_covariance(right)
    scales = [[angle_ratios(row, UNFITTED) for row in members] for name, members in right.items() if OWN not in name]
    tilt = [float(np.percentile([pair[0] for pair in pairs], 95)) / (CHI2_95 / 2) for pairs in scales]
    heading = [float(np.percentile([pair[1] for pair in pairs], 95)) / HEADING_95 for pairs in scales]
    logistics = {way: fitted_logistic([row for row in rows if row["way"] == way]) for way in ("top10", "map")}
    sets = [
        {"set": name, "frames": len({row_key(row)[:3] for row in members}),
         **{way: {"answers": sum(row["way"] == way for row in members),
                  "right": sum(row["way"] == way and is_right(row) for row in members)} for way in ("top10", "map")}}
        for name, members in sorted(groups.items())
    ]  # fmt: skip
    fitted_on = "; ".join(f"{entry['set']} ({entry['frames']})" for entry in sets)
    calibration = Calibration(
        _rounded(c), _rounded(_geometric_mean(tilt)), _rounded(_geometric_mean(heading)), _rounded(g),
        logistics["top10"], logistics["map"], 0.5, fitted_on,
    )  # fmt: skip
    calibration = replace(calibration, accepted_probability=accepted_probability(rows, calibration))
    return {
        "schema_version": 1,
        "digest": calibration.digest,
        "date": today,
        "versions": versions,
        "constants": asdict(calibration),
        "sets": sets,
    }


def right_frames(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By set, one right row a frame: among the ten places where there is one, else over the whole map."""
    frames: dict[tuple[str, int, int], Row] = {}
    for row in sorted(rows, key=lambda row: str(row["way"])):  # map before top10
        if row["way"] != "label" and is_right(row):
            frames[row_key(row)[:3]] = row
    right: dict[str, list[Row]] = {}
    for row in frames.values():
        right.setdefault(row["set"], []).append(row)
    return right


def fitted_covariance(right: dict[str, list[Row]]) -> tuple[float, float]:
    """(c, g): c on frames of the maps' own pictures, where all of an error is noise; then g on each other set, all sets
    counting alike, by which ellipses of 50 and of 95 % hold as many frames.

    The map's error is taken as 0: how two seasons or years of pictures lie on each other is part of what is fitted.
    """
    own = [covariance_parts(members) for name, members in right.items() if OWN in name]
    others = [covariance_parts(members) for name, members in right.items() if OWN not in name]
    c = _minimum(lambda c: sum(_misfit(parts, c, 0.0) for parts in own), *C_BOUNDS) if own else C_WITHOUT_OWN
    return c, _minimum(lambda g: sum(_misfit(parts, c, g) for parts in others), *G_BOUNDS)


def _misfit(parts: CovarianceParts, c: float, g: float) -> float:
    """How far the quantiles of normalised squared errors are from those of χ², logarithms squared."""
    errors, fit_m2, gsd_m2 = parts
    covariances = c * fit_m2 + g * gsd_m2[:, None, None] * np.eye(2)
    nees = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(covariances), errors)
    middle, outer = (math.log(float(np.percentile(nees, q)) / chi2) for q, chi2 in ((50, CHI2_50), (95, CHI2_95)))
    return middle**2 + 2 * outer**2


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Of a function of one valley, within half a percent."""
    return float(min(np.geomspace(low, high, 1 + math.ceil(math.log(high / low) / 0.005)), key=function))


def covariance_parts(members: Sequence[Row]) -> CovarianceParts:
    """(errors float64 [n, 2] in m, the covariance that c multiplies [n, 2, 2] in m², what g multiplies [n] in m²)."""
    by_c, by_g = replace(UNFITTED, gsd_variance=0.0), replace(UNFITTED, covariance=0.0, gsd_variance=1.0)
    errors = np.array([row["pose"]["error_m"] for row in members])
    fit_m2 = [ground_covariance(fine_pose(row), row["map_gsd_m"], 0.0, by_c) for row in members]
    gsd_m2 = [ground_covariance(fine_pose(row), row["map_gsd_m"], 0.0, by_g)[0, 0] for row in members]
    return errors, np.array(fit_m2), np.array(gsd_m2)


def fitted_logistic(rows: Sequence[Row]) -> Logistic:
    rows = [row for row in rows if row["fine"]]
    features = np.array([(1.0, score_of(row), margin_of(row)) for row in rows])
    labels = np.array([is_right(row) for row in rows], float)
    return Logistic(*(round(float(weight), 3) for weight in logistic_weights(features, labels)))


def logistic_weights(features: np.ndarray, labels: np.ndarray, ridge: float = 0.05) -> np.ndarray:
    """float64 [F]: maximum likelihood by Newton's method, weights of standardised features drawn to 0 a little, so that
    sets that separate have finite ones."""
    centre, spread = features[:, 1:].mean(0), features[:, 1:].std(0)
    standard = np.column_stack([features[:, 0], (features[:, 1:] - centre) / spread])
    penalty = np.diag([0.0, *[ridge] * (features.shape[1] - 1)])
    weights = np.zeros(features.shape[1])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-standard @ weights))
        gradient = standard.T @ (labels - p) - penalty @ weights
        hessian = (standard * (p * (1 - p))[:, None]).T @ standard + penalty + 1e-9 * np.eye(len(weights))
        weights = weights + np.linalg.solve(hessian, gradient)
    slopes = weights[1:] / spread
    return np.array([weights[0] - slopes @ centre, *slopes])


def accepted_probability(rows: Sequence[Row], calibration: Calibration) -> float:
    """That of a logit `SPARED` above the most probable wrong answer's; never more than one half would accept is lost:
    from 0.5 up a right answer is likelier than a wrong one."""
    wrong = [logit_of(row, calibration) for row in rows if row["fine"] and not is_right(row)]
    logit = max(wrong, default=0.0) + SPARED
    return round(1.0 / (1.0 + math.exp(-logit)), 3)


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
