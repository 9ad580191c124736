"""Sections on stored tracks: what they claim, and for each its ground, its belief over time, and why it was lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Patch
from matplotlib.ticker import PercentFormatter

from coarseloc.core import geo
from coarseloc.core.fixes import ellipse
from coarseloc.core.types import Floats, LonLat
from coarseloc.i18n import Translator
from search.evaluation.report import style
from search.evaluation.report.fixes import frame_reliability, plot_reliability
from search.evaluation.report.ground_map import GroundDrawing
from search.evaluation.report.page import Section, Table
from search.evaluation.track_evaluation import TRACK_SCORES, TrackEvaluation, TrackScore
from search.export.tracks import FlightTrack, TrackFrame
from search.tracking.texts import evidence_text, gap_text, lane_text, state_text

_NEAREST_M, _FARTHEST_M = 0.01, 5_000.0  # of the logarithmic axis of errors
_MOST_ELLIPSES = 40
_MOST_RINGS = 160
_STATE_COLOURS = {
    "acquiring": style.GRID,
    "tracking": style.SERIES[2],
    "lost": style.SERIES[1],
    "recovered": style.SERIES[0],
}
_LOOKS = {"causal": (style.SERIES[0], "-", 1.8), "smoothed": (style.SERIES[3], (0, (4, 2)), 1.3)}


@dataclass(frozen=True, slots=True)
class TrackPair:
    """A causal track and the smoothed one of the same question; one may be missing."""

    causal: TrackEvaluation | None
    smoothed: TrackEvaluation | None

    @property
    def both(self) -> list[TrackEvaluation]:
        return [track for track in (self.causal, self.smoothed) if track is not None]

    @property
    def first(self) -> TrackEvaluation:
        return self.both[0]


def make_sections(tracks: Sequence[TrackEvaluation], translate: Translator) -> list[Section]:
    """None of them where there is no track."""
    if not tracks:
        return []
    with_truth = [track for track in tracks if len(track.judged.error_m)]
    sections = [
        Section(
            "tracks",
            translate("Tracks"),
            translate("Causal: each frame by the frames so far; smoothed: each by all of the flight. Shares within metres are "
                "of all frames: what is not claimed is outside. Left: how near the claims are; right: the claims' stated "
                "probability against the share that is not false. Intervals are of 95 %, from blocks of so many "
                "consecutive frames, or wider where the frames are worth few independent ones; of false claims it is the "
                "exact upper bound.")
            if with_truth
            else translate("The position of no frame is known, so that claims cannot be judged."),
            partial(plot_claims, with_truth, translate) if with_truth else None,
            table=_score_table(tracks, translate),
            open=True,
            full_table=_bin_table(with_truth, translate) if with_truth else None,
        )
    ]  # fmt: skip
    for pair in _pairs(tracks):
        sections += _pair_sections(pair, translate)
    return sections


def _pairs(tracks: Sequence[TrackEvaluation]) -> list[TrackPair]:
    by_question: dict[tuple[object, ...], dict[str, TrackEvaluation]] = {}
    for track in tracks:
        stored = track.localization
        by_question.setdefault((stored.flight_id, *stored.track_question), {})[stored.track_mode] = track
    return [TrackPair(modes.get("causal"), modes.get("smoothed")) for modes in by_question.values()]


def _pair_sections(pair: TrackPair, translate: Translator) -> list[Section]:
    stored = pair.first.localization
    title = translate("Track of {flight}: {evidence}, {map}").format(
        flight=stored.flight_id,
        evidence=", ".join((evidence_text(stored.evidence, translate), *stored.track_options)),
        map=map_name(pair.first),
    )
    gaps = [] if pair.causal is None else pair.causal.gaps
    sections = [
        Section(
            f"track-{stored.id}-belief",
            title,
            translate("Over time: the states, what the track believes of each frame, and its error where the truth is known. "
                "Shaded and numbered: frames that the causal track does not place; beneath, why."),
            partial(plot_belief, pair, translate),
            table=_gap_table(pair, translate) if gaps else None,
            open=True,
        )
    ]  # fmt: skip
    if _places(pair):
        sections.append(
            Section(
                f"track-{stored.id}-ground",
                title + " – " + translate("on the ground"),
                translate("Lines break where nothing is claimed and where the position jumps. Ellipses hold the position with "
                    "95 %, true to scale; rings: where else a frame may be, larger where likelier."),
                partial(plot_ground, pair, translate),
            )
        )  # fmt: skip
    return sections


def map_name(track: TrackEvaluation) -> str:
    """Of a file, without the folder that it lies in."""
    stored = track.localization
    return stored.reference_set if stored.set_uids else Path(stored.reference_set).name


# --- figures ------------------------------------------------------------------------------------


def plot_claims(tracks: Sequence[TrackEvaluation], translate: Translator) -> Figure:
    figure, (near, reliability) = style.new_figure(1, 2, 3.9)
    labels = _labels(tracks, translate)
    for index, (track, label) in enumerate(zip(tracks, labels, strict=True)):
        errors_m = track.judged.error_m
        reached = np.sort(np.clip(errors_m[~np.isnan(errors_m)], _NEAREST_M, _FARTHEST_M))
        shares = np.arange(1, len(reached) + 1) / len(errors_m)
        near.step(
            [*reached, _FARTHEST_M], [*shares, shares[-1] if len(shares) else 0.0], where="post", label=label,
            color=style.colour(index), linestyle=style.DASHES[index % len(style.DASHES)],
        )  # fmt: skip
        plot_reliability(reliability, track.reliability, index, label)
    near.set(xlabel=translate("within metres (logarithmic)"), xlim=(_NEAREST_M, _FARTHEST_M), ylim=(-0.02, 1.02))
    near.set_ylabel(translate("share of frames"))
    near.yaxis.set_major_formatter(PercentFormatter(1))
    style.logarithmic(near.xaxis)
    frame_reliability(reliability, translate)
    style.legend_above(near, columns=2)
    return figure


def plot_ground(pair: TrackPair, translate: Translator) -> Figure:
    """North up; the causal track over the smoothed one, the truth dotted over both."""
    places = _places(pair)
    ground = GroundDrawing(geo.bounds([place.lon for place in places], [place.lat for place in places]))
    figure, ax = ground.figure(translate)

    def line(points: Sequence[LonLat]) -> tuple[Floats, Floats]:
        return ground.metres(np.array([place.lon for place in points]), np.array([place.lat for place in points]))

    for track in reversed(pair.both):
        mode = track.localization.track_mode
        colour, dash, width = _LOOKS[mode]
        for number, segment in enumerate(track.track.segments()):
            east, north = line([tracked.position for tracked in segment if tracked.position])
            label = translate(mode) if number == 0 else None
            marker = "o" if len(segment) == 1 else ""
            ax.plot(
                east,
                north,
                color=colour,
                linestyle=dash,
                linewidth=width,
                label=label,
                zorder=4,
                marker=marker,
                markersize=3,
            )
    _draw_ellipses(ax, pair.both[-1].track, line)
    frames = pair.first.track.frames
    truth_runs = [list(run) for has_truth, run in groupby(frames, key=_has_truth) if has_truth]
    for number, run in enumerate(truth_runs):
        east, north = line([tracked.frame.truth.location for tracked in run if tracked.frame.truth.location])
        label = translate("truth") if number == 0 else None
        ax.plot(east, north, color=style.INK, linestyle=(0, (1, 1.6)), linewidth=1.0, label=label, zorder=5)
    rings = [ring for tracked in frames for ring in tracked.estimate.alternatives]
    drawn = rings[:: max(1, math.ceil(len(rings) / _MOST_RINGS))]
    if drawn:
        east, north = line([ring.location for ring in drawn])
        sizes = [12 + 90 * ring.probability for ring in drawn]
        label = translate("where else it may be")
        ax.scatter(
            east, north, sizes, facecolor="none", edgecolor=style.MUTED, linewidth=0.8, alpha=0.6, label=label, zorder=3
        )
    style.legend_above(ax)
    return figure


def _draw_ellipses(ax: Axes, track: FlightTrack, line: Callable[[Sequence[LonLat]], tuple[Floats, Floats]]) -> None:
    claims = [tracked for tracked in track.frames if tracked.position is not None]
    colour = _LOOKS[track.stored.track_mode][0]
    for tracked in claims[:: max(1, math.ceil(len(claims) / _MOST_ELLIPSES))]:
        position, covariance = tracked.position, tracked.covariance_m2
        if position is not None and covariance is not None:
            shape, ((east,), (north,)) = ellipse(covariance), line([position])
            ax.add_patch(
                Ellipse(
                    (east, north), 2 * shape.major_m, 2 * shape.minor_m, angle=90.0 - shape.azimuth_deg,
                    facecolor="none", edgecolor=colour, linewidth=0.7, alpha=0.7, zorder=3,
                )
            )  # fmt: skip


def plot_belief(pair: TrackPair, translate: Translator) -> Figure:
    """Lanes over one axis: states, probability, off the map, blind, and the error where it is known."""
    lanes = ["state", "probability", "p_off_map", "p_blind"]
    if any(np.isfinite(track.judged.error_m).any() for track in pair.both):
        lanes.append("error")
    heights = [0.55 if name == "state" else 1.0 for name in lanes]
    figure, axes = style.new_figure(len(lanes), 1, 0.9 + 1.05 * sum(heights), sharex=True, height_ratios=heights)
    at, by_time = _axis(pair.first.track)
    step = float(np.median(np.diff(list(at.values())))) if len(at) > 1 else 1.0
    for name, ax in zip(lanes, axes, strict=True):
        ax.set_ylabel(lane_text(name, translate), rotation=0, ha="right", va="center")
        for row, track in enumerate(pair.both):
            _draw_lane(ax, name, track, row, at, step)
        if name not in ("state", "error"):
            ax.set(ylim=(-0.05, 1.05), yticks=[0, 1])
        elif name == "error":
            style.logarithmic(ax.yaxis, "{x:,g} m")
    order = list(at)
    for number, gap in enumerate(() if pair.causal is None else pair.causal.gaps, start=1):
        start, end = at[gap.start_index] - step / 2, at[gap.end_index] + step / 2
        for ax in axes:
            ax.axvspan(start, end, color=style.GRID, zorder=0)
        axes[0].annotate(
            str(number), ((start + end) / 2, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=9
        )
    axes[0].set(yticks=range(len(pair.both)), ylim=(len(pair.both) - 0.45, -0.55))
    axes[0].set_yticklabels([translate(track.localization.track_mode) for track in pair.both])
    axes[0].grid(visible=False)
    axes[-1].set_xlim(at[order[0]] - step / 2, at[order[-1]] + step / 2)
    axes[-1].set_xlabel(translate("time since the first frame") + ", s" if by_time else translate("frame"))
    states = {tracked.estimate.state for track in pair.both for tracked in track.track.frames}
    keys = [
        Patch(facecolor=colour, label=state_text(state, translate))
        for state, colour in _STATE_COLOURS.items()
        if state in states
    ]
    lines = axes[1].get_lines()
    for artist, track in zip(lines, pair.both, strict=True):
        artist.set_label(translate(track.localization.track_mode))
    figure.legend(handles=[*keys, *lines], loc="outside upper left", ncols=6, fontsize=9)
    return figure


def _draw_lane(ax: Axes, name: str, track: TrackEvaluation, row: int, at: dict[int, float], step: float) -> None:
    """row: of the track among the states."""
    mode, frames = track.localization.track_mode, track.track.frames
    colour, dash, width = _LOOKS[mode]
    xs = [at[tracked.frame.index] for tracked in frames]
    if name == "state":
        for state, run in groupby(zip(xs, frames, strict=True), key=lambda pair: pair[1].estimate.state):
            spans = [x for x, _ in run]
            ax.broken_barh(
                [(spans[0] - step / 2, spans[-1] - spans[0] + step)], (row - 0.38, 0.76), color=_STATE_COLOURS[state],
                zorder=2,
            )  # fmt: skip
    elif name == "error":
        by_frame = dict(zip((t.frame.index for t in frames if _has_truth(t)), track.judged.error_m, strict=True))
        ys = [max(by_frame.get(tracked.frame.index, math.nan), _NEAREST_M) for tracked in frames]
        ax.plot(xs, ys, color=colour, linestyle=dash, linewidth=width, marker=".", markersize=2)
    else:
        ys = [getattr(tracked.estimate, name) for tracked in frames]
        ax.plot(xs, ys, color=colour, linestyle=dash, linewidth=width)


# --- tables -------------------------------------------------------------------------------------


def _score_table(tracks: Sequence[TrackEvaluation], translate: Translator) -> Table:
    """A column per track."""
    directions = {"lower": "↓", "higher": "↑", "nominal": "="}
    rows = [
        [
            translate(score.title) + (f", {score.unit}" if score.unit == "m" else ""),
            directions[score.better],
            *(_stacked(track, score, translate) for track in tracks),
        ]
        for score in TRACK_SCORES
        if any(track.scores[score.key].n for track in tracks)
    ]

    def frames(count: int | None) -> str:
        return translate("to the end") if count is None else str(count)

    rows += [
        [translate("a claim is false from, m"), "", *(f"{track.false_claim_m:g}" for track in tracks)],
        [
            translate("frames before the first claim"),
            "↓",
            *("–" if track.acquired_after is None else str(track.acquired_after) for track in tracks),
        ],
        [
            translate("frames until found again, each time"),
            "↓",
            *(", ".join(map(frames, track.losses)) or "–" for track in tracks),
        ],
        [
            translate("frames judged / all"),
            "",
            *(f"{len(track.judged.error_m)} / {len(track.track.frames)}" for track in tracks),
        ],
    ]
    return Table([translate("metric"), "", *_labels(tracks, translate)], rows)


def _stacked(track: TrackEvaluation, score: TrackScore, translate: Translator) -> str:
    """The figure, its interval or bound, and what that is of, on lines of their own."""
    estimate = track.scores[score.key]
    if math.isnan(estimate.value):
        return "–"
    value, block = score.text(estimate.value), track.block_intervals.get(score.key)
    if block is None:
        return "\n".join([value, f"≤ {score.text(estimate.high)}", f"n {estimate.n}"])
    if math.isnan(block.low):
        return "\n".join([value, f"n {estimate.n}"])
    ends = f"{score.text(block.low)}, {score.text(block.high)}"
    return "\n".join([value, ends, translate("n {n}, blocks of {block}").format(n=estimate.n, block=block.block)])


def _bin_table(tracks: Sequence[TrackEvaluation], translate: Translator) -> Table:
    rows = [
        [
            label,
            f"{group.low:.1f} … {group.high:.1f}",
            f"{group.mean_probability:.3f}",
            f"{group.right.value:.1%}",
            str(group.right.n),
        ]
        for track, label in zip(tracks, _labels(tracks, translate), strict=True)
        for group in track.reliability
    ]
    return Table(["", translate("stated probability"), translate("mean"), translate("share right"), "n"], rows)


def _gap_table(pair: TrackPair, translate: Translator) -> Table:
    gaps = () if pair.causal is None else pair.causal.gaps
    rows = [
        [str(number), gap_text(gap, translate), str(gap.frames), str(gap.searches)]
        for number, gap in enumerate(gaps, start=1)
    ]
    columns = ["", translate("Why frames are not placed"), translate("frames"), translate("looked for on the map")]
    return Table(columns, rows)


# --- what is drawn --------------------------------------------------------------------------------


def _labels(tracks: Sequence[TrackEvaluation], translate: Translator) -> list[str]:
    """Evidence and mode; the flight and the map too, where the tracks differ in them."""
    flights = len({track.localization.flight_id for track in tracks}) > 1
    maps = len({track.localization.reference_set for track in tracks}) > 1
    return [
        ", ".join(
            [
                evidence_text(track.localization.evidence, translate),
                *track.localization.track_options,
                translate(track.localization.track_mode),
                *([map_name(track)] if maps else []),
                *([track.localization.flight_id] if flights else []),
            ]
        )
        for track in tracks
    ]


def _axis(track: FlightTrack) -> tuple[dict[int, float], bool]:
    """({frame index: where it stands}, whether that is in seconds since the first frame)."""
    frames = [tracked.frame for tracked in track.frames]
    indices = [frame.index for frame in frames]
    elapsed_s = track.flight.clock.elapsed_s([frame.time for frame in frames], indices)
    if elapsed_s is not None and all(np.diff(elapsed_s) > 0):
        return dict(zip(indices, elapsed_s, strict=True)), True
    counted = indices if all(np.diff(indices) > 0) else range(len(indices))
    return dict(zip(indices, map(float, counted), strict=True)), False


def _places(pair: TrackPair) -> list[LonLat]:
    """The ground that truth and claims cover; where nothing is claimed nor known, where frames may be."""
    frames = [tracked for track in pair.both for tracked in track.track.frames]
    places = [tracked.position for tracked in frames] + [tracked.frame.truth.location for tracked in frames]
    located = [place for place in places if place is not None]
    return located or [other.location for tracked in frames for other in tracked.estimate.alternatives]


def _has_truth(tracked: TrackFrame) -> bool:
    return tracked.frame.truth.location is not None
