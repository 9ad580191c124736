"""A flight's labels held against the imagery: frames that it contradicts, and what is wrong with all of them together.

Witnesses of a frame are its confident fixes (of runs and of whole maps), its claimed place on stored tracks, the best
places of backbones, and the fixes of the frames beside it. The last two only support: a place of retrieval is wrong too
often. A fix is looked for among its own run's best places, so these are no second witness. Nothing is changed.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from coarseloc.core import geo
from coarseloc.core.camera import Camera, camera_from_json
from coarseloc.core.errors import StoreError
from coarseloc.core.fixes import FrameFix, ellipse
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Flight, Floats, Frame, LonLat
from coarseloc.localize import metrics
from coarseloc.localize.boresight import LEG_FRAMES, LegBoresight, Sight, estimate_boresight
from coarseloc.store import Database, Session, fixes, flights, localizations, runs, snapshots
from coarseloc.store.localizations import TRACK_SMOOTHED, StoredLocalization
from coarseloc.store.runs import StoredRun
from search.boresight import sight_of
from search.evaluation.evaluated_fixes import (
    RIGHT_WITH_LEVER,
    TRUTH_CHI2,
    ground_truth,
    held_against_truth,
)
from search.evaluation.label_shifts import Explanation, WitnessedFlight, explanations

CONFIDENT = 0.9  # probability of a fix that may contradict a label
_HEADING_DEG = 15.0  # of a label's yaw and a fix's heading: more is not the mounting of a camera by eye
_TOP_FRAMES = 0.75  # of a tile's side, from its centre: its corners and a little
_OFFSET_SIGMAS = 5.0  # of a leg's median, from which an offset is constant and not chance
_OFFSET_M = 1.0  # less is not worth a word

LabelVerdict = Literal["not contradicted", "contradicted", "cannot say"]
VERDICTS: tuple[LabelVerdict, ...] = ("not contradicted", "contradicted", "cannot say")
WitnessKind = Literal["fix", "whole-map", "track", "best-place", "beside"]
_BESIDE = 3  # frames on either side


@dataclass(frozen=True, slots=True)
class WitnessStatement:
    """Where one witness puts a frame, against its label."""

    witness: str  # what a user knows it by
    kind: WitnessKind
    location: LonLat  # to be held against the label: of the aircraft where that is known
    distance_m: float | None  # from what the label says; None without a label
    tolerance_m: float  # that it may be off and still agree
    probability: float | None
    heading_deg: float | None = None
    run: int | None = None  # whose answer it is

    @property
    def decides(self) -> bool:
        """Whether it may settle a label; the others only support."""
        return self.kind not in ("best-place", "beside")

    @property
    def agrees(self) -> bool | None:
        return None if self.distance_m is None else self.distance_m <= self.tolerance_m


@dataclass(frozen=True, slots=True)
class CheckedFrame:
    """One frame's label and what its witnesses make of it."""

    frame: Frame
    verdict: LabelVerdict
    reason: str
    testimonies: tuple[WitnessStatement, ...]
    proposal: LonLat | None  # where the imagery puts a contradicted frame
    heading_off_deg: float | None  # the imagery's heading less the label's yaw, signed; None where either is missing

    @property
    def heading_contradicted(self) -> bool:
        return self.heading_off_deg is not None and abs(self.heading_off_deg) > _HEADING_DEG


@dataclass(frozen=True, slots=True)
class LegOffset:
    """By how much the imagery lies beyond the labels on one leg, as medians of its frames."""

    first: int  # frame index
    last: int
    frames: int
    heading_deg: float
    east_m: float
    north_m: float
    right_m: float
    forward_m: float
    sd_m: float  # of either median
    constant: bool  # more than chance
    boresight: LegBoresight | None  # the same as an angle of the camera; None where the field of view is unknown


@dataclass(frozen=True, slots=True)
class HeadingOffset:
    """What the imagery's headings lie beyond the labels' yaws, of frames that tell."""

    median_deg: float
    scatter_deg: float
    frames: int
    mirrored: bool  # yaws count counterclockwise: their sum with the headings is constant, not the difference


