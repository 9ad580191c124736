"""The rotation laboratory's report."""

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
from search.evaluation.report.curves import Line, at, by_backbone, cosines, curve_table, or_nan, percent
from search.evaluation.report.page import Section
from search.evaluation.report.ways import compared, way_bars, way_table, ways_of
from search.evaluation.studies.patches import RING_ANGLES
from search.evaluation.studies.rotation import EIGHT_HEADINGS, EIGHT_QUERIES, FOUR_HEADINGS, KNOWN_YAW, ONE_HEADING
from search.evaluation.studies.strategies import recall_text
from search.evaluation.studies.study import StudyResult

ONE_HEADING_INDEX = "one heading in the index"
TITLE = "Rotation laboratory: how stable are embeddings when the aircraft turns?"


def sections(found: StudyResult, say: Translator, drawn: Translator) -> list[Section]:
    """`drawn` is the language inside the figures."""
    names = {1: ONE_HEADING_INDEX, 4: FOUR_HEADINGS, 8: EIGHT_HEADINGS}
    index = [Line(f"recall@{k}", drawn(name), i) for i, (k, name) in enumerate(names.items())]
    made = [
        Section(
            "ways",
            say("Ways to be robust"),
            say("The same frames at every heading. Turned references multiply the index by eight, a turned frame "
                "multiplies the embedding by eight, a known yaw costs nothing. A place is right where the best "
                "reference's footprint holds the frame's centre; lines are 95 % intervals over frames. Gains are points above eight references, paired by frame."),
            partial(way_bars, found, drawn),
            table=way_table(found, say),
            open=True,
        ),
        Section(
            "cosine",
            say("Global token: cosine against the turn"),
            say("Mean cosine of a place with itself turned. Dotted: its cosine with other places; a turn that "
                "comes down to it can no longer be told from another place."),
            partial(_cosines, found, drawn),
            table=curve_table(
                found, [("cosine", say("same place")), ("cosine_other", say("other places"))], say("turn, degrees"), "{:.3f}"
            ),
        ),
        Section(
            "polar",
            say("Global token: all the way round"),
            say("The same, around the compass: 0 at the top, clockwise. The inner edge is the lowest cosine seen."),
            partial(polar, found, drawn),
        ),
        Section(
            "recall-by-heading",
            say("Right place against the frame's heading"),
            say("For an index that holds references at one heading (north), at four, and at eight."),
            partial(by_backbone, found, index, drawn("heading of the frame, degrees"), drawn("right place"), _compass_percent),
            table=curve_table(
                found, [(f"recall@{k}", f"{k}") for k in (1, 4, 8)], say("heading of the frame, degrees"), "{:.0%}"
            ),
        ),
        Section(
            "margin-by-heading",
            say("Margin over the best wrong place"),
            say("Score of the best right reference less that of the best wrong one; below zero the search errs."),
            partial(
                by_backbone, found, [Line(one.curve.replace("recall", "margin"), one.name, one.index) for one in index],
                drawn("heading of the frame, degrees"), drawn("margin"), _compass_zero,
            ),
            table=curve_table(
                found, [(f"margin@{k}", f"{k}") for k in (1, 4, 8)], say("heading of the frame, degrees"), "{:.4f}"
            ),
        ),
    ]  # fmt: skip
    if any(point.curve == "patch_aligned" for point in found.points):
        made += _patch_sections(found, say, drawn)
    return made


def _patch_sections(found: StudyResult, say: Translator, drawn: Translator) -> list[Section]:
    lines = [
        Line("patch_aligned", drawn("patches laid back by the turn"), 0),
        Line("patch_pooled", drawn("mean of all patches"), 2),
        Line("patch_unaligned", drawn("same row and column"), 1),
        Line("patch_other", drawn("another place"), 0, muted=True),
    ]
    rings = [
        Line(f"patch_ring@{angle}", drawn("turned by {angle}").format(angle=angle), i)
        for i, angle in enumerate(RING_ANGLES)
    ]
    names = [(line.curve, name) for line, name in zip(lines, (
        say("patches laid back by the turn"), say("mean of all patches"), say("same row and column"), say("another place")
    ), strict=True)]  # fmt: skip
    return [
        Section(
            "patches",
            say("Patch tokens: cosine against the turn"),
            say("Each patch of the turned view is compared with what the view at heading 0 has at the same ground, between "
                "its patches by bilinear interpolation. For comparison: the patch at the same row and column, the mean of "
                "all patches, and patches of another place."),
            partial(by_backbone, found, lines, drawn("turn, degrees"), drawn("cosine"), _compass),
            table=curve_table(found, names, say("turn, degrees"), "{:.3f}"),
        ),
        Section(
            "rings",
            say("Patch tokens: by distance from the centre"),
            say("0 is the centre, 1 the corner. Beyond 0.71, the inscribed circle, a view turned by 45 degrees shows ground "
                "that the other does not."),
            partial(by_backbone, found, rings, drawn("distance from the centre, half diagonals"), drawn("cosine")),
            table=curve_table(
                found, [(f"patch_ring@{angle}", f"{angle}°") for angle in RING_ANGLES], say("distance from the centre"), "{:.3f}"
            ),
        ),
    ]  # fmt: skip


