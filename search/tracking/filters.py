"""The three filters of a flight's frames, as one interface: by fixes, by ranks, and by both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from coarseloc.core.tracks import TrackEstimate
from coarseloc.localize.tracking.motion import registers
from coarseloc.localize.tracking.rank_track import RankedFrame, RankStep, searched_places, smoothed_ranks, track_ranks
from coarseloc.localize.tracking.smoothing import smoothed
from coarseloc.localize.tracking.tracker import DEFAULTS, CausalStep, LocalPlane, TrackedFrame, track
from search.tracking.cascade import Cascade
from search.tracking.frames import Ground, RecordedEvidence
from search.tracking.grounds import RunGround
from search.tracking.ranks import RunRanks

Frames = Iterable[tuple[TrackedFrame, RecordedEvidence]]


@dataclass(frozen=True, slots=True)
class TrackFilter:
    """One flight in a filter. `estimates`: causal, to be drawn frame by frame; `smooth`: all, once these are drawn."""

    estimates: Iterator[tuple[TrackEstimate, RecordedEvidence]]
    smooth: Callable[[], list[TrackEstimate]]


def by_fixes(frames: Frames, ground: Ground, *, online: bool) -> TrackFilter:
    """Each frame registered where it is expected: metres."""
    settings = replace(DEFAULTS, map_sd_m=ground.map_sd_m, keeps_lineage=not online)
    steps: list[CausalStep] = []

    def estimates() -> Iterator[tuple[TrackEstimate, RecordedEvidence]]:
        source = _Split(frames)
        for step in track(source, ground.plane, settings):
            if not online:
                steps.append(step)
            yield step.estimate, source.evidence

    return TrackFilter(estimates(), lambda: smoothed(steps, ground.plane, settings))


def by_ranks(
    frames: Frames, ranks: RunRanks, plane: LocalPlane, *, online: bool, cascade: Cascade | None = None
) -> TrackFilter:
    """The order of each frame's hits and its motion alone: a stride's accuracy, and no imagery of the map.

    cascade: of a larger backbone than the ranks are of, for frames that follow one whose place is not sure.
    """
    settings = replace(ranks.settings, keeps_mass=not online)
    steps: list[RankStep] = []

    def estimates() -> Iterator[tuple[TrackEstimate, RecordedEvidence]]:
        source = _Split(frames)
        before: TrackEstimate | None = None

        def ranked_frames() -> Iterator[RankedFrame]:
            for number, frame in enumerate(source):
                _escalate(number, frame, source.evidence, before, cascade)
                yield _ranked(frame, ranks, source.evidence)

        for step in track_ranks(ranked_frames(), ranks.grid, plane, settings):
            if not online:
                steps.append(step)
            before = step.estimate
            yield step.estimate, source.evidence

    return TrackFilter(estimates(), lambda: smoothed_ranks(steps, ranks.grid, plane, settings))


def by_both(
    frames: Frames, ranks: RunRanks, ground: RunGround, *, online: bool, cascade: Cascade | None = None
) -> TrackFilter:
    """By fixes; where a frame is looked for anew, that is among the places of its hits and of the rank filter.

    cascade: see `by_ranks`; it is the track by fixes that is sure or not.
    """
    before: TrackEstimate | None = None

    def with_places() -> Iterator[tuple[TrackedFrame, RecordedEvidence]]:
        source = _Split(frames)
        settings = replace(ranks.settings, keeps_mass=False)
        ranked: list[RankedFrame] = []
        steps = track_ranks(_drained(ranked), ranks.grid, ground.plane, settings)
        for number, frame in enumerate(source):
            _escalate(number, frame, source.evidence, before, cascade)
            ranked.append(_ranked(frame, ranks, source.evidence))
            step = next(steps)
            ground.look_at(frame.index, searched_places(step.estimate, step.frame, ground.plane))
            yield frame, source.evidence

    fixed = by_fixes(with_places(), ground, online=online)

    def estimates() -> Iterator[tuple[TrackEstimate, RecordedEvidence]]:
        nonlocal before
        for estimate, evidence in fixed.estimates:
            before = estimate
            yield estimate, evidence

    return TrackFilter(estimates(), fixed.smooth)


class _Split:
    """Frames alone, the evidence of the latest one beside them."""

    def __init__(self, frames: Frames) -> None:
        self._frames = iter(frames)
        self.evidence = RecordedEvidence()

    def __iter__(self) -> Iterator[TrackedFrame]:
        for frame, evidence in self._frames:
            self.evidence = evidence
            yield frame


def _drained(frames: list[RankedFrame]) -> Iterator[RankedFrame]:
    """Each frame that is put in, as it is."""
    while frames:
        yield frames.pop()


def _escalate(
    number: int,
    frame: TrackedFrame,
    evidence: RecordedEvidence,
    before: TrackEstimate | None,
    cascade: Cascade | None,
) -> None:
    """The larger backbone's answer into a frame's record, where it is needed and not there. number: from 0, of the
    track's frames; one that does not register is no evidence by any backbone."""
    is_evidence = registers(frame.motion, frame.motion_source, is_first=number == 0)
    if cascade is not None and is_evidence and evidence.larger is None and cascade.escalates(before):
        evidence.larger = cascade.answer(frame.index)


def _ranked(frame: TrackedFrame, ranks: RunRanks, evidence: RecordedEvidence) -> RankedFrame:
    hits = ranks.hits.get(frame.index, ())
    if evidence.larger is not None and evidence.larger.hits is not None:
        hits = (*hits, evidence.larger.hits)
    return RankedFrame(
        frame.index, frame.footprint_m, hits, frame.motion, frame.motion_source, frame.time_s, frame.heading_deg,
        length_bounds_m=frame.length_bounds_m,
    )  # fmt: skip