@dataclass(frozen=True)
class TruthCheck:
    """A flight's labels against the imagery."""

    flight: Flight
    frames: tuple[CheckedFrame, ...]
    witnesses: tuple[str, ...]
    legs: tuple[LegOffset, ...]
    map_shift_m: (
        tuple[float, float] | None
    )  # (east, north), where legs of several headings tell it from the camera's angle
    explanations: tuple[Explanation, ...]  # the labels as they are first
    off_map: int  # labels where the references show no ground
    nearest_m: float | None  # of these, the median distance to the nearest reference

    @cached_property
    def counts(self) -> Mapping[LabelVerdict, int]:
        by_verdict = Counter(checked.verdict for checked in self.frames)
        return {verdict: by_verdict[verdict] for verdict in VERDICTS}

    @property
    def accepted(self) -> list[Explanation]:
        """Explanations that hold, the simplest first; the others are tied with it."""
        return [explanation for explanation in self.explanations if explanation.accepted]

    @cached_property
    def heading(self) -> HeadingOffset | None:
        """What all yaws are off by; None where fewer than `LEG_FRAMES` frames tell."""
        offs = [checked.heading_off_deg for checked in self.frames if checked.heading_off_deg is not None]
        if len(offs) < LEG_FRAMES:
            return None
        median = _circular_median(offs)
        scatter = 1.4826 * float(np.median(np.abs(geo.signed_difference_deg(median, offs))))
        yaws = [c.frame.truth.yaw_deg for c in self.frames if c.heading_off_deg is not None]
        sums = [off + 2 * (yaw or 0.0) for off, yaw in zip(offs, yaws, strict=True)]  # heading + yaw
        mirrored = 1.4826 * float(np.median(np.abs(geo.signed_difference_deg(_circular_median(sums), sums))))
        is_mirrored = scatter > _HEADING_DEG > 2 * mirrored
        return HeadingOffset(median, scatter, len(offs), is_mirrored)


class ConfidentFix(NamedTuple):
    """A frame's fix that may contradict its label, with the camera it was looked for with."""

    testimony: WitnessStatement
    fix: FrameFix
    camera: Camera


Testimonies = dict[int, list[WitnessStatement]]
Offset = tuple[float, float]  # (east, north) metres


def check_truth(db: Database, flight_id: str) -> TruthCheck:
    """Check a recorded flight's labels by its newest runs, whole-map answers and tracks.

    Raises StoreError where the flight is unknown or was never looked for.
    """
    with db.read() as session:
        stored = flights.find_flight(session, flight_id)
        flight = stored.flight
        newest = runs.latest_runs(session, flight.flight_id)
        whole_maps = localizations.newest_map_localizations(session, flight.flight_id)
        tracks = localizations.newest_tracks(session, flight.flight_id)
        if not newest and not whole_maps and not tracks:
            raise StoreError(f"flight {flight.flight_id} was never looked for: run `coarseloc search` first")
        fix_rows: dict[int, list[ConfidentFix]] = {}
        testimonies: Testimonies = {}
        by_index = {frame.index: frame for frame in flight.frames}
        for run in newest:
            _of_run(session, run, flight, by_index, fix_rows, testimonies)
        for stored_map in whole_maps:
            camera = camera_from_json(stored_map.parameters["camera"])
            name = f"whole map of {stored_map.reference_set}"
            _add_fixes(fixes.fixes(session, stored_map.id), camera, name, "whole-map", flight, by_index, fix_rows)
        widths = _widths(fix_rows)
        for stored_track in _distinct_tracks(tracks):
            name = f"{stored_track.method} on {stored_track.reference_set} ({stored_track.evidence})"
            for index, estimate in localizations.track(session, stored_track).items():
                testimony = _of_track(name, estimate, by_index[index], flight, widths)
                if testimony is not None:
                    testimonies.setdefault(index, []).append(testimony)
        coverage = _coverage(session, newest, flight)
    for index, rows in fix_rows.items():
        testimonies[index] = [row.testimony for row in rows] + testimonies.get(index, [])
    return judge(flight, testimonies, {index: _best(rows) for index, rows in fix_rows.items()}, *coverage)


