"""A track as shapes for its page: a sketch of the ground, and lanes over one time axis. Pure; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Floats, LonLat, T
from web.pages.tracks import FrameOnTrack, TrackPoint, TrackView

SKETCH = 520.0  # the longer side, in drawing units
MARGIN = 28.0
MOST_ELLIPSES = 40
MOST_RINGS = 160
LEFT, RIGHT, WIDTH = 124.0, 14.0, 1200.0  # of the lanes
LANES_TOP = 24.0
LANE_GAP = 16.0
COLUMN = 2.0  # drawing units of a lane, in which a curve keeps its highest and its lowest value
TOLERANCE = 0.3  # drawing units that a line of the sketch may lie off a place
_LEAST_M = {"jump": 1.0, "error": 0.01}  # where a log axis may begin


@dataclass(frozen=True, slots=True)
class EllipseShape:
    x: float
    y: float
    rx: float
    ry: float
    turn_deg: float  # of the longer axis, from east, clockwise


@dataclass(frozen=True, slots=True)
class NumberedMark:
    """A gap's number, at the last place before it or over its band."""

    number: int
    x: float
    y: float
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class TrackSketch:
    """North up, in drawing units. Lines are SVG path data with a new subpath after each gap; "" for none."""

    width: float
    height: float
    causal: str
    smoothed: str
    truth: str
    ellipses: tuple[EllipseShape, ...]
    rings: tuple[EllipseShape, ...]  # alternatives, larger where likelier
    gaps: tuple[NumberedMark, ...]
    start: tuple[float, float] | None
    scale_m: float
    scale_width: float


