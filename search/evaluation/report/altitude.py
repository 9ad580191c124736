"""Report of the altitude study: its sections, and its findings as text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarseloc.i18n import Translator
from coarseloc.store.studies import CurvePoint
from search.evaluation.report import style
from search.evaluation.report.page import Section, Table
from search.evaluation.report.positions import make_position_sections, write_position_finding
from search.evaluation.report.study_charts import (
    Line,
    compare_text,
    curve_table,
    percent_axis,
    plot_by_backbone,
    plot_cosines,
    plot_strategies,
    strategies_of,
    strategy_table,
    value_at,
)
from search.evaluation.studies.altitude import CROPPED, CURVES, NEAREST, PYRAMID, SINGLE, levels
from search.evaluation.studies.strategies import recall_text
from search.evaluation.studies.study import StudyResult

TITLE = "Altitude laboratory: how stable are embeddings when the aircraft climbs?"
_MIN_RECALL = 0.05  # a recall whose interval reaches lower is too little to take nine tenths of


def make_sections(result: StudyResult, translate: Translator, translate_figure: Translator) -> list[Section]:
    """`translate_figure`: the language inside the figures."""
    strategies = list(CURVES)
    recall_lines = [
        Line(f"recall@{CURVES[strategy]}", translate_figure(strategy), i, band=False)
        for i, strategy in enumerate(strategies)
    ]
    error_lines = [
        Line(f"error@{CURVES[strategy]}", translate_figure(strategy), i, band=False)
        for i, strategy in enumerate(strategies)
    ]
    altitude_label = translate_figure("altitude of the frame, m")
    return [
        Section(
            "ways",
            translate("Ways to be robust"),
            translate(
                "The same places from every altitude. A pyramid holds references of several altitudes; a known altitude picks its nearest level, or crops a frame from above to what a reference shows. A place is right where the best reference's centre lies within half a footprint of the single altitude, whatever its own level; lines are 95 % intervals over places. Gains are points above a single altitude, paired by place, on the places that both can reach: the ceiling is the share of frames that could be right at all, given the references searched."
            ),
            partial(plot_strategies, result, translate_figure),
            table=strategy_table(result, translate, heading=False),
            open=True,
        ),
        Section(
            "levels",
            translate("What each level can reach"),
            translate(
                "The ceiling is the share of places with a reference of this level whose centre lies within half a footprint of the single altitude: no search of the level can be right more often."
            ),
            table=_level_table(result, translate),
            open=True,
        ),
        Section(
            "cosine",
            translate("Global token: cosine against the altitude"),
            translate(
                "Mean cosine of a place with itself as the references' altitude shows it. Dotted: its cosine with other places."
            ),
            partial(_plot_cosines, result, translate_figure),
            table=curve_table(
                result,
                [("cosine", translate("same place")), ("cosine_other", translate("other places"))],
                translate("altitude of the frame, m"),
                "{:.3f}",
            ),
        ),
        Section(
            "recall-by-altitude",
            translate("Right place against the altitude"),
            translate("The grey line is the altitude of the single-altitude index; dashed, the ceilings below 100 %."),
            partial(
                plot_by_backbone,
                result,
                [*recall_lines, *_ceilings(result, translate_figure)],
                altitude_label,
                translate_figure("right place"),
                partial(_percent_at, _base(result)),
            ),
            table=curve_table(
                result,
                [
                    (f"{curve}@{CURVES[strategy]}", title.format(way=translate(strategy)))
                    for curve, title in (("recall", "{way}"), ("ceiling", translate("{way}: ceiling")))
                    for strategy in strategies
                ],
                translate("altitude of the frame, m"),
                "{:.0%}",
            ),
        ),
        Section(
            "error-by-altitude",
            translate("Error against the altitude"),
            translate("Median over places. High levels lie on a wider grid: their nearest centre is further off."),
            partial(
                plot_by_backbone,
                result,
                error_lines,
                altitude_label,
                translate_figure("median error, m"),
                partial(_metres_at, _base(result)),
            ),
            table=curve_table(
                result,
                [(f"error@{CURVES[strategy]}", translate(strategy)) for strategy in strategies],
                translate("altitude of the frame, m"),
                "{:.0f}",
            ),
        ),
        *make_position_sections(
            result, translate, translate_figure, "altitude of the frame, m", partial(_mark_altitude, _base(result))
        ),
    ]


def _ceilings(result: StudyResult, translate_figure: Translator) -> list[Line]:
    """The ceilings that bound a curve."""
    below_one = {p.curve for p in result.points if p.curve.startswith("ceiling@") and p.y is not None and p.y < 1.0}
    return [
        Line(
            f"ceiling@{CURVES[strategy]}",
            translate_figure("{way}: ceiling").format(way=translate_figure(strategy)),
            0,
            muted=True,
            band=False,
        )
        for strategy in CURVES
        if f"ceiling@{CURVES[strategy]}" in below_one
    ]


def _level_table(result: StudyResult, translate: Translator) -> Table:
    limits = result.study.findings.get("limits")
    rows = []
    for i, (altitude, count) in enumerate(levels(result)):
        reach = (
            [f"{limits['ceilings'][i]:.1%}", f"{limits['floors_m'][i]:.0f}"]
            if limits
            else [translate("not recorded")] * 2
        )
        rows.append([f"{altitude:g} m", str(count), *reach, str(result.study.findings["frames"])])
    columns = (
        translate("level"),
        translate("references"),
        translate("ceiling"),
        translate("nearest reference, median m"),
        "n",
    )
    return Table(columns, rows)


def _plot_cosines(result: StudyResult, translate: Translator) -> Figure:
    return plot_cosines(
        result, translate("altitude of the frame, m"), translate, partial(_mark_altitude, _base(result))
    )


def _base(result: StudyResult) -> float:
    return float(result.study.parameters["reference_m"])


def _mark_altitude(altitude: float, ax: Axes) -> None:
    ax.axvline(altitude, color=style.MUTED, linewidth=1)


def _percent_at(altitude: float, ax: Axes) -> None:
    _mark_altitude(altitude, ax)
    percent_axis(ax)


def _metres_at(altitude: float, ax: Axes) -> None:
    _mark_altitude(altitude, ax)
    ax.set_ylim(bottom=0)


# --- text ---------------------------------------------------------------------------------------


def write_findings(result: StudyResult, translate: Translator) -> list[str]:
    """A paragraph for each backbone, written from its numbers."""
    return [_finding(result, backbone, translate) for backbone in result.backbones]


def _finding(result: StudyResult, backbone: str, translate: Translator) -> str:
    base = _base(result)
    altitudes = result.study.parameters["altitudes_m"]
    lowest, highest = min(altitudes), max(altitudes)
    recall = result.curve(backbone, "recall@single")
    strategies = strategies_of(result, backbone)
    lines = [
        translate("{name}: an index at {base} m finds the right place for {own} of the frames at its own altitude, for {low_share} at {low} m and {high_share} at {high} m.").format(
            name=backbone, base=f"{base:g}", own=f"{value_at(recall, base):.0%}", low=f"{lowest:g}", high=f"{highest:g}",
            low_share=f"{value_at(recall, lowest):.0%}", high_share=f"{value_at(recall, highest):.0%}",
        ),
        translate("Over all altitudes a pyramid of {levels} m finds {pyramid} instead of {single}, for {times} times the index; with the altitude known, its nearest level finds {nearest}, and cropping the frame finds {cropped} with the single index.").format(
            levels=", ".join(f"{a:g}" for a in result.study.parameters["pyramid_m"]), pyramid=recall_text(strategies[PYRAMID]),
            single=recall_text(strategies[SINGLE]), times=f"{strategies[PYRAMID]['index_bytes'] / strategies[SINGLE]['index_bytes']:.2f}",
            nearest=recall_text(strategies[NEAREST]), cropped=recall_text(strategies[CROPPED]),
        ),
        translate("Against a single altitude, on the places that both can reach: {parts}.").format(
            parts=compare_text([strategies[name] for name in (PYRAMID, NEAREST, CROPPED)], translate)
        ),
    ]  # fmt: skip
    if altitude_range := _altitude_range(recall, base):
        lines.insert(
            1,
            translate("It keeps nine tenths of that from {first} to {last} m.").format(
                first=f"{altitude_range[0]:g}", last=f"{altitude_range[1]:g}"
            ),
        )
    return " ".join([*lines, write_position_finding(result, backbone, translate)]).rstrip()


def _altitude_range(recall: Sequence[CurvePoint], base: float) -> tuple[float, float] | None:
    """The altitudes around the base, without a gap, that keep nine tenths of its recall; None where the recall may be zero."""
    at_base = [point.x for point in recall].index(base)
    if (recall[at_base].low or 0.0) < _MIN_RECALL:
        return None
    bound = 0.9 * (recall[at_base].y or 0.0)
    first = last = at_base
    while first > 0 and (recall[first - 1].y or 0.0) >= bound:
        first -= 1
    while last < len(recall) - 1 and (recall[last + 1].y or 0.0) >= bound:
        last += 1
    return recall[first].x, recall[last].x