def judge(
    flight: Flight,
    testimonies: Mapping[int, Sequence[WitnessStatement]],
    best_fixes: Mapping[int, ConfidentFix],
    off_map: int = 0,
    nearest_m: float | None = None,
) -> TruthCheck:
    """Weigh what witnesses say. testimonies, best_fixes: by frame index."""
    beside = _beside(flight, best_fixes)
    legs, shift = _legs(flight, best_fixes)
    explained = tuple(explanations(_witnessed(flight, best_fixes)))
    alike = _alike(flight, best_fixes, legs, explained)
    checked = tuple(
        _checked(frame, [*testimonies.get(frame.index, ()), *beside.get(frame.index, ())], alike.get(frame.index))
        for frame in flight.frames
    )
    names = dict.fromkeys(t.witness for of_frame in testimonies.values() for t in of_frame)
    return TruthCheck(flight, checked, tuple(names), legs, shift, explained, off_map, nearest_m)


# --- what witnesses say -----------------------------------------------------------------------------


def _of_run(
    session: Session,
    run: StoredRun,
    flight: Flight,
    by_index: Mapping[int, Frame],
    fix_rows: dict[int, list[ConfidentFix]],
    testimonies: Testimonies,
) -> None:
    localization = localizations.newest_localization(session, run.id, localizations.FIX)
    label = f"run {run.id}, {run.spec.backbone}"
    if localization is not None:
        camera = camera_from_json(localizations.find_localization(session, localization).parameters["camera"])
        stored = fixes.fixes(session, localization)
        _add_fixes(stored, camera, f"fix ({label})", "fix", flight, by_index, fix_rows, run.id)
    for result in runs.results(session, run.id, with_hits=False):
        if result.estimate is None or result.estimate.tile is None:
            continue
        location = result.estimate.location
        width_m = geo.box_size_m(result.estimate.tile.bbox)[0]
        truth = result.frame.truth.location
        apart = None if truth is None else float(geo.distance_m(*truth, *location))
        testimonies.setdefault(result.frame.index, []).append(
            WitnessStatement(
                f"best place ({label})", "best-place", location, apart, _TOP_FRAMES * width_m, None,
                result.estimate.heading_deg, run.id,
            )
        )  # fmt: skip


def _add_fixes(
    stored: Mapping[int, FrameFix],
    camera: Camera,
    name: str,
    kind: WitnessKind,
    flight: Flight,
    by_index: Mapping[int, Frame],
    fix_rows: dict[int, list[ConfidentFix]],
    run: int | None = None,
) -> None:
    legs = camera.boresights_by_path([frame.relative_path for frame in flight.frames])
    for index, fix in stored.items():
        pose, conditions, frame = fix.pose, fix.conditions, by_index.get(index)
        if pose is None or conditions is None or frame is None or pose.probability < CONFIDENT:
            continue
        distance, tolerance = None, RIGHT_WITH_LEVER * conditions.footprint_m
        if frame.truth.location is not None:
            sight = ground_truth(frame.truth, conditions, camera, legs.get(frame.relative_path))
            offset, _, tolerance = held_against_truth(frame.truth, pose, conditions, sight, flight.truth_sd_m)
            distance = float(np.hypot(*offset))
        testimony = WitnessStatement(
            name, kind, pose.position, distance, tolerance, pose.probability, pose.heading_deg, run
        )
        fix_rows.setdefault(index, []).append(ConfidentFix(testimony, fix, camera))


def _of_track(
    name: str, estimate: TrackEstimate, frame: Frame, flight: Flight, widths: Mapping[int, float]
) -> WitnessStatement | None:
    """None where the track claims no place. Its tolerance is the tilt's lever, where the aircraft's own place is
    unknown, and its ellipse."""
    location, covariance = estimate.position, estimate.position_covariance_m2
    if not estimate.claimed or location is None or covariance is None:
        return None
    lever_m = 0.0 if estimate.aircraft else RIGHT_WITH_LEVER * widths.get(frame.index, widths.get(-1, 400.0))
    reach_m = ellipse(covariance, 0.999).major_m
    tolerance = math.sqrt(lever_m**2 + reach_m**2 + TRUTH_CHI2 * flight.truth_sd_m**2)
    truth = frame.truth.location
    apart = None if truth is None else float(geo.distance_m(*truth, *location))
    return WitnessStatement(name, "track", location, apart, tolerance, estimate.probability, estimate.heading_deg)


