"""What would explain a flight's labels if they are wrong together: shifts, another time, exchanged axes. Pure.

Each explanation says where labels would put the frames if it were undone; it is held against where the imagery does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats, LonLat
from coarseloc.i18n import Translator

LEAST_FRAMES = 8  # with a witness: fewer explain nothing
_LEAST_M = 1.0  # of the labels' own median: less wants no explanation
_LEAST_GAIN = 3.0  # an explanation leaves a third of the labels' own median at most
_EXPLAINED = 0.8  # of the frames with a witness, within their tolerance
_TIED = 1.5  # of two medians: explanations nearer than this are not told apart
_MOST_SHIFT = 20  # frames
_SHIFT_STEPS = 10  # per frame


@dataclass(frozen=True, slots=True)
class WitnessedFlight:
    """F labelled frames in the flight's order, and where the imagery puts N of them."""

    label: Floats  # [F, 2], lon and lat
    elapsed_s: Floats | None  # [F], of the frames; None where times are unknown
    witnessed: Sequence[int]  # N numbers into the labels
    seen: Floats  # [N, 2], lon and lat
    heading_deg: Floats  # [N]
    tolerance_m: Floats  # [N]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Labels undone in one way, held against the imagery."""

    name: str  # a key of `SENTENCES`
    values: dict[str, float]  # of its sentence
    median_m: float  # left between labels and imagery
    share_within: float  # of frames, within their tolerance
    frames: int
    labels: Floats  # [F, 2], undone
    accepted: bool = False
    tied: bool = False  # with the one before it: the flight does not tell them apart

    def sentence(self, translate: Translator = str) -> str:
        """What it says of the labels."""
        return translate(SENTENCES[self.name]).format(**self.values)


SENTENCES = {
    "as-they-are": "labels as they are",
    "lat-lon": "latitude and longitude are exchanged",
    "lon-sign": "longitudes have the wrong sign (east for west)",
    "lat-sign": "latitudes have the wrong sign (north for south)",
    "east-north": "east and north are exchanged about the flight's middle",
    "east-mirrored": "east and west are mirrored about the flight's middle",
    "north-mirrored": "north and south are mirrored about the flight's middle",
    "reversed": "labels are in reverse order",
    "time": "labels come {frames:+.1f} frames late: each frame has the label of so many frames before it",
    "shift": "labels lie {east_m:+.0f} m east and {north_m:+.0f} m north of the imagery, all alike",
    "body-shift": "labels lie {right_m:+.0f} m to the right and {forward_m:+.0f} m ahead of the imagery, all alike",
}  # fmt: skip


def explanations(flight: WitnessedFlight) -> list[Explanation]:
    """Every explanation with the labels as they are first, then the best; those that hold are `accepted`.

    One holds where it puts 80 % of the frames within their tolerance and leaves a third of the labels' own distance at
    most; the simplest of those that do nearly alike well comes first, the others are `tied` with it. Empty where fewer
    than `LEAST_FRAMES` frames have a witness.
    """
    if len(flight.witnessed) < LEAST_FRAMES:
        return []
    candidates = [_held(flight, name, values, labels) for name, values, labels in _undone(flight)]
    own, rest = candidates[0], candidates[1:]
    holding = [
        c
        for c in rest
        if own.median_m >= _LEAST_M and c.share_within >= _EXPLAINED and c.median_m * _LEAST_GAIN <= own.median_m
    ]
    best_m = min((c.median_m for c in holding), default=0.0)
    simplest = [c for c in holding if c.median_m <= max(_TIED * best_m, 1.0)]
    accepted = [replace(c, accepted=True, tied=number > 0) for number, c in enumerate(simplest)]
    names = {c.name for c in accepted}
    return [own, *accepted, *sorted((c for c in rest if c.name not in names), key=lambda c: c.median_m)]


