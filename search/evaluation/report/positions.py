"""Part of a study's report: positions by the global token, by patch tokens and by orientation correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarseloc.i18n import Translator
from coarseloc.store.studies import CurvePoint
from search.evaluation.report import style
from search.evaluation.report.page import Section, Table
from search.evaluation.report.study_charts import Line, curve_table, or_nan, percent_axis, plot_by_backbone
from search.evaluation.studies.positions import (
    COMPARED,
    PATCH_HEADINGS,
    POSITION_SHARE,
    SEARCHED_PLACES,
    WITNESSES,
    WitnessFigures,
    position_figures,
)
from search.evaluation.studies.study import StudyResult


def make_position_sections(
    result: StudyResult,
    translate: Translator,
    translate_figure: Translator,
    x_name: str,
    finish: Callable[[Axes], None],
) -> list[Section]:
    """`x_name`: of the turn or the altitude, in English. `finish` marks a chart's x axis."""
    title = translate("Position in metres: global token, patch tokens, orientation correlation")
    if not _are_measured(result):
        return [Section("positions", title, _why_not(result, translate))]
    share_lines, metre_lines = (
        [
            Line(f"{curve}@{name}", translate_figure(WITNESSES[name]), i // 2, dotted=i % 2 == 1, band=i % 2 == 0)
            for i, name in enumerate(WITNESSES)
        ]
        for curve in ("position", "metres")
    )
    columns = [
        [(f"{curve}@{name}", translate(WITNESSES[name])) for name in WITNESSES] for curve in ("position", "metres")
    ]
    label = translate_figure(x_name)

    def percent(ax: Axes) -> None:
        finish(ax)
        percent_axis(ax)

    return [
        Section(
            "positions",
            title,
            _note(result, translate),
            partial(plot_by_backbone, result, share_lines, label, translate_figure("right position"), percent),
            table=_figures_table(result, translate),
            open=True,
            full_table=curve_table(result, columns[0], translate(x_name), "{:.0%}"),
        ),
        Section(
            "position-metres",
            translate("Position in metres: median error"),
            translate("Over the frames, right and wrong ones. The scale is logarithmic; dotted, the right place is given."),
            partial(_plot_metres, result, metre_lines, label, translate_figure, finish),
            table=curve_table(result, columns[1], translate(x_name), "{:.3g}"),
        ),
    ]  # fmt: skip


def write_position_finding(result: StudyResult, backbone: str, translate: Translator) -> str:
    """A sentence or two from a backbone's figures; empty where they are not measured."""
    if not _are_measured(result):
        return ""
    figures = position_figures(result, backbone)
    texts = {name: f"{f.position.y or 0:.0%} ({_metres(f.metres.y)} m)" for name, f in figures.items()}
    sentence = translate(
        "Of {n} frames, {best} lie within {within} m of the centre of the global token's best tile ({metres} m in the "
        "median); patch tokens among its best {k} places are right that closely for {patches}, orientation correlation for "
        "{orientation}, and with the right place given for {patches_oracle} and {orientation_oracle}."
    ).format(
        n=figures["global"].position.n, within=f"{_within_m(result):g}", best=f"{figures['global'].position.y or 0:.0%}", k=SEARCHED_PLACES,
        metres=_metres(figures["global"].metres.y), patches=texts["patches"], orientation=texts["orientation"],
        patches_oracle=texts["patches-oracle"], orientation_oracle=texts["orientation-oracle"],
    )  # fmt: skip
    comparisons = [_comparison(figures, witness, translate) for witness in COMPARED]
    lowest = [_lowest(result, backbone, name, translate) for name in COMPARED]
    return " ".join([sentence, *comparisons, *filter(None, lowest)])


def _comparison(figures: Mapping[str, WitnessFigures], witness: str, translate: Translator) -> str:
    base, nearer = COMPARED[witness], figures[witness].nearer
    return translate(
        "“{name}” is nearer than “{base}” in {share} of the views: {metres} m instead of {base_m} m in the median."
    ).format(
        name=translate(WITNESSES[witness]), base=translate(WITNESSES[base]),
        share="–" if nearer is None or nearer.y is None else _with_interval(nearer, _percent, " [{low}, {high}]"),
        metres=_metres(figures[witness].metres.y), base_m=_metres(figures[base].metres.y),
    )  # fmt: skip


def _lowest(result: StudyResult, backbone: str, name: str, translate: Translator) -> str:
    """Where along the turns or altitudes a witness finds least, if anywhere less than elsewhere."""
    points = result.curve(backbone, f"position@{name}")
    lowest = min(points, key=lambda point: or_nan(point.y))
    if max(or_nan(point.y) for point in points) == lowest.y:
        return ""
    unit = "°" if result.study.kind == "rotation" else " m"
    return translate("“{name}” finds least at {x}: {share}.").format(
        name=translate(WITNESSES[name]), x=f"{lowest.x:g}{unit}", share=f"{lowest.y or 0:.0%}"
    )


def _are_measured(result: StudyResult) -> bool:
    return any(point.curve == "position@patches" for point in result.points)


def _why_not(result: StudyResult, translate: Translator) -> str:
    parameters = result.study.parameters
    if "positions" not in parameters:
        return translate("This older study did not measure positions: the same command measures them now.")
    if "pictures" in parameters["ground"]:
        return translate("Pictures without a map have no position to find in metres.")
    return translate("Left out: the study was run with --positions 0.")


def _note(result: StudyResult, translate: Translator) -> str:
    known = (
        translate("Headings are not known.")
        if result.study.kind == "rotation"
        else translate("Altitudes are known: places are of the nearest level, windows as wide as the frame asks for.")
    )
    text = translate(
        "Of {n} frames. The global token answers with the centre of its best tile. Patch tokens and orientation correlation "
        "look for the frame's middle in windows of 1.75 footprints around its best {k} places, at all headings; dotted "
        "lines: around the right place alone. Patch tokens are correlated with the window's as a grid of vectors, the "
        "frame embedded at {headings} headings. Right: within {within} m, {share} of the footprint."
    ).format(
        n=result.study.findings["positions"], k=SEARCHED_PLACES, within=f"{_within_m(result):g}",
        share=f"{POSITION_SHARE:.0%}", headings=len(PATCH_HEADINGS),
    )  # fmt: skip
    return f"{text} {known}"


def _within_m(result: StudyResult) -> float:
    return POSITION_SHARE * float(result.study.parameters["ground"]["footprint_m"])


def _figures_table(result: StudyResult, translate: Translator) -> Table:
    rows = [
        [translate(WITNESSES[name]), backbone, _with_interval(f.metres, _metres), _with_interval(f.position, _percent),
         _with_interval(f.place, _percent), str(f.metres.n)]
        for backbone in result.backbones
        for name, f in position_figures(result, backbone).items()
    ]  # fmt: skip
    columns = (
        translate("witness"),
        translate("backbone"),
        translate("median error, m"),
        translate("right position"),
        translate("right place"),
        "n",
    )
    return Table(columns, rows)


def _with_interval(point: CurvePoint, form: Callable[[float | None], str], interval: str = "\n{low}, {high}") -> str:
    ends = "" if point.low is None else interval.format(low=form(point.low), high=form(point.high))
    return form(point.y) + ends


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _metres(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _plot_metres(
    result: StudyResult, lines: list[Line], xlabel: str, translate: Translator, finish: Callable[[Axes], None]
) -> Figure:
    def logarithmic(ax: Axes) -> None:
        finish(ax)
        style.logarithmic(ax.yaxis)

    return plot_by_backbone(result, lines, xlabel, translate("median error, m"), logarithmic)