def _distinct_tracks(tracks: Sequence[StoredLocalization]) -> list[StoredLocalization]:
    """Of the causal and the smoothed track of the same evidence the smoothed one: they are no two witnesses."""
    by_question = {
        (stored.reference_set, stored.evidence): stored
        for stored in sorted(tracks, key=lambda stored: stored.method == TRACK_SMOOTHED)
    }
    return list(by_question.values())


def _widths(fix_rows: Mapping[int, Sequence[ConfidentFix]]) -> dict[int, float]:
    """{frame index: its width on the ground}, the median under -1."""
    widths = {
        index: rows[0].fix.conditions.footprint_m
        for index, rows in fix_rows.items()
        if rows[0].fix.conditions is not None
    }
    return {**widths, -1: float(np.median(list(widths.values())))} if widths else {}


def _best(rows: Sequence[ConfidentFix]) -> ConfidentFix:
    return max(rows, key=lambda row: row.testimony.probability or 0.0)


def _beside(flight: Flight, best_fixes: Mapping[int, ConfidentFix]) -> dict[int, list[WitnessStatement]]:
    """Where the fixes of the frames beside each one would have it: between them, or not far from the nearest."""
    fixed = [(n, best_fixes[f.index].testimony) for n, f in enumerate(flight.frames) if f.index in best_fixes]
    if len(fixed) < 2:
        return {}
    steps_m = [
        float(geo.distance_m(*a.location, *b.location)) / (after - before)
        for (before, a), (after, b) in pairwise(fixed)
    ]
    step_m, rows = float(np.median(steps_m)), {}
    for number, frame in enumerate(flight.frames):
        before = next(((n, t) for n, t in reversed(fixed) if 0 < number - n <= _BESIDE), None)
        after = next(((n, t) for n, t in fixed if 0 < n - number <= _BESIDE), None)
        if before is None and after is None:
            continue
        (low, a), (high, b) = before or after or fixed[0], after or before or fixed[0]
        share = (number - low) / (high - low) if high > low else 0.0
        location = LonLat(
            *(start + share * (end - start) for start, end in zip(a.location, b.location, strict=True))
        )  # never across the antimeridian: frames are metres apart, and it only supports
        gap = (high - low) / 2 if high > low else 1.5 * abs(number - low)
        tolerance = math.hypot(a.tolerance_m, step_m * gap)
        truth = frame.truth.location
        apart = None if truth is None else float(geo.distance_m(*truth, *location))
        rows[frame.index] = [WitnessStatement("fixes of frames beside it", "beside", location, apart, tolerance, None)]
    return rows


def _coverage(session: Session, newest: Sequence[StoredRun], flight: Flight) -> tuple[int, float | None]:
    """(labels where none of the runs' references shows the ground, the median metres from these to the nearest)."""
    if not newest:
        return 0, None
    places = np.concatenate([snapshots.search_map(session, key) for key in {run.search_map for run in newest}])
    overlap = metrics.map_overlap(flight.frames, places)
    return overlap.off_map, overlap.nearest_m


# --- a frame's verdict ------------------------------------------------------------------------------


def _checked(frame: Frame, testimonies: Sequence[WitnessStatement], alike: str | None) -> CheckedFrame:
    """alike: what this frame's label has in common with those of other frames, if it is off as they are."""
    deciding = [testimony for testimony in testimonies if testimony.decides]
    heading = next((t.heading_deg for t in deciding if t.heading_deg is not None), None)
    yaw = frame.truth.yaw_deg
    off = None if heading is None or yaw is None else float(geo.signed_difference_deg(yaw, heading))
    verdict, reason, proposal = _verdict(frame, deciding, testimonies, alike)
    return CheckedFrame(frame, verdict, reason, tuple(testimonies), proposal, off)