@dataclass(frozen=True, slots=True)
class AxisTick:
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class StateBand:
    state: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class TrackLane:
    """A value of each frame over the axis; `bars` where it is drawn from the floor up."""

    name: str
    top: float
    height: float
    ticks: tuple[AxisTick, ...] = ()
    causal: str = ""
    smoothed: str = ""
    bars: str = ""
    causal_bands: tuple[StateBand, ...] = ()
    smoothed_bands: tuple[StateBand, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackLanes:
    width: float
    height: float
    left: float
    right: float  # where the axis ends
    bottom: float  # of the lowest lane
    by_time: bool
    ticks: tuple[AxisTick, ...]
    lanes: tuple[TrackLane, ...]
    gaps: tuple[NumberedMark, ...]


# --- the sketch -----------------------------------------------------------------------------------


def track_sketch(track: TrackView) -> TrackSketch | None:
    """The ground that truth and track cover; where no frame is placed, its alternatives. None where nothing lies."""
    causal = [frame.causal for frame in track.frames]
    smoothed = [frame.smoothed for frame in track.frames if frame.smoothed]
    placed = [place for point in (*causal, *smoothed) if (place := _place(point))]
    placed += [LonLat(frame.truth.lon, frame.truth.lat) for frame in track.frames if frame.truth]
    others = [(LonLat(ring.lon, ring.lat), ring.probability) for point in causal for ring in point.info.alternatives]
    if not (corners := placed or [place for place, _ in others]):
        return None
    lons, lats = zip(*corners, strict=True)
    box = geo.bounds(lons, lats)
    origin, (east_m, north_m) = geo.box_center(box), geo.box_size_m(box)
    longest_m = max(east_m, north_m, 50.0)
    per_m = (SKETCH - 2 * MARGIN) / longest_m
    width = max(east_m * per_m, SKETCH / 3) + 2 * MARGIN
    height = max(north_m * per_m, SKETCH / 3) + 2 * MARGIN

    def xy(place: LonLat) -> tuple[float, float]:
        east, north = geo.offset_m(origin, place)
        return width / 2 + east * per_m, height / 2 - north * per_m

    scale_m = _round_length(longest_m / 4)
    first = next(filter(None, map(_place, causal)), None)
    return TrackSketch(
        width=width,
        height=height,
        causal=_line(causal, xy),
        smoothed=_line(smoothed, xy),
        truth=_truth_line(track.frames, xy),
        ellipses=tuple(_ellipses(smoothed or causal, xy, per_m)),
        rings=tuple(
            EllipseShape(*xy(place), radius, radius, 0.0)
            for place, probability in _thinned(others, MOST_RINGS)
            if (radius := 3.0 + 9.0 * math.sqrt(probability))
        ),
        gaps=tuple(_gap_places(track, xy)),
        start=xy(first) if first else None,
        scale_m=scale_m,
        scale_width=scale_m * per_m,
    )


def _place(point: TrackPoint) -> LonLat | None:
    location = point.info.location
    return LonLat(location.lon, location.lat) if location else None


def _line(points: Sequence[TrackPoint], xy: Callable[[LonLat], tuple[float, float]]) -> str:
    """Path data with a subpath for each unbroken run."""
    runs: list[list[tuple[float, float]]] = []
    for before, point in zip([None, *points], points, strict=False):
        if place := _place(point):
            if not (point.continues and before is not None and _place(before)):
                runs.append([])
            runs[-1].append(xy(place))
    return "".join(map(_subpath, map(_simplified, runs)))


def _truth_line(frames: Sequence[FrameOnTrack], xy: Callable[[LonLat], tuple[float, float]]) -> str:
    parts = []
    for has_truth, run in groupby(frames, key=lambda frame: frame.truth is not None):
        if has_truth:
            places = [xy(LonLat(frame.truth.lon, frame.truth.lat)) for frame in run if frame.truth]
            parts.append(_subpath(_simplified(places)))
    return "".join(parts)


def _simplified(places: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Without the places that a straight line between others passes within `TOLERANCE`; ends stay (D. Douglas,
    T. Peucker, Cartographica 10, 1973)."""
    xy = np.array(places)
    chosen, spans = {0, len(xy) - 1}, [(0, len(xy) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        along, beside = xy[last] - xy[first], xy[first + 1 : last] - xy[first]
        share = np.clip(beside @ along / max(along @ along, 1e-12), 0.0, 1.0)
        off = np.hypot(*(beside - share[:, None] * along).T)
        farthest = int(off.argmax())
        if off[farthest] > TOLERANCE:
            middle = first + 1 + farthest
            chosen.add(middle)
            spans += [(first, middle), (middle, last)]
    return [places[number] for number in sorted(chosen)]


def _ellipses(
    points: Sequence[TrackPoint], xy: Callable[[LonLat], tuple[float, float]], per_m: float
) -> Iterator[EllipseShape]:
    for point in _thinned([point for point in points if point.info.location], MOST_ELLIPSES):
        location, place = point.info.location, _place(point)
        if location and place:
            shape = location.ellipse_95
            yield EllipseShape(*xy(place), shape.major_m * per_m, shape.minor_m * per_m, shape.azimuth_deg - 90.0)


def _gap_places(track: TrackView, xy: Callable[[LonLat], tuple[float, float]]) -> Iterator[NumberedMark]:
    """Each gap's number, where the track was before it."""
    order = {frame.index: number for number, frame in enumerate(track.frames)}
    for number, gap in enumerate(track.gaps, start=1):
        before = order[gap.start_index] - 1
        if before >= 0 and (place := _place(track.frames[before].causal)):
            yield NumberedMark(number, *xy(place))


def _thinned(rows: Sequence[T], most: int) -> Sequence[T]:
    return rows[:: max(1, math.ceil(len(rows) / most))]


def _round_length(metres: float) -> float:
    """1, 2 or 5 times a power of ten, the nearest below."""
    power = 10.0 ** math.floor(math.log10(metres))
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= metres)


# --- the lanes ------------------------------------------------------------------------------------


def track_lanes(track: TrackView) -> TrackLanes:
    """State, probabilities, Top-1's jumps and errors over the flight's time, or over its frames where none is known."""
    frames = track.frames
    by_time = len(frames) > 1 and all(frame.elapsed_s is not None for frame in frames)
    at, edges = _axis(np.array([frame.elapsed_s if by_time else frame.index for frame in frames], np.float64))
    per = (WIDTH - LEFT - RIGHT) / (edges[-1] - edges[0])
    xs = (LEFT + (at - edges[0]) * per).tolist()
    borders = (LEFT + (edges - edges[0]) * per).tolist()

    lanes = [_state_lane(frames, borders)]
    top = LANES_TOP + lanes[0].height + LANE_GAP
    shares = [("probability", 46.0), ("p_off_map", 30.0), ("p_blind", 30.0)]
    for name, height in shares:
        lanes.append(_share_lane(name, frames, xs, top, height))
        top += height + LANE_GAP
    jumps = [frame.top1_jump_m for frame in frames]
    causal = [frame.causal.errors.track_m if frame.causal.errors else None for frame in frames]
    smoothed = [frame.smoothed.errors.track_m if frame.smoothed and frame.smoothed.errors else None for frame in frames]
    for name, values in (("jump", [jumps]), ("error", [causal, smoothed])):
        if any(value is not None for series in values for value in series):
            lanes.append(_log_lane(name, values, xs, top, 70.0))
            top += 70.0 + LANE_GAP
    bottom = top - LANE_GAP
    order = {frame.index: number for number, frame in enumerate(frames)}
    return TrackLanes(
        width=WIDTH,
        height=bottom + 40.0,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=bottom,
        by_time=by_time,
        ticks=tuple(
            AxisTick(LEFT + (value - edges[0]) * per, _time_text(value) if by_time else f"{value:.0f}")
            for value in _steps(float(at[0]), float(at[-1]), by_time)
        ),
        lanes=tuple(lanes),
        gaps=tuple(
            NumberedMark(number, start, LANES_TOP, borders[order[gap.end_index] + 1] - start)
            for number, gap in enumerate(track.gaps, start=1)
            for start in (borders[order[gap.start_index]],)
        ),
    )


def _axis(values: Floats) -> tuple[Floats, Floats]:
    """(frames' values [N], borders [N + 1]: halfway between neighbours, and as far beyond the first and the last).
    Values that do not rise are no axis: the frames are counted from the first one's."""
    if len(values) > 1 and np.all(np.diff(values) > 0):
        middles = (values[1:] + values[:-1]) / 2
        return values, np.concatenate([[2 * values[0] - middles[0]], middles, [2 * values[-1] - middles[-1]]])
    counted = values[0] + np.arange(len(values))
    return counted, np.append(counted - 0.5, counted[-1] + 0.5)


def _state_lane(frames: Sequence[FrameOnTrack], borders: Sequence[float]) -> TrackLane:
    return TrackLane(
        "state",
        LANES_TOP,
        40.0,
        causal_bands=tuple(_bands([frame.causal.info.state for frame in frames], borders)),
        smoothed_bands=tuple(_bands([frame.smoothed.info.state for frame in frames if frame.smoothed], borders)),
    )


def _bands(states: Sequence[str], borders: Sequence[float]) -> Iterator[StateBand]:
    start = 0
    for state, run in groupby(states):
        end = start + len(list(run))
        yield StateBand(state, borders[start], borders[end] - borders[start])
        start = end


def _share_lane(name: str, frames: Sequence[FrameOnTrack], xs: Sequence[float], top: float, height: float) -> TrackLane:
    def series(values: Sequence[float | None]) -> str:
        return _curve(xs, [None if value is None else top + height * (1.0 - value) for value in values])

    return TrackLane(
        name,
        top,
        height,
        ticks=(AxisTick(top, "1"), AxisTick(top + height, "0")),
        causal=series([getattr(frame.causal.info, name) for frame in frames]),
        smoothed=series([getattr(frame.smoothed.info, name) if frame.smoothed else None for frame in frames]),
    )


def _log_lane(
    name: str, series: Sequence[Sequence[float | None]], xs: Sequence[float], top: float, height: float
) -> TrackLane:
    """Metres on a log axis of whole decades; what is nearer than its floor lies on the floor. Jumps are bars."""
    logs = [
        [None if value is None else math.log10(max(value, _LEAST_M[name])) for value in values] for values in series
    ]
    finite = [value for values in logs for value in values if value is not None]
    low = math.floor(min(finite))
    high = max(math.ceil(max(finite)), low + 1)

    def y(log: float) -> float:
        return top + height * (1.0 - (log - low) / (high - low))

    rows = [[None if log is None else y(log) for log in values] for values in logs]
    step = math.ceil((high - low) / 4)
    ticks = tuple(AxisTick(y(power), f"{10.0**power:,g} m") for power in range(low, high + 1, step))
    if name == "jump":
        floor = f"{top + height:.1f}"
        levels = [(x, level) for x, level in zip(xs, rows[0], strict=True) if level is not None]
        highest = [min(column, key=lambda point: point[1]) for column in _columns(levels)]
        bars = [f"M{x:.1f} {floor}V{level:.1f}" for x, level in highest]
        return TrackLane(name, top, height, ticks, bars="".join(bars))
    return TrackLane(name, top, height, ticks, causal=_curve(xs, rows[0]), smoothed=_curve(xs, rows[1]))


def _curve(xs: Sequence[float], ys: Sequence[float | None]) -> str:
    """Path data, broken where a value is missing. Of values nearer to each other than can be seen the highest and the
    lowest are drawn; each run begins and ends where its values do."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True)]
    parts = []
    for has_value, values in groupby(points, key=lambda point: point[1] is not None):
        if has_value:
            run = [(x, y) for x, y in values if y is not None]
            extremes = {
                point
                for column in _columns(run)
                for point in (min(column, key=lambda point: point[1]), max(column, key=lambda point: point[1]))
            }
            parts.append(_subpath(_without_level(sorted(extremes | {run[0], run[-1]}))))
    return "".join(parts)


def _columns(points: Iterable[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Points that lie in one column of the lanes, of points by rising x."""
    for _, column in groupby(points, key=lambda point: math.floor(point[0] / COLUMN)):
        yield list(column)


def _without_level(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without points between two of their own height."""
    levels = [round(y, 1) for _, y in points]
    ends = {0, len(points) - 1}
    return [
        point
        for number, point in enumerate(points)
        if number in ends or not levels[number - 1] == levels[number] == levels[number + 1]
    ]


def _subpath(points: Sequence[tuple[float, float]]) -> str:
    """Path data of one line; of one point a line of no length, which a round cap draws as a dot."""
    texts = [f"{x:.1f} {y:.1f}" for x, y in points]
    return "M" + "L".join(texts) + ("h0" if len(texts) == 1 else "")


def _steps(first: float, last: float, by_time: bool) -> list[float]:
    """About eight round values from the first to the last."""
    sizes = (
        [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 86400]
        if by_time
        else [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
    )
    size = next((size for size in sizes if (last - first) / size <= 10), sizes[-1])
    start = math.ceil(first / size)
    return [number * float(size) for number in range(start, math.floor(last / size) + 1)]


def _time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
