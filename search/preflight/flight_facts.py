"""A flight before a search: what its files' metadata and labels say, and whether it fits a map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.camera import REFERENCE_FOOTPRINT
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.types import Flight, Floats
from coarseloc.imagery.decode import picture_size, read_image
from coarseloc.localize.metrics import MapOverlap
from search.preflight.findings import Finding, Level, duration_text
from search.preflight.map_facts import SourceFacts

_SAMPLE_FRAMES = 5
WIDTHS_APART = 1.5  # of a frame's width on the ground and a tile's: more looks like another altitude


@dataclass(frozen=True, slots=True)
class FlownFacts:
    """A flight before a frame is embedded."""

    flight_id: str
    path: str
    frames: int
    picture_px: tuple[int, int] | None
    truth_source: str
    known: int  # positions
    yaws: int
    altitudes: int  # above ground
    time_source: str | None
    span_s: float | None
    interval_s: float | None  # median
    footprint_m: float | None
    footprint_source: str | None
    route: Floats  # [known, 2], lon and lat


def flight_facts(flight: Flight, reference_footprint_m: float | None) -> FlownFacts:
    """Describe a flight from its files' metadata and labels."""
    frames = flight.frames
    located = [frame.truth.location for frame in frames if frame.truth.location]
    elapsed = flight.clock.elapsed_s([frame.time for frame in frames], [frame.index for frame in frames])
    steps = np.diff(elapsed) if elapsed and len(elapsed) > 1 else None
    widths = []
    for frame in frames:
        try:
            widths.append(flight.camera.footprint(frame.filename, frame.truth.above_ground_m, reference_footprint_m))
        except InputError:
            break
    return FlownFacts(
        flight_id=flight.flight_id,
        path=str(flight.path),
        frames=len(frames),
        picture_px=picture_size(frames[0].path) if frames else None,
        truth_source=flight.truth_source,
        known=len(located),
        yaws=sum(frame.truth.yaw_deg is not None for frame in frames),
        altitudes=sum(frame.truth.above_ground_m is not None for frame in frames),
        time_source=flight.clock.source,
        span_s=elapsed[-1] - elapsed[0] if elapsed else None,
        interval_s=None if steps is None else float(np.median(steps)),
        footprint_m=float(np.median([width.metres for width in widths])) if widths else None,
        footprint_source=widths[0].source if widths else None,
        route=np.array(located, np.float64).reshape(-1, 2),
    )


def flight_findings(facts: FlownFacts, source: SourceFacts | None) -> Iterator[Finding]:
    """What a flight's metadata says, and how its frames' width fits a map's tiles."""
    px = "?" if facts.picture_px is None else f"{facts.picture_px[0]} x {facts.picture_px[1]}"
    yield Finding(
        "flight", "ok", "frames",
        {"flight": facts.flight_id, "n": facts.frames, "px": px, "truth": facts.truth_source, "known": facts.known},
    )  # fmt: skip
    if not facts.known:
        yield Finding("overlap", "doubtful", "no-positions", {"flight": facts.flight_id})
    if facts.span_s is None:
        yield Finding("flight", "ok", "no-time")
    else:
        step = "?" if facts.interval_s is None else f"{facts.interval_s:.3g} s"
        yield Finding(
            "flight",
            "ok",
            "time",
            {"span": duration_text(facts.span_s), "step": step, "source": facts.time_source or "?"},
        )
    if facts.yaws:
        yield Finding("flight", "ok", "yaw", {"n": facts.yaws, "total": facts.frames})
    else:
        yield Finding("flight", "ok", "no-yaw")
    if source is not None:
        yield from _width_findings(facts, source)


def _width_findings(facts: FlownFacts, source: SourceFacts) -> Iterator[Finding]:
    if facts.footprint_m is None:
        return
    apart = abs(math.log(facts.footprint_m / source.footprint_m)) > math.log(WIDTHS_APART)
    values = {
        "frame": f"{facts.footprint_m:.0f}",
        "tile": f"{source.footprint_m:.0f}",
        "source": facts.footprint_source,
    }
    if facts.footprint_source == REFERENCE_FOOTPRINT:
        yield Finding("overlap", "ok", "width-assumed", values)
        return
    yield Finding("overlap", "doubtful" if apart else "ok", "width-apart" if apart else "width", values)


def overlap_findings(overlap: MapOverlap) -> Iterator[Finding]:
    """Whether the map shows the flight's ground."""
    if not overlap.known:
        return
    if overlap.nearest_m is None:
        yield Finding("overlap", "ok", "on-map", {"n": overlap.known})
        return
    values = {"n": overlap.off_map, "known": overlap.known, "away": geo.distance_text(overlap.nearest_m)}
    wrong = overlap.share_off > 0.5
    yield Finding("overlap", "no" if wrong else "doubtful", "off-map" if wrong else "partly-off", values)


def frame_findings(flight: Flight) -> Iterator[Finding]:
    """Read a few frames."""
    rows = np.unique(np.linspace(0, len(flight.frames) - 1, _SAMPLE_FRAMES).astype(int))
    reasons = []
    for row in rows:
        try:
            read_image(flight.frames[row].path)
        except ImageryError as error:
            reasons.append(str(error))
    if reasons:
        level: Level = "no" if len(reasons) == len(rows) else "doubtful"
        yield Finding("flight", level, "unread", {"n": len(reasons), "sampled": len(rows), "reason": reasons[0]})