def _verdict(
    frame: Frame, deciding: Sequence[WitnessStatement], testimonies: Sequence[WitnessStatement], alike: str | None
) -> tuple[LabelVerdict, str, LonLat | None]:
    if frame.truth.location is None:
        return "cannot say", "it has no label", None
    if not deciding:
        return "cannot say", "no confident fix and no track tells where it is", None
    agreeing = [testimony for testimony in deciding if testimony.agrees]
    against = [testimony for testimony in deciding if not testimony.agrees]
    if agreeing and against:
        return "cannot say", f"{agreeing[0].witness} agrees, {against[0].witness} does not", None
    if agreeing:
        return "not contradicted", f"{agreeing[0].witness}, {agreeing[0].distance_m:.0f} m", None
    main = max(against, key=lambda testimony: testimony.probability or 0.0)
    support = [alike] if alike else []
    support += [
        other.witness
        for other in testimonies
        if other is not main
        and not other.agrees
        and (other.decides or other.run is None or other.run != main.run)
        and geo.distance_m(*main.location, *other.location) <= math.hypot(main.tolerance_m, other.tolerance_m)
    ]
    if not support:
        return "cannot say", f"{main.witness} alone puts it {main.distance_m:,.0f} m away", None
    reason = f"{main.witness} puts it {main.distance_m:,.0f} m away; so does {', '.join(support)}"
    return "contradicted", reason, main.location


# --- the flight as a whole --------------------------------------------------------------------------


def _legs(
    flight: Flight, best_fixes: Mapping[int, ConfidentFix]
) -> tuple[tuple[LegOffset, ...], tuple[float, float] | None]:
    """(offsets leg by leg, by the boresight's estimator; the map's shift)."""
    sights: list[Sight] = []
    beyond: dict[int, Offset] = {}
    knows_height = False
    for frame in flight.frames:
        row = best_fixes.get(frame.index)
        if row is None:
            continue
        tangent = row.camera.half_fov_tan
        knows_height = tangent is not None
        sight = sight_of(frame, row.fix, row.camera, tangent or 0.5)  # without it angles mean nothing, offsets do
        if sight is not None and frame.truth.location is not None:
            sights.append(sight)
            beyond[frame.index] = geo.offset_m(frame.truth.location, row.testimony.location)
    if len(sights) < LEG_FRAMES:
        return (), None
    estimate = estimate_boresight(sights)
    legs = [
        _leg([sight for sight in sights if leg.first <= sight.index <= leg.last], beyond, leg, knows_height)
        for leg in estimate.legs
    ]
    return tuple(legs), estimate.shift_m if knows_height else None


def _alike(
    flight: Flight,
    best_fixes: Mapping[int, ConfidentFix],
    legs: Sequence[LegOffset],
    explained: Sequence[Explanation],
) -> dict[int, str]:
    """{frame index: what its label is off by as those of other frames are}: those of its leg, or all by one
    explanation."""
    texts: dict[int, str] = {}
    accepted = next((explanation for explanation in explained if explanation.accepted), None)
    labelled = [frame for frame in flight.frames if frame.truth.location is not None]
    for number, frame in enumerate(labelled):
        row = best_fixes.get(frame.index)
        if row is None:
            continue
        testimony = row.testimony
        leg = next((leg for leg in legs if leg.first <= frame.index <= leg.last), None)
        if leg and leg.constant and math.hypot(leg.east_m, leg.north_m) > testimony.tolerance_m:
            texts[frame.index] = f"the offset of its leg ({leg.frames} frames)"
        if accepted and _apart_m(accepted.labels[number], testimony.location) <= testimony.tolerance_m:
            texts[frame.index] = f"what explains all labels ({accepted.name})"
    return texts


def _apart_m(label: Floats, location: LonLat) -> float:
    return float(geo.distance_m(label[0], label[1], *location))