def _undone(flight: WitnessedFlight) -> Iterator[tuple[str, dict[str, float], Floats]]:
    """(name, values, labels undone), the simplest first."""
    lon, lat = flight.label.T
    yield "as-they-are", {}, flight.label
    whole: dict[str, Callable[[], tuple[Floats, Floats]]] = {
        "lat-lon": lambda: (lat, lon),
        "lon-sign": lambda: (-lon, lat),
        "lat-sign": lambda: (lon, -lat),
    }
    for name, undo in whole.items():
        undone = np.stack(undo(), axis=1)
        if (np.abs(undone[:, 1]) <= 90).all():
            yield name, {}, undone
    middle = LonLat(float(np.median(lon)), float(np.median(lat)))
    east, north = geo.local_metres(middle, *flight.label.T)
    turned = {"east-north": (north, east), "east-mirrored": (-east, north), "north-mirrored": (east, -north)}
    for name, (to_east, to_north) in turned.items():
        yield name, {}, _degrees(middle, to_east, to_north)
    yield "reversed", {}, flight.label[::-1]
    yield _best_time(flight, middle, east, north)
    beyond = _beyond_label(flight)
    shift = np.median(beyond, axis=0)
    yield (
        "shift",
        {"east_m": -float(shift[0]), "north_m": -float(shift[1])},
        _degrees(middle, east + shift[0], north + shift[1]),
    )
    yield _body_shift(flight, middle, beyond, east, north)


def _best_time(
    flight: WitnessedFlight, middle: LonLat, east: Floats, north: Floats
) -> tuple[str, dict[str, float], Floats]:
    """Labels of the moment along the flight that fits best, between labels by interpolation."""
    count = len(flight.label)
    frames = np.arange(count, dtype=float)
    reach = min(_MOST_SHIFT, count // 3)
    seen_east, seen_north = geo.local_metres(middle, *flight.seen.T)
    best = (np.inf, 0.0)
    for shift in np.arange(-reach * _SHIFT_STEPS, reach * _SHIFT_STEPS + 1) / _SHIFT_STEPS:
        at = np.asarray(flight.witnessed) + shift
        inside = (at >= 0) & (at <= count - 1)
        if inside.sum() < LEAST_FRAMES:
            continue
        apart = np.hypot(np.interp(at, frames, east) - seen_east, np.interp(at, frames, north) - seen_north)[inside]
        best = min(best, (float(np.median(apart)), float(shift)), key=lambda pair: (pair[0], abs(pair[1])))
    shift = best[1]
    values = {"frames": shift}  # a label that is late is undone by a later frame's
    if flight.elapsed_s is not None and count > 1:
        values["seconds"] = shift * float(np.median(np.diff(flight.elapsed_s)))
    at = np.clip(frames + shift, 0, count - 1)
    return "time", values, _degrees(middle, np.interp(at, frames, east), np.interp(at, frames, north))


def _body_shift(
    flight: WitnessedFlight, middle: LonLat, beyond: Floats, east: Floats, north: Floats
) -> tuple[str, dict[str, float], Floats]:
    """Labels moved by so much to the right and ahead of each frame; headings between witnesses are those of the
    nearest."""
    heading = np.radians(flight.heading_deg)
    right = beyond[:, 0] * np.cos(heading) - beyond[:, 1] * np.sin(heading)
    forward = beyond[:, 0] * np.sin(heading) + beyond[:, 1] * np.cos(heading)
    right_m, forward_m = float(np.median(right)), float(np.median(forward))
    witnessed = np.asarray(flight.witnessed)
    nearest = np.abs(np.arange(len(flight.label))[:, None] - witnessed).argmin(axis=1)
    turn = heading[nearest]
    moved_east = right_m * np.cos(turn) + forward_m * np.sin(turn)
    moved_north = forward_m * np.cos(turn) - right_m * np.sin(turn)
    values = {"right_m": -right_m, "forward_m": -forward_m}
    return "body-shift", values, _degrees(middle, east + moved_east, north + moved_north)


def _held(flight: WitnessedFlight, name: str, values: dict[str, float], labels: Floats) -> Explanation:
    apart = geo.distance_m(*labels[flight.witnessed].T, *flight.seen.T)
    within: Bools = apart <= flight.tolerance_m
    return Explanation(name, values, float(np.median(apart)), float(within.mean()), len(apart), labels)


def _beyond_label(flight: WitnessedFlight) -> Floats:
    """[N, 2]: (east, north) metres of where the imagery puts frames, from their labels."""
    at = flight.label[flight.witnessed]
    per_lon, per_lat = geo.degree_lengths(at[:, 1])
    east = geo.signed_difference_deg(at[:, 0], flight.seen[:, 0]) * per_lon
    return np.stack([east, (flight.seen[:, 1] - at[:, 1]) * per_lat], axis=1)


def _degrees(middle: LonLat, east: Floats, north: Floats) -> Floats:
    per_lon, per_lat = geo.metres_per_degree(middle.lat)
    return np.stack([(middle.lon + east / per_lon + 180) % 360 - 180, middle.lat + north / per_lat], axis=1)