# --- figures ------------------------------------------------------------------------------------


def _cosines(found: StudyResult, say: Translator) -> Figure:
    return cosines(found, say("turn, degrees"), say, _compass)


def polar(found: StudyResult, say: Translator) -> Figure:
    made, axes = style.figure(height_in=4.6, subplot_kw={"projection": "polar"})
    ax = cast(PolarAxes, axes[0])
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    lowest = 1.0
    for i, backbone in enumerate(found.backbones):
        points = found.curve(backbone, "cosine")
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
    made.legend(loc="outside right upper", title=say("cosine"))
    return made


def _compass(ax: Axes) -> None:
    ax.set_xticks(range(0, 361, 90))


def _compass_percent(ax: Axes) -> None:
    _compass(ax)
    percent(ax)


def _compass_zero(ax: Axes) -> None:
    _compass(ax)
    ax.axhline(0, color=style.MUTED, linewidth=1)


# --- words --------------------------------------------------------------------------------------


def findings(found: StudyResult, say: Translator) -> list[str]:
    """A paragraph for each backbone, written from its numbers."""
    return [_finding(found, backbone, say) for backbone in found.backbones]


def _finding(found: StudyResult, backbone: str, say: Translator) -> str:
    cosine, other = found.curve(backbone, "cosine"), found.curve(backbone, "cosine_other")
    worst = min(cosine, key=lambda p: or_nan(p.y))
    quarter, half = at(cosine, 90), at(cosine, 180)
    lines = [
        say("{name}: turned, the global token keeps a cosine of {worst} at its worst, {angle} degrees ({quarter} at 90, "
            "{half} at 180), while other places have {other}.").format(
            name=backbone, worst=f"{or_nan(worst.y):.3f}", angle=f"{worst.x:g}", quarter=f"{quarter:.3f}",
            half=f"{half:.3f}", other=f"{np.nanmean([or_nan(p.y) for p in other]):.3f}",
        )
    ]  # fmt: skip
    ways = ways_of(found, backbone)
    plain, eight, queries, known = (ways[name] for name in (ONE_HEADING, EIGHT_HEADINGS, EIGHT_QUERIES, KNOWN_YAW))
    lines.append(
        say("An index of one heading finds the right place for {plain} of the frames at any heading, of eight headings for "
            "{eight}; turning the frame eight times instead {queries}; with the yaw known {known}.").format(
            plain=recall_text(plain), eight=recall_text(eight), queries=recall_text(queries), known=recall_text(known)
        )
    )  # fmt: skip
    lines.append(
        say("Eight references cost {bytes} MB instead of {single} MB and {search} ms of search; eight queries cost "
            "{embed} ms of embedding instead of {once} ms.").format(
            bytes=f"{eight['index_bytes'] / 1e6:.2f}", single=f"{plain['index_bytes'] / 1e6:.2f}",
            search=f"{eight['search_ms']:.3f}", embed=f"{queries['embed_ms']:.1f}", once=f"{plain['embed_ms']:.1f}",
        )
    )  # fmt: skip
    lines.append(
        say("Against eight references, on the same frames: {parts}.").format(
            parts=compared((plain, queries, known), say)
        )
    )
    patches = found.curve(backbone, "patch_aligned")
    if patches:
        foreign = found.curve(backbone, "patch_other")
        lines.append(
            say("Patch tokens laid back by the turn keep {quarter} at 90 degrees and {half} at 180, where those of another "
                "place have {other}; the mean of all patches keeps {pooled} at its worst.").format(
                quarter=f"{at(patches, 90):.3f}", half=f"{at(patches, 180):.3f}", other=f"{at(foreign, 180):.3f}",
                pooled=f"{min(or_nan(p.y) for p in found.curve(backbone, 'patch_pooled')):.3f}",
            )
        )  # fmt: skip
    return " ".join(lines)