def _leg(sights: Sequence[Sight], beyond: Mapping[int, Offset], leg: LegBoresight, knows_height: bool) -> LegOffset:
    offsets = np.array([beyond[sight.index] for sight in sights])
    east, north = np.median(offsets, axis=0).tolist()
    heading = math.radians(leg.heading_deg)
    scatter = 1.4826 * float(np.median(np.abs(offsets - [east, north])))
    sd_m = scatter * math.sqrt(math.pi / 2 / len(sights))
    size = math.hypot(east, north)
    return LegOffset(
        leg.first,
        leg.last,
        len(sights),
        leg.heading_deg,
        east,
        north,
        east * math.cos(heading) - north * math.sin(heading),
        east * math.sin(heading) + north * math.cos(heading),
        sd_m,
        size > max(_OFFSET_SIGMAS * sd_m, _OFFSET_M),
        leg if knows_height else None,
    )


def _witnessed(flight: Flight, best_fixes: Mapping[int, ConfidentFix]) -> WitnessedFlight:
    labelled = [frame for frame in flight.frames if frame.truth.location is not None]
    rows = [(number, row) for number, frame in enumerate(labelled) if (row := best_fixes.get(frame.index))]
    elapsed = flight.clock.elapsed_s([frame.time for frame in labelled], [frame.index for frame in labelled])
    return WitnessedFlight(
        np.array([frame.truth.location for frame in labelled], np.float64).reshape(-1, 2),
        None if elapsed is None else np.array(elapsed),
        [number for number, _ in rows],
        np.array([row.testimony.location for _, row in rows], np.float64).reshape(-1, 2),
        np.array([row.testimony.heading_deg for _, row in rows], np.float64),
        np.array([row.testimony.tolerance_m for _, row in rows], np.float64),
    )


def _circular_median(degrees: Sequence[float]) -> float:
    """The one of these angles that the others lie nearest to."""
    return min(degrees, key=lambda angle: float(np.abs(geo.signed_difference_deg(angle, degrees)).sum()))


# --- what a user corrects with ----------------------------------------------------------------------

COLUMNS = (
    "filename", "frame_index", "verdict", "latitude", "longitude", "yaw", "pitch", "roll", "altitude", "proposed_by",
    "label_latitude", "label_longitude", "off_m", "heading_off_deg", "reason",
)  # fmt: skip


def to_csv(check: TruthCheck) -> str:
    """A table that `--labels` reads, a row a frame: the label's position, or where the imagery or the explanation that
    holds puts the frame; `proposed_by` says which."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_csv_rows(check))
    return text.getvalue()


def _csv_rows(check: TruthCheck) -> Iterator[list[object]]:
    accepted = check.accepted
    undone = {}
    if accepted:
        labelled = [checked.frame.index for checked in check.frames if checked.frame.truth.location is not None]
        undone = dict(zip(labelled, accepted[0].labels.tolist(), strict=True))
    for checked in check.frames:
        truth = checked.frame.truth
        position, origin = truth.location, "label"
        if checked.proposal is not None:
            position, origin = checked.proposal, "imagery"
        elif checked.frame.index in undone and checked.verdict != "not contradicted":
            position, origin = LonLat(*undone[checked.frame.index]), accepted[0].name
        main = next((t for t in checked.testimonies if t.decides), None)
        yield [
            checked.frame.relative_path,
            checked.frame.index,
            checked.verdict,
            "" if position is None else f"{position.lat:.8f}",
            "" if position is None else f"{position.lon:.8f}",
            *("" if value is None else f"{value:.4f}" for value in (truth.yaw_deg, truth.pitch_deg, truth.roll_deg)),
            "" if truth.altitude_label_m is None else f"{truth.altitude_label_m:.2f}",
            "" if position is None else origin,
            "" if truth.location is None else f"{truth.location.lat:.8f}",
            "" if truth.location is None else f"{truth.location.lon:.8f}",
            "" if main is None or main.distance_m is None else f"{main.distance_m:.1f}",
            "" if checked.heading_off_deg is None else f"{checked.heading_off_deg:.1f}",
            checked.reason,
        ]
