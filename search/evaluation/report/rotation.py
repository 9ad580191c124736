"""Report of the rotation study: its sections, and its findings as text."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator

from coarseloc.i18n import Translator
from search.evaluation.report import style
from search.evaluation.report.chart import Axis
from search.evaluation.report.page import Section
from search.evaluation.report.positions import make_position_sections, write_position_finding
from search.evaluation.report.study_charts import (
    Line,
    chart_by_backbone,
    compare_text,
    cosine_chart,
    curve_table,
    or_nan,
    percent_axis,
    plot_by_backbone,
    plot_cosines,
    plot_strategies,
    strategies_of,
    strategy_table,
    value_at,
)
from search.evaluation.studies.patches import RING_ANGLES
from search.evaluation.studies.rotation import EIGHT_HEADINGS, EIGHT_QUERIES, FOUR_HEADINGS, KNOWN_YAW, ONE_HEADING
from search.evaluation.studies.strategies import recall_text
from search.evaluation.studies.study import StudyResult

ONE_HEADING_INDEX = "one heading in the index"
TITLE = "Rotation laboratory: how stable are embeddings when the aircraft turns?"
_QUARTERS = (0, 90, 180, 270, 360)


def make_sections(result: StudyResult, translate: Translator, translate_figure: Translator) -> list[Section]:
    """`translate_figure`: the language inside the figures."""
    names = {1: ONE_HEADING_INDEX, 4: FOUR_HEADINGS, 8: EIGHT_HEADINGS}
    recall_lines = [Line(f"recall@{k}", translate_figure(name), i) for i, (k, name) in enumerate(names.items())]
    turn = Axis(translate_figure("turn, degrees"), ticks=_QUARTERS)
    heading = Axis(translate_figure("heading of the frame, degrees"), ticks=_QUARTERS)
    margin_lines = [Line(line.curve.replace("recall", "margin"), line.name, line.index) for line in recall_lines]
    sections = [
        Section(
            "ways",
            translate("Ways to be robust"),
            translate("The same frames at every heading. Turned references multiply the index by eight, a turned frame "
                "multiplies the embedding by eight, a known yaw costs nothing. A place is right where the best "
                "reference's footprint holds the frame's centre; lines are 95 % intervals over frames. Gains are points above eight references, paired by frame."),
            partial(plot_strategies, result, translate_figure),
            table=strategy_table(result, translate),
            open=True,
        ),
        Section(
            "cosine",
            translate("Global token: cosine against the turn"),
            translate("Mean cosine of a place with itself turned. Dotted: its cosine with other places; a turn that "
                "comes down to it can no longer be told from another place."),
            partial(_plot_cosines, result, translate_figure),
            cosine_chart(result, turn, translate_figure),
            table=curve_table(
                result, [("cosine", translate("same place")), ("cosine_other", translate("other places"))], translate("turn, degrees"), "{:.3f}"
            ),
        ),
        Section(
            "polar",
            translate("Global token: all the way round"),
            translate("The same, around the compass: 0 at the top, clockwise. The inner edge is the lowest cosine seen."),
            partial(plot_polar, result, translate_figure),
        ),
        Section(
            "recall-by-heading",
            translate("Right place against the frame's heading"),
            translate("For an index that holds references at one heading (north), at four, and at eight."),
            partial(plot_by_backbone, result, recall_lines, translate_figure("heading of the frame, degrees"), translate_figure("right place"), _compass_percent),
            chart_by_backbone(result, recall_lines, heading, Axis(translate_figure("right place"), percent=True, ends=(-0.03, 1.05))),
            table=curve_table(
                result, [(f"recall@{k}", f"{k}") for k in (1, 4, 8)], translate("heading of the frame, degrees"), "{:.0%}"
            ),
        ),
        Section(
            "margin-by-heading",
            translate("Margin over the best wrong place"),
            translate("Score of the best right reference less that of the best wrong one; below zero the search errs."),
            partial(
                plot_by_backbone, result, margin_lines,
                translate_figure("heading of the frame, degrees"), translate_figure("margin"), _compass_zero,
            ),
            chart_by_backbone(result, margin_lines, heading, Axis(translate_figure("margin"))),
            table=curve_table(
                result, [(f"margin@{k}", f"{k}") for k in (1, 4, 8)], translate("heading of the frame, degrees"), "{:.4f}"
            ),
        ),
    ]  # fmt: skip
    if any(point.curve == "patch_aligned" for point in result.points):
        sections += _patch_sections(result, translate, translate_figure)
    return sections + make_position_sections(
        result, translate, translate_figure, "heading of the frame, degrees", _compass
    )


def _patch_sections(result: StudyResult, translate: Translator, translate_figure: Translator) -> list[Section]:
    patch_lines = [
        Line("patch_aligned", translate_figure("patches laid back by the turn"), 0),
        Line("patch_pooled", translate_figure("mean of all patches"), 2),
        Line("patch_unaligned", translate_figure("same row and column"), 1),
        Line("patch_other", translate_figure("another place"), 0, muted=True),
    ]
    ring_lines = [
        Line(f"patch_ring@{angle}", translate_figure("turned by {angle}").format(angle=angle), i)
        for i, angle in enumerate(RING_ANGLES)
    ]
    names = [(line.curve, name) for line, name in zip(patch_lines, (
        translate("patches laid back by the turn"), translate("mean of all patches"), translate("same row and column"), translate("another place")
    ), strict=True)]  # fmt: skip
    return [
        Section(
            "patches",
            translate("Patch tokens: cosine against the turn"),
            translate("Each patch of the turned view is compared with what the view at heading 0 has at the same ground, between "
                "its patches by bilinear interpolation. For comparison: the patch at the same row and column, the mean of "
                "all patches, and patches of another place."),
            partial(plot_by_backbone, result, patch_lines, translate_figure("turn, degrees"), translate_figure("cosine"), _compass),
            chart_by_backbone(result, patch_lines, Axis(translate_figure("turn, degrees"), ticks=_QUARTERS), Axis(translate_figure("cosine"))),
            table=curve_table(result, names, translate("turn, degrees"), "{:.3f}"),
        ),
        Section(
            "rings",
            translate("Patch tokens: by distance from the centre"),
            translate("0 is the centre, 1 the corner. Beyond 0.71, the inscribed circle, a view turned by 45 degrees shows ground "
                "that the other does not."),
            partial(plot_by_backbone, result, ring_lines, translate_figure("distance from the centre, half diagonals"), translate_figure("cosine")),
            chart_by_backbone(result, ring_lines, Axis(translate_figure("distance from the centre, half diagonals")), Axis(translate_figure("cosine"))),
            table=curve_table(
                result, [(f"patch_ring@{angle}", f"{angle}°") for angle in RING_ANGLES], translate("distance from the centre"), "{:.3f}"
            ),
        ),
    ]  # fmt: skip


# --- figures ------------------------------------------------------------------------------------


def _plot_cosines(result: StudyResult, translate: Translator) -> Figure:
    return plot_cosines(result, translate("turn, degrees"), translate, _compass)


def plot_polar(result: StudyResult, translate: Translator) -> Figure:
    figure, axes = style.new_figure(height_in=4.6, subplot_kw={"projection": "polar"})
    ax = cast(PolarAxes, axes[0])
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    lowest = 1.0
    for i, backbone in enumerate(result.backbones):
        points = result.curve(backbone, "cosine")
        theta = np.radians([p.x for p in points] + [360.0])
        values = [or_nan(p.y) for p in points]
        lowest = min(lowest, *values)
        ax.plot(theta, [*values, values[0]], label=backbone, markevery=max(1, len(points) // 8), **style.line(i))
    floor = math.floor(lowest * 20 - 0.5) / 20
    ax.set_ylim(floor, 1.0)
    ax.set_thetagrids(range(0, 360, 45))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_rlabel_position(200)
    ax.spines["polar"].set_color(style.GRID)
    figure.legend(loc="outside right upper", title=translate("cosine"))
    return figure


def _compass(ax: Axes) -> None:
    ax.set_xticks(_QUARTERS)


def _compass_percent(ax: Axes) -> None:
    _compass(ax)
    percent_axis(ax)


def _compass_zero(ax: Axes) -> None:
    _compass(ax)
    ax.axhline(0, color=style.MUTED, linewidth=1)


# --- text ---------------------------------------------------------------------------------------


def write_findings(result: StudyResult, translate: Translator) -> list[str]:
    """A paragraph for each backbone, written from its numbers."""
    return [_finding(result, backbone, translate) for backbone in result.backbones]


def _finding(result: StudyResult, backbone: str, translate: Translator) -> str:
    cosine, other_place = result.curve(backbone, "cosine"), result.curve(backbone, "cosine_other")
    worst = min(cosine, key=lambda p: or_nan(p.y))
    quarter, half = value_at(cosine, 90), value_at(cosine, 180)
    lines = [
        translate("{name}: turned, the global token keeps a cosine of {worst} at its worst, {angle} degrees ({quarter} at 90, "
            "{half} at 180), while other places have {other}.").format(
            name=backbone, worst=f"{or_nan(worst.y):.3f}", angle=f"{worst.x:g}", quarter=f"{quarter:.3f}",
            half=f"{half:.3f}", other=f"{np.nanmean([or_nan(p.y) for p in other_place]):.3f}",
        )
    ]  # fmt: skip
    strategies = strategies_of(result, backbone)
    plain, eight, queries, known_yaw = (
        strategies[name] for name in (ONE_HEADING, EIGHT_HEADINGS, EIGHT_QUERIES, KNOWN_YAW)
    )
    lines.append(
        translate("An index of one heading finds the right place for {plain} of the frames at any heading, of eight headings for "
            "{eight}; turning the frame eight times instead {queries}; with the yaw known {known}.").format(
            plain=recall_text(plain), eight=recall_text(eight), queries=recall_text(queries), known=recall_text(known_yaw)
        )
    )  # fmt: skip
    lines.append(
        translate("Eight references cost {bytes} MB instead of {single} MB and {search} ms of search; eight queries cost "
            "{embed} ms of embedding instead of {once} ms.").format(
            bytes=f"{eight['index_bytes'] / 1e6:.2f}", single=f"{plain['index_bytes'] / 1e6:.2f}",
            search=f"{eight['search_ms']:.3f}", embed=f"{queries['embed_ms']:.1f}", once=f"{plain['embed_ms']:.1f}",
        )
    )  # fmt: skip
    lines.append(
        translate("Against eight references, on the same frames: {parts}.").format(
            parts=compare_text((plain, queries, known_yaw), translate)
        )
    )
    patches = result.curve(backbone, "patch_aligned")
    if patches:
        patch_other = result.curve(backbone, "patch_other")
        lines.append(
            translate("Patch tokens laid back by the turn keep {quarter} at 90 degrees and {half} at 180, where those of another "
                "place have {other}; the mean of all patches keeps {pooled} at its worst.").format(
                quarter=f"{value_at(patches, 90):.3f}", half=f"{value_at(patches, 180):.3f}", other=f"{value_at(patch_other, 180):.3f}",
                pooled=f"{min(or_nan(p.y) for p in result.curve(backbone, 'patch_pooled')):.3f}",
            )
        )  # fmt: skip
    return " ".join([*lines, write_position_finding(result, backbone, translate)]).rstrip()
