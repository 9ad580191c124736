"""Where a track has no position, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from coarseloc.core.tracks import TrackEstimate

GapCause = Literal["unreadable", "no-motion", "off-map", "blind", "not-found", "ambiguous", "unsure"]


@dataclass(frozen=True, slots=True)
class TrackGap:
    """Frames in a row that a causal track does not place. cause: of the first of them, the likeliest."""

    start_index: int
    end_index: int  # the last one
    frames: int
    found_index: int | None  # the frame placed after it; None where none is
    acquiring: bool  # nothing was placed before
    cause: GapCause
    alternatives: int  # places where its first frame may be
    searches: int  # frames of it that were looked for on the map


def track_gaps(estimates: Sequence[TrackEstimate], evidence: Mapping[int, Mapping[str, Any]]) -> list[TrackGap]:
    """List a causal track's gaps in the flight's order.

    evidence: {frame index: what its estimate was made of, as stored}, of the frames without a position at least.
    """
    runs = [(claimed, list(run)) for claimed, run in groupby(estimates, key=lambda estimate: estimate.claimed)]
    gaps = []
    for number, (claimed, run) in enumerate(runs):
        if claimed:
            continue
        start = run[0]
        gaps.append(
            TrackGap(
                start_index=start.index,
                end_index=run[-1].index,
                frames=len(run),
                found_index=runs[number + 1][1][0].index if number + 1 < len(runs) else None,
                acquiring=start.state == "acquiring",
                cause=_cause(start, evidence.get(start.index, {}), is_first=start.index == estimates[0].index),
                alternatives=len(start.alternatives),
                searches=sum(estimate.searched is not None for estimate in run),
            )
        )
    return gaps


def _cause(estimate: TrackEstimate, evidence: Mapping[str, Any], *, is_first: bool) -> GapCause:
    if evidence.get("error"):
        return "unreadable"
    if not is_first and estimate.odometry == "frames" and evidence and evidence["motion"] is None:
        return "no-motion"
    if estimate.p_off_map >= 0.5:
        return "off-map"
    if estimate.p_blind >= 0.5:
        return "blind"
    if estimate.searched is not None and not estimate.measured and not estimate.alternatives:
        return "not-found"
    return "ambiguous" if len(estimate.alternatives) > 1 else "unsure"
